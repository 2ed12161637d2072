"""Records: TensorFlow's own format; no flipped bit and no missing byte goes unseen."""

from __future__ import annotations

import pytest
import tensorflow as tf

from data_pipeline.format import records
from data_pipeline.format.schema import DataError

PAYLOADS = (b'', b'heads and tails', bytes(range(256)))


@pytest.fixture
def path(tmp_path):
  path = tmp_path / 'shard'
  path.write_bytes(b''.join(map(records.frame, PAYLOADS)))
  return path


def _offsets():
  offset = 0
  for payload in PAYLOADS:
    yield offset
    offset += len(records.frame(payload))


def test_frames_are_tensorflows(path, tmp_path):
  with tf.io.TFRecordWriter(str(tmp_path / 'theirs')) as writer:
    for payload in PAYLOADS:
      writer.write(payload)
  assert path.read_bytes() == (tmp_path / 'theirs').read_bytes()


def test_records_and_their_heads_are_found_by_offset(path):
  for row, (payload, offset) in enumerate(zip(PAYLOADS, _offsets(), strict=True)):
    assert records.read_record(path, offset, len(payload), row) == payload
    head = payload[:7]
    crc = records.checksum(head)
    assert records.read_head(path, offset, len(head), crc, row) == head


def test_every_flipped_bit_is_seen(path):
  whole, offset, payload = path.read_bytes(), list(_offsets())[1], PAYLOADS[1]
  head = payload[:5]
  framed = len(records.frame(payload))
  for at in range(framed):
    content = bytearray(whole)
    content[offset + at] ^= 1 << at % 8
    path.write_bytes(content)
    with pytest.raises(DataError, match=f'record of row 1 at byte {offset} is corrupt'):
      records.read_record(path, offset, len(payload), 1)
    read = lambda: records.read_head(path, offset, 5, records.checksum(head), 1)
    if records.HEADER_BYTES <= at < records.HEADER_BYTES + len(head):
      with pytest.raises(DataError, match=r'record of row 1 .* prepare it again'):
        read()
    else:
      assert read() == head


def test_a_file_that_ends_early_is_seen(path):
  whole, offset, payload = path.read_bytes(), list(_offsets())[2], PAYLOADS[2]
  for missing in (1, 4, 100, len(payload) + 10):
    path.write_bytes(whole[:-missing])
    with pytest.raises(DataError, match=r'row 2 .* corrupt'):
      records.read_record(path, offset, len(payload), 2)
  with pytest.raises(DataError, match=r'row 2 .* corrupt'):
    records.read_head(path, offset, 9, records.checksum(payload[:9]), 2)
