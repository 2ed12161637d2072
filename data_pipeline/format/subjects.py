"""Keyed hashes of subjects: record whom a model has seen, without identifiers.

The key is a secret of the institution, in a file that its data sets share, so that a
subject has the same hash in all of them. Without the key, nobody can recover identifiers by
hashing all candidates.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from data_pipeline.format.schema import DataError

KEY_FILE = 'subject_key'
_KEY_BYTES = 16


def institution_key(path: Path) -> str:
  """The key in a file, as hex text; if the file does not exist, a random key is written.

  Raises:
    DataError: the file does not hold a key, or cannot be created.
  """
  if not path.exists():
    _make(path)
  key = path.read_text().strip()
  try:
    size = len(bytes.fromhex(key))
  except ValueError:
    size = 0
  if size != _KEY_BYTES:
    raise DataError(
      f'--subject_key={path}: not a key of subject hashes, which has {2 * _KEY_BYTES} hex '
      'digits. Give another file; if it does not exist, it is created.'
    )
  return key


def _make(path: Path) -> None:
  """Writes a random key, unless another process has just written one."""
  partial = path.with_name(f'{path.name}.{secrets.token_hex(4)}.partial')
  try:
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, 'w') as file:
      file.write(secrets.token_hex(_KEY_BYTES) + '\n')
    try:
      os.link(partial, path)
    except FileExistsError:
      return
    finally:
      partial.unlink()
  except OSError as error:
    raise DataError(
      f'--subject_key={path}: cannot be created ({error.strerror}).'
    ) from error


def fingerprint(key: str) -> str:
  """Fingerprint of a key: hashes can be compared if their fingerprints are equal."""
  return hashlib.sha256(f'subject key {key}'.encode()).hexdigest()[:16]


def order_key(source: str) -> str:
  """The key of the hashes that order the subjects of a source; not a secret."""
  return hashlib.blake2b(f'subjects of {source}'.encode(), digest_size=16).hexdigest()


def hash_subject(subject_id: int, key: str) -> str:
  """Keyed hash of a subject: 16 hex digits."""
  digest = hashlib.blake2b(
    int(subject_id).to_bytes(8, 'little', signed=True),
    key=bytes.fromhex(key),
    digest_size=8,
  )
  return digest.hexdigest()
