"""A trained model over HTTP (docs/serving.md)."""
