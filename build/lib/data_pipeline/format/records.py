"""TFRecord files with random access: records are found by their offset in the file.

A record is framed as: length (uint64), masked CRC32C of the length, payload, masked
CRC32C of the payload (https://www.tensorflow.org/tutorials/load_data/tfrecord).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import google_crc32c

from data_pipeline.format.schema import DataError

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
  framed = _read(path, offset, HEADER_BYTES + size + FOOTER_BYTES)
  length, payload = framed[:8], framed[HEADER_BYTES : HEADER_BYTES + size]
  intact = (
    len(framed) == HEADER_BYTES + size + FOOTER_BYTES
    and length == struct.pack('<Q', size)
    and framed[8:HEADER_BYTES] == _masked_crc(length)
    and framed[-FOOTER_BYTES:] == _masked_crc(payload)
  )
  if not intact:
    raise _corrupt(path, offset, record)
  return payload


def read_head(path: Path, offset: int, size: int, crc: int, record: int) -> bytes:
  """Reads and checks the first `size` bytes of a record's payload.

  Args:
    path: a TFRecord file.
    offset: where the record's frame starts, in bytes.
    size: bytes to read.
    crc: their `checksum`, from the index: the record's own covers all of it.
    record: the data set's row, for the error message.

  Raises:
    DataError: as `read_record`.
  """
  head = _read(path, offset + HEADER_BYTES, size)
  if len(head) != size or checksum(head) != crc:
    raise _corrupt(path, offset, record)
  return head


def checksum(payload: bytes) -> int:
  """CRC32C, not masked."""
  return google_crc32c.value(payload)


def _read(path: Path, offset: int, size: int) -> bytes:
  try:
    descriptor = os.open(path, os.O_RDONLY)
  except FileNotFoundError as error:
    raise DataError(
      f'{path}: the shard is missing. Copy the data set again or prepare it again.'
    ) from error
  try:
    return os.pread(descriptor, size, offset)
  finally:
    os.close(descriptor)


def _corrupt(path: Path, offset: int, record: int) -> DataError:
  return DataError(
    f'{path}: record of row {record} at byte {offset} is corrupt (wrong length or '
    'checksum). Delete the data set and prepare it again.'
  )


def _masked_crc(payload: bytes) -> bytes:
  crc = checksum(payload)
  return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
