"""Keyed hashes of subjects: whom a model has seen, without their identifiers."""

from __future__ import annotations

import hashlib


def fold_key(source: str) -> str:
  """Key of the subject hashes: hex text, the same for all tasks of a source.

  Hashes of two data sets of one source must be comparable, because that is how an
  encoder that has seen a test subject in another task is recognised.
  """
  return hashlib.blake2b(f'subjects of {source}'.encode(), digest_size=16).hexdigest()


def hash_subject(subject_id: int, key: str) -> str:
  """Keyed hash of a subject: 16 hex digits."""
  digest = hashlib.blake2b(
    int(subject_id).to_bytes(8, 'little', signed=True),
    key=bytes.fromhex(key),
    digest_size=8,
  )
  return digest.hexdigest()
