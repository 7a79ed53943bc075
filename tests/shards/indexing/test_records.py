"""TFRecords in a store are indexed by their lengths and the heads of their Examples."""

from __future__ import annotations

import random
from typing import Any

import pytest
from shards.indexing.in_store import indexed, put

from shardkit.formats.tfrecord.example import varint
from shardkit.formats.tfrecord.features import ENCODED, FILENAME, FORMAT, KEY, LABEL, OTHER_KEY, TEXT
from shardkit.formats.tfrecord.samples import masked_crc
from shardkit.formats.tfrecord.skim import LONG_BYTES
from shardkit.sample import MAX_KEY_BYTES


def field(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + varint(len(data)) + data


def entry(name: str, kind: str, values: list[Any]) -> bytes:
    """An entry of the map of features, as protobuf writes it."""
    items = {
        "bytes": lambda: field(0x0A, b"".join(field(0x0A, value) for value in values)),
        "floats": lambda: field(0x12, field(0x0A, b"\0\0\x80?" * len(values))),
        "unpacked": lambda: field(0x12, b"\x0d\0\0\x80?" * len(values)),
        "int64": lambda: field(0x1A, field(0x0A, b"".join(map(varint, values)))),
    }[kind]()
    return field(0x0A, field(0x0A, name.encode()) + field(0x12, items))


def shard_of(examples: list[list[bytes]]) -> bytes:
    parts = []
    for entries in examples:
        data = field(0x0A, b"".join(entries))
        head = len(data).to_bytes(8, "little")
        parts.append(head + masked_crc(head) + data + masked_crc(data))
    return b"".join(parts)


def example(number: int, image: bytes, *, key: str = KEY) -> list[bytes]:
    return [
        entry(key, "bytes", [b"sample/%d" % number]),
        entry(ENCODED, "bytes", [image + bytes(100_000)]),
        entry(LABEL, "int64", [number % 3]),
        entry(TEXT, "bytes", [b"class %d" % (number % 3)]),
        entry(FILENAME, "bytes", [b"sample/%d.jpg" % number]),
        entry(FORMAT, "bytes", [b"jpeg"]),
        entry("field/json", "bytes", [b"{}" * 3000]),
        entry("box", "floats", [1.0] * 1000),
        entry("boxes", "unpacked", [1.0] * 1000),
        entry("texts", "bytes", [b"a" * LONG_BYTES, b"", b"b" * 5000]),
        entry("empty", "bytes", []),
    ]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("key", [KEY, OTHER_KEY, "none"])
def test_lengths_give_the_rows_that_the_whole_shard_gives(seed: int, key: str, draw_image: Any) -> None:
    rng, examples = random.Random(seed), []
    for number in range(6):
        entries = example(number, draw_image(number), key=key)
        rng.shuffle(entries)  # a map has no order
        examples.append(entries)
    place = put(shard_of(examples), "x-000000.tfrecord")
    found = indexed(place, whole=False)
    assert found == indexed(place, whole=True) and len(found) > 3 and found[0][1] == 6


def test_little_is_read_of_records_with_large_images(ranges: list[tuple[int, int]], draw_image: Any) -> None:
    names = {KEY, ENCODED, LABEL, TEXT, FILENAME, FORMAT}
    examples = [
        [part for part, name in zip(example(n, draw_image(n)), sorted(names, key=str), strict=False)]
        for n in range(100)
    ]
    data = shard_of(examples)
    indexed(put(data, "x-000000.tfrecord"), whole=False)
    assert sum(end - start for start, end in ranges) <= 0.02 * len(data)
    assert len(ranges) <= 100 + 16


@pytest.mark.parametrize("name", [KEY, FILENAME, TEXT])
def test_names_are_read_however_long(name: str, draw_image: Any) -> None:
    entries = [part for part in example(0, draw_image()) if f"{name}".encode() not in part]
    long = entry(name, "bytes", [b"n" * (MAX_KEY_BYTES - 4) + b".jpg"])
    place = put(shard_of([[*entries, long]]), "x-000000.tfrecord")
    assert indexed(place, whole=False) == indexed(place, whole=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\x05",
        field(0x12, b"x" * 5000),
        field(0x0A, field(0x0A, b"\xff" * 5000)),
        field(0x0A, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + bytes(3000)),
        field(0x0A, entry("a", "bytes", [b"1"])) * 2,
        bytes(2000),
    ],
    ids=["empty", "cut", "a sequence", "no map", "a length", "twice", "zeros"],
)
def test_records_that_are_something_else_are_the_same_error(data: bytes) -> None:
    head = len(data).to_bytes(8, "little")
    place = put(head + masked_crc(head) + data + masked_crc(data), "x-000000.tfrecord")
    assert indexed(place, whole=False) == indexed(place, whole=True)


@pytest.mark.parametrize("cut", [1, 4, 100, 90_000])
def test_a_cut_shard_is_the_same_error(cut: int, draw_image: Any) -> None:
    data = shard_of([example(n, draw_image()) for n in range(2)])
    place = put(data[:-cut], "x-000000.tfrecord")
    found = indexed(place, whole=False)
    assert len(found) == 3 and found == indexed(place, whole=True)
