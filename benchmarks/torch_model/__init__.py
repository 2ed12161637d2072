"""MedM2T as one would write it in PyTorch, for comparison (`benchmarks/models.py`).

The same corrected model as `medm2t_jax.models`, plainly: `torch.nn` layers, a loop over
pairs of modalities, every window's tokens embedded anew, a placeholder recording for
rows without any. Sizes come from our `ModelConfig`, statistics from our `fitted`
collection; `weights` copies its weights into our parameters.
"""
