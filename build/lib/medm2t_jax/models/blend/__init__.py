"""What predicts beside the network, and how the two are blended."""
