"""MedM2T in JAX/Flax: time-aware multimodal prediction from EHR events and ECGs."""

__version__ = '0.1.0'
