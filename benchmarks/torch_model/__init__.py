"""MedM2T in plain PyTorch, for comparison (`benchmarks/models.py`).

The default model of the configs, eager: `torch.nn` layers, sums and extremes of events by
`index_add_` and `scatter_reduce_`, batched products for the members of the ensemble, a
loop over pairs of modalities, a placeholder recording for rows without one.
Sizes come from our `ModelConfig`, statistics from our `fitted` collection; `weights`
copies its weights into our parameters.
"""
