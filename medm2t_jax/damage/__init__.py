"""Damaged batches: to test how a model bears them, and to train it with them."""
