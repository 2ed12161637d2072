"""The model: every block of MedM2T in Flax Linen.

Dimension letters: b rows of a batch, n events, w time windows, e width, s samples
of a signal, l leads, m recordings, k modalities, h heads, c classes, g grid steps,
v signals of a grid, t tokens, u units of prediction, q queries, f features that come out,
i value ids, j items of events, p pairs of modalities.
"""
