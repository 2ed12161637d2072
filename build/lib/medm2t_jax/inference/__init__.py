"""From a trained model to predictions."""
