"""Explains predictions: attributions of the whole model, blend included."""
