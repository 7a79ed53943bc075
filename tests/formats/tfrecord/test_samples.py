"""TFRecord shards of others: any schema, any way that protobuf allows to write it."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.errors import DamagedError
from shardkit.formats.format import format_of_head, format_of_name
from shardkit.formats.tfrecord import example as example_module
from shardkit.formats.tfrecord.example import Feature, WireError, parse_example, varint
from shardkit.formats.tfrecord.samples import FieldNames, encode_sample, masked_crc, read_samples
from shardkit.formats.tfrecord.stream import is_packed, stream_samples

JPEG = b"\xff\xd8\xff\xe0 image"


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked_crc(length) + data + masked_crc(data)


def part(tag: int, data: bytes) -> bytes:
    return bytes([tag]) + varint(len(data)) + data


def example(**features: bytes) -> bytes:
    """An Example with a Feature message for each name."""
    entries = (part(0x0A, part(0x0A, name.encode()) + part(0x12, data)) for name, data in features.items())
    return part(0x0A, b"".join(entries))


def of_bytes(*values: bytes) -> bytes:
    return part(0x0A, b"".join(part(0x0A, value) for value in values))


def of_ints(*values: int) -> bytes:
    return part(0x1A, part(0x0A, b"".join(varint(value % (1 << 64)) for value in values)))


def of_floats(*values: float) -> bytes:
    return part(0x12, part(0x0A, struct.pack(f"<{len(values)}f", *values)))


def one(data: bytes, place: str = "old/train.tfrecord", **names: str) -> tuple[str, dict[str, Any]]:
    [(key, fields)] = stream_samples(io.BytesIO(framed(data)), place=place, names=FieldNames(**names))
    return key, fields


def test_features_are_fields_by_their_names() -> None:
    data = example(
        **{"image/encoded": of_bytes(JPEG), "image/class/label": of_ints(3), "image/height": of_ints(480),
           "image/format": of_bytes(b"JPEG"), "score": of_floats(0.5), "boxes": of_floats(1, 2, 3),
           "ids": of_ints(1, -2), "words": of_bytes(b"a", b"b"), "none": b""}
    )  # fmt: skip
    _, fields = one(data)
    assert fields.pop("boxes").tolist() == [1.0, 2.0, 3.0]
    ids = fields.pop("ids")
    assert (ids.dtype, ids.tolist()) == (np.int64, [1, -2])
    assert fields == {
        "jpg": JPEG, "cls": 3, "image/height": 480, "image/format": b"JPEG", "score": 0.5, "words": [b"a", b"b"],
    }  # fmt: skip


def test_the_image_is_known_by_its_first_bytes_where_no_format_is_given() -> None:
    for image, name in ((JPEG, "jpg"), (b"\x89PNG\r\n\x1a\n...", "png"), (b"BM...", "bmp")):
        assert one(example(**{"image/encoded": of_bytes(image)}))[1] == {name: image}
    assert one(example(**{"image/encoded": of_bytes(b"?")}))[1] == {"image/encoded": b"?"}


def test_image_and_label_can_have_other_names() -> None:
    data = example(img=of_bytes(JPEG), y=of_ints(4), label=of_bytes(b"cat"))
    assert one(data, image="img", label="y")[1] == {"jpg": JPEG, "cls": 4, "label": b"cat"}


def test_a_record_without_the_feature_that_was_named_is_an_error_that_lists_its_features() -> None:
    with pytest.raises(
        DamagedError, match=r"at byte 0: the record has no feature 'img', .* it has a, b; .*image_field="
    ):
        one(example(a=of_ints(1), b=of_ints(2)), image="img")


def test_an_example_without_image_or_label_has_neither() -> None:
    assert one(example(text=of_bytes(b"hello")))[1] == {"text": b"hello"}
    assert one(b"") == ("train_tfrecord-0", {})


@pytest.mark.parametrize("other", [of_ints(1), of_floats(1), of_bytes(b"a", b"b"), b""])
def test_a_key_or_name_that_is_not_one_text_counts_as_absent(other: bytes) -> None:
    names = ("image/key", "image/filename", "image/format", "image/class/text")
    key, fields = one(example(**{"image/encoded": of_bytes(JPEG)}, **dict.fromkeys(names, other)))
    assert (key, fields["jpg"]) == ("train_tfrecord-0", JPEG)


def test_records_without_a_key_are_named_by_their_place() -> None:
    data = framed(example(a=of_ints(1))) * 2
    keys = [key for key, _ in stream_samples(io.BytesIO(data), place="s3://b/x.tfrecord-00000-of-00002")]
    assert keys == ["x_tfrecord-00000-of-00002-0", f"x_tfrecord-00000-of-00002-{len(data) // 2}"]
    assert [sample.key for sample in read_samples(data, place="x_tfrecord-00000-of-00002")] == keys


def test_records_may_each_have_another_schema() -> None:
    data = framed(example(a=of_ints(1))) + framed(example(a=of_bytes(b"1"), b=of_floats(2)))
    assert [fields for _, fields in stream_samples(io.BytesIO(data), place="x")] == [{"a": 1}, {"a": b"1", "b": 2.0}]


def test_names_of_python_are_no_fields() -> None:
    key, fields = one(example(__key__=of_bytes(b"mine"), __url__=of_bytes(b"evil"), a=of_ints(1)))
    assert (key, fields) == ("mine", {"a": 1})


def test_unpacked_lists_and_unknown_fields_are_read_as_protobuf_reads_them() -> None:
    numbers = part(0x1A, b"\x08" + varint(5) + b"\x08" + varint((1 << 64) - 1))
    floats = part(0x12, b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", -2))
    unknown = b"\x20\x07" + b"\x2d1234" + b"\x3112345678" + part(0x3A, b"skip")
    data = unknown + example(n=unknown + numbers, f=floats + unknown) + unknown
    found = parse_example(data)
    assert (found["n"], list(found["f"].values)) == (Feature("int64", [5, -1]), [1.5, -2.0])


def test_float_lists_in_several_runs_keep_all_their_values() -> None:
    """Packed runs and single numbers, in any order; protobuf joins them."""

    def run(*values: float) -> bytes:
        return part(0x0A, struct.pack(f"<{len(values)}f", *values))

    single = b"\x0d" + struct.pack("<f", 9)
    for inside, values in (
        (run(1, 2) + run(3), [1, 2, 3]),
        (run(1) + run(2) + run(3, 4), [1, 2, 3, 4]),
        (single + run(1, 2), [9, 1, 2]),
        (run(1, 2) + single, [1, 2, 9]),
        (run() + run(5), [5]),
        (run(5) + run(), [5]),
        (run(5) + b"\x20\x07", [5]),
    ):
        data = example(f=part(0x12, inside))
        for _ in range(2):  # the second time the name is known
            assert list(parse_example(data)["f"].values) == values
        found = one(data)[1]["f"]
        assert np.asarray(found).tolist() == (values if len(values) > 1 else values[0])


def test_the_last_of_a_name_and_of_a_kind_counts_and_lists_of_one_kind_are_joined() -> None:
    data = example(a=of_ints(1)) + example(a=of_ints(2), b=of_ints(1) + of_ints(2), c=of_ints(1) + of_floats(2))
    found = parse_example(data)
    assert (found["a"].values, found["b"].values, list(found["c"].values)) == ([2], [1, 2], [2.0])
    for _ in range(2):  # the second time the names are known
        assert list(parse_example(example(a=of_ints(1), b=of_ints(1)) + example(a=of_ints(2)))) == ["b", "a"]


def test_an_example_of_no_bytes_has_no_features() -> None:
    assert parse_example(b"") == parse_example(example()) == {}


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"\x0a\x05abc", "a field of 5 bytes where 3 are left"),
        (b"\x0a", "a number is truncated"),
        (b"\x0a" + b"\xff" * 11, "a number of more than 10 bytes"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "a field of 9223372036854775807 bytes"),
        (b"\x0b", "a field of the unknown type 3"),
        (b"\x00", "a field with the number 0"),
        (part(0x0A, part(0x0A, part(0x0A, b"\xff"))), "the name of a feature is not UTF-8"),
        (example(a=part(0x12, part(0x0A, b"123"))), "3 bytes of floats where 3 are left"),
        (example(a=part(0x12, b"\x0d12")), "a float is truncated"),
        (example(a=part(0x1A, part(0x0A, b"\x80"))), "a number is truncated"),
        (example(a=b"\x0a\x05\x0a\x01x"), "a list of 5 bytes where 3 are left"),
    ],
)
def test_what_is_no_example_is_told_with_its_byte(data: bytes, fact: str) -> None:
    with pytest.raises(WireError, match=fact):
        parse_example(data)
    with pytest.raises(DamagedError, match=rf"x: at byte \d+: the record is not a tf.train.Example: {fact}"):
        list(read_samples(framed(data), place="x"))


@given(st.binary(max_size=60))
def test_any_bytes_are_an_example_or_an_error(data: bytes) -> None:
    try:
        list(read_samples(framed(data), place="x"))
    except DamagedError:
        return


def test_a_wrong_checksum_is_told_with_its_byte() -> None:
    good = b"".join(encode_sample("k", [("jpg", JPEG), ("cls", b"1")])[0])
    for at, place, fact in ((3, 0, "of a record's length"), (9, 0, "length"), (40, 12, r"of a record's \d+ bytes"),
                            (len(good) - 1, 12, "bytes of data is wrong")):  # fmt: skip
        bad = bytearray(good * 2)
        bad[len(good) + at] ^= 1
        for read in (read_samples, lambda data, place: stream_samples(io.BytesIO(data), place=place)):
            with pytest.raises(DamagedError, match=f"x: at byte {len(good) + place}: the checksum .*{fact}"):
                list(read(bytes(bad), place="x"))


@pytest.mark.parametrize("cut", [1, 11, 12, 13, 60, -4, -1])
def test_a_cut_record_is_told_with_its_byte(cut: int) -> None:
    good = b"".join(encode_sample("k", [("jpg", JPEG), ("cls", b"1")])[0])
    bad = good + good[:cut]
    for samples in (read_samples(bad, place="x"), stream_samples(io.BytesIO(bad), place="x")):
        next(samples)  # type: ignore[call-overload]
        with pytest.raises(DamagedError, match=f"x: at byte {len(good)}: the file ends inside"):
            next(samples)  # type: ignore[call-overload]


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1])
def test_a_length_that_no_file_can_have_is_refused(size: int) -> None:
    length = struct.pack("<Q", size)
    bad = length + masked_crc(length) + b"data"
    for samples in (read_samples(bad, place="x"), stream_samples(io.BytesIO(bad), place="x")):
        with pytest.raises(DamagedError, match=f"x: at byte 0: a record of {size} bytes"):
            list(samples)


def test_a_length_beyond_the_file_reserves_no_memory() -> None:
    length = struct.pack("<Q", 1 << 62)
    for samples in (
        read_samples(length + masked_crc(length), place="x"),
        stream_samples(io.BytesIO(length + masked_crc(length) + bytes(100)), place="x"),
    ):
        with pytest.raises(DamagedError, match="the file ends inside a record"):
            list(samples)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_gzip_and_zlib_are_unpacked(pack: Any) -> None:
    shard = b"".join(b"".join(encode_sample(f"k{n}", [("jpg", JPEG * n), ("cls", b"1")])[0]) for n in range(1, 50))
    assert is_packed(pack(shard)) and not is_packed(shard)
    assert list(stream_samples(io.BytesIO(pack(shard)), place="x")) == list(
        stream_samples(io.BytesIO(shard), place="x")
    )
    with pytest.raises(DamagedError, match="the gzip data ends before its end mark"):
        list(stream_samples(io.BytesIO(pack(shard)[:-20]), place="x"))


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_a_stream_may_come_in_pieces(chunk: int) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(chunk, size or chunk))

    shard = b"".join(b"".join(encode_sample(f"k{n}", [("jpg", JPEG * n)])[0]) for n in range(1, 4))
    keys = [key for key, _ in stream_samples(Slow(shard), place="x")]
    assert keys == ["k1", "k2", "k3"]


def test_part_of_a_shard_is_read_from_its_bytes() -> None:
    records = [b"".join(encode_sample(f"k{n}", [("jpg", JPEG * n)])[0]) for n in range(1, 4)]
    shard, first = b"".join(records), len(records[0])
    [sample] = read_samples(shard, place="x", start=first, end=first + len(records[1]))
    assert (sample.key, sample.offset) == ("k2", first)
    with pytest.raises(DamagedError, match="the file ends inside a record"):
        list(read_samples(shard, place="x", start=first, end=first + 20))
    with pytest.raises(DamagedError, match="bytes 0 to 9999 were requested"):
        list(read_samples(shard, place="x", end=9999))


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.tar", "tar"), ("a.tar.gz", "tar"), ("a.b.tgz", "tar"), ("a.tfrecord", "tfrecord"), ("a.tfrec", "tfrecord"),
        ("a.tfrecords.gz", "tfrecord"), ("c-train.tfrecord-00001-of-00010", "tfrecord"), ("train-00001-of-00010", None),
        ("a.json", None), ("tar", None), ("a.tar.json", None),
    ],
)  # fmt: skip
def test_a_name_tells_the_format(name: str, format: str | None) -> None:
    assert format_of_name(name) == format


def test_the_first_bytes_tell_the_format() -> None:
    shard = b"".join(encode_sample("k", [("jpg", JPEG)])[0])
    for head in (shard, gzip.compress(shard), zlib.compress(shard)):
        assert format_of_head(head[:512]) == "tfrecord"
    for head in (b"", b"cat/1.jpg" + bytes(503), gzip.compress(b"cat/1.jpg" + bytes(503)), b"\x1f\x8bxx", b"x"):
        assert format_of_head(head) == "tar"


def written_by_tensorflow(tf: Any, path: Path, compression: str, features: Sequence[dict[str, Any]]) -> None:
    kinds = {bytes: ("bytes_list", tf.train.BytesList), int: ("int64_list", tf.train.Int64List)}
    kinds[float] = ("float_list", tf.train.FloatList)
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type=compression)) as writer:
        for row in features:
            made = {}
            for name, value in row.items():
                values = value if isinstance(value, list) else [value]
                kind, make = kinds[type(values[0])]
                made[name] = tf.train.Feature(**{kind: make(value=values)})
            example = tf.train.Example(features=tf.train.Features(feature=made))
            writer.write(example.SerializeToString(deterministic=True))


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_what_tensorflow_wrote_is_read(tmp_path: Path, compression: str) -> None:
    tf = pytest.importorskip("tensorflow")
    rows = [{"image/encoded": JPEG, "image/class/label": n, "x": [1.5, n * 1.0], "n": [n, -n]} for n in range(300)]
    path = tmp_path / "x.tfrecord"
    written_by_tensorflow(tf, path, compression, rows)
    with path.open("rb") as file:
        for n, (_, fields) in enumerate(stream_samples(file, place="x")):
            assert (fields["jpg"], fields["cls"]) == (JPEG, n)
            assert (fields["x"].tolist(), fields["n"].tolist()) == ([1.5, n], [n, -n])
    assert n == 299


VALUES = st.one_of(
    st.lists(st.binary(max_size=200), min_size=1, max_size=3),
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1),
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), VALUES, max_size=5))
def test_any_example_of_tensorflow_is_parsed(features: dict[str, list[Any]]) -> None:
    tf = pytest.importorskip("tensorflow")
    made = {}
    for name, values in features.items():
        kind, make = {
            bytes: ("bytes_list", tf.train.BytesList),
            int: ("int64_list", tf.train.Int64List),
            float: ("float_list", tf.train.FloatList),
        }[type(values[0])]
        made[name] = tf.train.Feature(**{kind: make(value=values)})
    data = tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()
    for _ in range(2):  # names are known the second time
        found = parse_example(data)
        assert found.keys() == features.keys()
        for name, feature in found.items():
            values = feature.values
            if feature.kind == "bytes":
                values = [data[first : first + size] for first, size in values]  # type: ignore[misc]
            assert list(values) == features[name]


@pytest.mark.parametrize("empty", [b"", part(0x0A, b""), part(0x12, b""), part(0x1A, b""), part(0x1A, part(0x0A, b""))])
@pytest.mark.parametrize("length", [0x7F, 0x80, 0x4000])
def test_an_empty_list_before_a_long_entry_is_read_once_its_name_is_known(empty: bytes, length: int) -> None:
    image = bytes(length)
    data = example(**{"image/object/bbox/xmin": empty, "image/encoded": of_bytes(image)})
    for _ in range(2):  # the second time the names are known
        found = parse_example(data)
        first, size = found["image/encoded"].values[0]  # type: ignore[misc]
        assert list(found["image/object/bbox/xmin"].values) == [] and data[first : first + size] == image


CONTEXT = example(a=of_ints(1))
LISTS = part(0x12, part(0x0A, part(0x0A, b"frames") + part(0x12, part(0x0A, of_floats(1)))))
LISTS_OF_10_BYTES = part(0x12, part(0x0A, part(0x0A, b"ab") + part(0x12, part(0x0A, b""))))  # 10: the tag of features


@pytest.mark.parametrize("lists", [LISTS, LISTS_OF_10_BYTES, part(0x12, b"")])
@pytest.mark.parametrize("before", [b"", CONTEXT])
@pytest.mark.parametrize("behind", [b"", CONTEXT])
def test_a_sequence_example_is_refused_since_its_lists_would_be_lost(
    lists: bytes, before: bytes, behind: bytes
) -> None:
    with pytest.raises(DamagedError, match=r"x: at byte 12: .*tf.train.SequenceExample"):
        one(before + lists + behind, "x")


USUAL = {
    "a short string": example(name=of_bytes(b"text")),
    "a string of two bytes of length": example(name=of_bytes(bytes(0x80))),
    "a string of three bytes of length": example(name=of_bytes(bytes(0x4000))),
    "a small number": example(name=of_ints(0x7F)),
    "a large number": example(name=of_ints(0x80)),
    "numbers": example(name=of_ints(1, 2)),
    "floats": example(name=of_floats(1.5)),
    "an empty list": example(name=part(0x0A, b"")),
    "two features": example(name=of_ints(1), text=of_bytes(b"x")),
}


@pytest.mark.parametrize("what", USUAL)
def test_whatever_byte_is_another_one_a_known_name_is_read_as_an_unknown_one(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual entry is read in one piece, and every other one part by part: they agree, errors and bytes too."""

    def outcome(data: bytes) -> str:
        try:
            return repr([(name, kind, list(values)) for name, (kind, values) in parse_example(data).items()])
        except WireError as exc:
            return repr(exc.args)

    whole = USUAL[what]
    changed = [
        whole[:at] + bytes([value]) + whole[at + 1 :]
        for at in range(min(len(whole), 32))
        for value in {whole[at] ^ 1, whole[at] + 1 & 0xFF, whole[at] - 1 & 0xFF, 0, 0x0A, 0x12, 0x1A, 0x7F, 0x80, 0xFF}
    ]
    changed += [*[whole[:cut] for cut in range(len(whole) - 1)][:40], whole, example(name=of_ints(1)) + whole]
    parse_example(example(name=of_ints(1), text=of_ints(1)))  # now these are known
    assert example_module._plain_entry(USUAL["a small number"], 4, len(USUAL["a small number"])) is not None
    known = [outcome(data) for data in changed]
    with monkeypatch.context() as patch:
        patch.setattr(example_module, "_plain_entry", lambda *_: None)
        assert known == [outcome(data) for data in changed]


def test_bytes_that_parse_by_chance_and_have_no_features_are_refused() -> None:
    with pytest.raises(DamagedError, match="it has no features"):
        one(b"\x20\x07", "x")


def test_lists_in_several_runs_are_one_list_as_in_tensorflow() -> None:
    packed, alone = part(0x0A, struct.pack("<2f", 1, 2)), b"".join(b"\x0d" + struct.pack("<f", n) for n in (3, 4))
    ints, single = part(0x0A, b"\x01\x02"), b"\x08\x03\x08\x04"
    for order in ((packed, alone), (alone, packed), (packed, packed), (packed, alone, packed)):
        runs = part(0x12, b"".join(order))
        whole = b"".join(order)
        found = parse_example(example(f=runs))["f"].values
        expected = [n for piece in order for n in ((1, 2) if piece is packed else (3, 4))]
        assert list(found) == expected
        lists = part(0x12, order[0]) + part(0x12, whole[len(order[0]) :])  # the list itself twice
        assert list(parse_example(example(f=lists))["f"].values) == expected
    assert list(parse_example(example(n=part(0x1A, ints + single + ints)))["n"].values) == [1, 2, 3, 4, 1, 2]
    assert list(parse_example(example(n=part(0x1A, ints) + part(0x1A, single)))["n"].values) == [1, 2, 3, 4]
