"""Salvage the records of a damaged TFRecord shard whose checksums are correct."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from shardkit.errors import DamagedError
from shardkit.formats.protocol import Gap, Salvaged, SalvagedSample, ShardData
from shardkit.formats.tfrecord.example import parse_example
from shardkit.formats.tfrecord.features import KEY, OTHER_KEY
from shardkit.formats.tfrecord.samples import (
    FRAME,
    HEAD,
    check_data,
    masked_crc,
    one_text,
    path_of,
    record_size,
    sample_of,
)
from shardkit.sample import IMAGE_FIELDS, NO_LABEL, label_of

KEY_FEATURES = (KEY, OTHER_KEY)
CHUNK = 1 << 20
LENGTH_BYTES = 5
"""A record has less than a TiB: the upper bytes of its length are zeros, which are rare in images."""


class Record(msgspec.Struct, frozen=True):
    """A record whose checksums are correct. key_feature: the feature with its key, "" if it has none.

    image: its image's field and place, "" for none. fields: all names. text: of its class, "" if it has none.
    """

    key: str
    key_feature: str
    path: str
    label: int
    text: str
    offset: int
    size: int
    image: str
    image_offset: int
    image_size: int
    fields: tuple[str, ...]


def salvage(data: ShardData) -> Salvaged:
    """All records with correct checksums. After damage it continues at the next one. Never raises DamagedError."""
    found = Salvaged()
    for item in _walk(data):
        if isinstance(item, Gap):
            found.gaps.append(item)
            found.damage.append(item.error)
            continue
        image = {item.image: (item.image_offset, item.image_size)} if item.image else {}
        found.samples.append(SalvagedSample(item.key, item.offset, image, record=item))
    return found


def _walk(data: ShardData) -> Iterator[Record | Gap]:
    limit, at = len(data), 0
    while at < limit:
        end = None
        try:
            size = record_size(_bytes(data, at, HEAD), at, limit, data.place)
            end = at + FRAME + size
            payload = _bytes(data, at + HEAD, size)
            check_data(payload, _bytes(data, end - 4, 4), at, data.place)
            yield record_of(payload, at, place=data.place)
        except DamagedError as exc:
            trusted = end is not None and (end == limit or _is_head(data, end, limit))
            following = end if trusted else next_head(data, at + 1, limit)
            stop = limit if following is None else following
            yield _gap(data, at, stop, exc)
            at = stop
        else:
            at = end


def record_of(payload: bytes, at: int, *, place: str) -> Record:
    """The record at byte `at`, whose data is `payload`. DamagedError for data that is not an Example."""
    sample = sample_of(payload, at, place)
    features = parse_example(payload)
    key_feature = next((name for name in KEY_FEATURES if one_text(payload, features, name)), "")
    image = next((name for name in sample.fields if name in IMAGE_FIELDS), "")
    start, size = sample.fields.get(image, (-1, -1))
    label = NO_LABEL
    if "cls" in sample.values:
        label = label_of(sample.values["cls"])
    elif "cls" in sample.fields:
        begin, length = sample.fields["cls"]
        label = label_of(payload[begin - at - HEAD :][:length])
    return Record(
        sample.key, key_feature, path_of(sample, image), label, sample.text, at, sample.size, image, start, size,
        tuple(sample.names),
    )  # fmt: skip


def _gap(data: ShardData, start: int, end: int, error: DamagedError) -> Gap:
    """A gap, with the name of its first record if that can still be read."""
    try:
        record = record_of(_bytes(data, start + HEAD, end - start - FRAME), start, place=data.place)
    except DamagedError:
        return Gap(start, end, "", "", error)
    return Gap(start, end, record.key, record.path, error)


def _bytes(data: ShardData, at: int, size: int) -> bytes:
    return bytes(data.buffer[at : at + max(0, size)])


def _is_head(data: ShardData, at: int, limit: int) -> bool:
    head = _bytes(data, at, HEAD)
    return (
        len(head) == HEAD
        and head[8:] == masked_crc(head[:8])
        and at + FRAME + int.from_bytes(head[:8], "little") <= limit
    )


def next_head(data: ShardData, at: int, limit: int) -> int | None:
    """The first byte from `at` on where a record may begin: a length that fits the file, with a correct CRC."""
    while at + FRAME <= limit:
        count = min(CHUNK, limit - FRAME + 1 - at)
        window = data.view[at : at + count + HEAD]
        high = window[LENGTH_BYTES : LENGTH_BYTES + count].copy()
        for place in range(LENGTH_BYTES + 1, 8):
            high |= window[place : place + count]
        starts = np.flatnonzero(high == 0)
        lengths, crcs = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int64)
        for place in range(LENGTH_BYTES):
            lengths |= window[starts + place].astype(np.int64) << 8 * place
        for place in range(8, HEAD):
            crcs |= window[starts + place]
        fitting = (lengths <= limit - FRAME - (at + starts)) & ((lengths > 0) | (crcs > 0))  # zeros are not a head
        for start in starts[fitting].tolist():
            if _is_head(data, at + start, limit):
                return at + int(start)
        at += count
    return None
