"""What is fitted of each modality before training."""
