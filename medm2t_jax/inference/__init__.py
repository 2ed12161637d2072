"""Predicts with a trained model: bundles, blends, explanations, exports."""
