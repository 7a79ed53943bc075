"""TFRecord shards as bytes: what is written, to the byte, and that others read it."""

from __future__ import annotations

import struct
from typing import Any

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.formats.tfrecord import samples
from shardkit.formats.tfrecord.example import varint
from shardkit.formats.tfrecord.samples import encode_sample, fields_of, read_samples, sample_size

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.one_of(
    st.sampled_from(["jpg", "png", "cls", "json", "seg.png", "txt"]), TEXT.filter(lambda s: s and s[:2] != "__")
)
FIELDS = st.dictionaries(NAMES, st.binary(max_size=300), min_size=1, max_size=5)


def record(key: str, fields: list[tuple[str, bytes]], **options: Any) -> bytes:
    pieces, _, size = encode_sample(key, fields, **options)
    data = b"".join(pieces)
    assert len(data) == size
    return data


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def test_a_small_record_is_these_bytes() -> None:
    def entry(name: bytes, items: bytes, kind: bytes = b"\x0a") -> bytes:
        feature = kind + bytes([len(items)]) + items
        inside = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(feature)]) + feature
        return b"\x0a" + bytes([len(inside)]) + inside

    features = (
        entry(b"image/key", b"\x0a\x05cat/1")
        + entry(b"image/filename", b"\x0a\x09cat/1.jpg")
        + entry(b"image/encoded", b"\x0a\x03\xff\xd8\xff")
        + entry(b"image/format", b"\x0a\x04jpeg")
        + entry(b"image/class/label", b"\x0a\x01\x07", b"\x1a")
        + entry(b"image/class/text", b"\x0a\x03cat")
        + entry(b"field/txt", b"\x0a\x02hi")
    )
    data = b"\x0a" + varint(len(features)) + features
    length = struct.pack("<Q", len(data))
    expected = length + masked(length) + data + masked(data)
    fields = [("jpg", b"\xff\xd8\xff"), ("cls", b"7"), ("txt", b"hi")]
    assert record("cat/1", fields, path="cat/1.jpg", text="cat") == expected


def test_the_offsets_are_those_of_the_bytes_and_none_for_a_label() -> None:
    fields = [("txt", b"before"), ("jpg", b"\xff\xd8image"), ("cls", b"300"), ("json", b"{}")]
    pieces, offsets, _ = encode_sample("k", fields)
    data = b"".join(pieces)
    assert offsets[2] == -1
    for place, (_, value) in enumerate(fields):
        if place != 2:
            assert data[offsets[place] : offsets[place] + len(value)] == value


def test_the_image_is_handed_on_without_a_copy() -> None:
    image = b"\xff\xd8" + bytes(1000)
    pieces, _, _ = encode_sample("k", [("jpg", image), ("cls", b"1")])
    assert any(piece is image for piece in pieces)


@given(TEXT.filter(bool), FIELDS, TEXT, TEXT)
def test_what_is_written_is_read_in_the_same_order(key: str, fields: dict[str, bytes], path: str, text: str) -> None:
    data = record(key, list(fields.items()), path=path, text=text)
    [sample] = read_samples(data, place="x")
    assert (sample.key, sample.offset, sample.size) == (key, 0, len(data))
    assert sample.path == path
    found = {name: b"%d" % value if isinstance(value, int) else value for name, value in fields_of(sample).items()}
    assert list(found.items()) == list(fields.items())
    for name, (offset, size) in sample.fields.items():
        assert data[offset : offset + size] == fields[name]


@given(TEXT.filter(bool), FIELDS, TEXT, TEXT, st.integers(0, 1 << 40))
def test_the_size_is_known_before_the_bytes(
    key: str, fields: dict[str, bytes], path: str, text: str, label: int
) -> None:
    fields["cls"] = b"%d" % label
    size = len(record(key, list(fields.items()), path=path, text=text))
    lengths = [(name, len(data)) for name, data in fields.items()]
    assert sample_size(key, lengths, path=path, text=text, label=label) == size


@pytest.mark.parametrize("size", [0, 127, 128, 16383, 16384, 1 << 21])
def test_the_size_is_known_for_lengths_around_those_of_varints(size: int) -> None:
    for image in range(max(0, size - 130), size + 2, 13):
        data = record("k", [("jpg", bytes(image)), ("cls", b"5")])
        assert sample_size("k", [("jpg", image), ("cls", 1)], label=5) == len(data)


@given(st.integers(0, (1 << 64) - 1))
def test_a_varint_has_its_size(number: int) -> None:
    assert len(varint(number)) == max(1, (number.bit_length() + 6) // 7)


@pytest.mark.parametrize("label", [b"007", b"cat", b" 1", b"1\n", b"", b"--1", b"9" * 19, b"9" * 40, b"-0"])
def test_a_label_that_is_no_plain_number_stays_bytes(label: bytes) -> None:
    [sample] = read_samples(record("k", [("cls", label)]), place="x")
    assert fields_of(sample) == {"cls": label}


@pytest.mark.parametrize("label", [0, 127, 128, 999, (1 << 63) - 1, -1, -(1 << 63)])
def test_a_label_is_an_int(label: int) -> None:
    [sample] = read_samples(record("k", [("cls", b"%d" % label)]), place="x")
    assert fields_of(sample) == {"cls": label}


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("", [("jpg", b"x")]),
        ("k", []),
        ("k", [("jpg", b"x"), ("jpg", b"y")]),
        ("k", [("", b"x")]),
        ("k", [("__x__", b"x")]),
        ("\ud800", [("jpg", b"x")]),
    ],
)
def test_what_a_reader_would_not_give_back_is_refused(key: str, fields: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_sample(key, fields)


def test_an_empty_shard_has_no_bytes() -> None:
    assert samples.END == b""
    assert list(read_samples(b"", place="x")) == []


def test_tensorflow_reads_what_is_written(tmp_path: Any) -> None:
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "x.tfrecord"
    image = bytes(range(256)) * 100
    path.write_bytes(
        record("a/1", [("png", image), ("cls", b"300"), ("json", b"{}")], path="a/1.png", text="ä")
        + record("a/2", [("png", b""), ("cls", b"-1"), ("json", b"[]")], path="a/2.png", text="b")
    )
    first, second = (tf.train.Example.FromString(data.numpy()) for data in tf.data.TFRecordDataset(str(path)))
    features = first.features.feature
    assert features["image/encoded"].bytes_list.value == [image]
    assert features["image/format"].bytes_list.value == [b"png"]
    assert features["image/class/label"].int64_list.value == [300]
    assert features["image/class/text"].bytes_list.value == ["ä".encode()]
    assert features["image/filename"].bytes_list.value == [b"a/1.png"]
    assert features["image/key"].bytes_list.value == [b"a/1"]
    assert features["field/json"].bytes_list.value == [b"{}"]
    assert second.features.feature["image/class/label"].int64_list.value == [-1]
    assert len(features) == 7
