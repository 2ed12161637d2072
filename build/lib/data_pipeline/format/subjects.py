"""Keyed hashes of subjects: whom a model has seen, without their identifiers.

The key is a secret of the institution, in one file that its data sets share, so that a
subject has the same hash in all of them. Without the key, hashes cannot be turned back
into identifiers by trying them all.
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
  """The key in a file, hex text; the file is made with a random key where it is absent.

  Raises:
    DataError: the file does not hold a key, or cannot be made.
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
      f'--subject_key={path}: not a key of subject hashes, which is {2 * _KEY_BYTES} hex '
      'digits. Name another file; one that does not exist is made.'
    )
  return key


def _make(path: Path) -> None:
  """Writes a random key; where another process has just done so, that one stays."""
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
    raise DataError(f'--subject_key={path}: cannot be made ({error.strerror}).') from error


def fingerprint(key: str) -> str:
  """Of a key of subject hashes: equal ones mean that hashes can be compared."""
  return hashlib.sha256(f'subject key {key}'.encode()).hexdigest()[:16]


def order_key(source: str) -> str:
  """Key of the hashes that order the subjects of a source; no secret."""
  return hashlib.blake2b(f'subjects of {source}'.encode(), digest_size=16).hexdigest()


def hash_subject(subject_id: int, key: str) -> str:
  """Keyed hash of a subject: 16 hex digits."""
  digest = hashlib.blake2b(
    int(subject_id).to_bytes(8, 'little', signed=True),
    key=bytes.fromhex(key),
    digest_size=8,
  )
  return digest.hexdigest()
