"""MedM2T as one would write it in PyTorch, for comparison (`benchmarks/models.py`).

The same model as the configs have by default, eager: `torch.nn` layers, sums and extremes
of events by `index_add_` and `scatter_reduce_`, batched products for the members of the
ensemble, a loop over pairs of modalities, a placeholder recording for rows without any.
Sizes come from our `ModelConfig`, statistics from our `fitted` collection; `weights`
copies its weights into our parameters.
"""
