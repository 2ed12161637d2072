"""TFRecord files with random access: records are found by their offset in the file.

A record is framed as: length (uint64), masked CRC32C of the length, payload, masked
CRC32C of the payload (https://www.tensorflow.org/tutorials/load_data/tfrecord).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import google_crc32c

from data_pipeline.schema import DataError

HEADER_BYTES = 12
FOOTER_BYTES = 4


def frame(payload: bytes) -> bytes:
  """`payload` as one TFRecord."""
  length = struct.pack('<Q', len(payload))
  return b''.join((length, _masked_crc(length), payload, _masked_crc(payload)))


def read_record(path: Path, offset: int, size: int, record: int) -> bytes:
  """Reads and checks one record.

  Args:
    path: a TFRecord file.
    offset: where the record's frame starts, in bytes.
    size: bytes of the payload.
    record: the data set's row, for the error message.

  Returns:
    The payload.

  Raises:
    DataError: the file is absent, too short or corrupt.
  """
  try:
    descriptor = os.open(path, os.O_RDONLY)
  except FileNotFoundError as error:
    raise DataError(
      f'{path}: the shard is missing. Copy the data set again or prepare it again.'
    ) from error
  try:
    framed = os.pread(descriptor, HEADER_BYTES + size + FOOTER_BYTES, offset)
  finally:
    os.close(descriptor)
  length, payload = framed[:8], framed[HEADER_BYTES : HEADER_BYTES + size]
  intact = (
    len(framed) == HEADER_BYTES + size + FOOTER_BYTES
    and length == struct.pack('<Q', size)
    and framed[8:HEADER_BYTES] == _masked_crc(length)
    and framed[-FOOTER_BYTES:] == _masked_crc(payload)
  )
  if not intact:
    raise DataError(
      f'{path}: record of row {record} at byte {offset} is corrupt (wrong length or '
      'checksum). Delete the data set and prepare it again.'
    )
  return payload


def _masked_crc(payload: bytes) -> bytes:
  crc = google_crc32c.value(payload)
  return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
