"""What a prediction depends on: attributions of the whole model that predicts."""
