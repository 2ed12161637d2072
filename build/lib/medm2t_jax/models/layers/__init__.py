"""Layers that several modules of the model are made of."""
