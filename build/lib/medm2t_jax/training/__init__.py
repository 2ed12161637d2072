"""Training: stages, steps, losses, optimizer, the choice of an epoch."""
