"""Simple models beside the network, and how they are blended."""
