"""Layers that several modules of the model use."""
