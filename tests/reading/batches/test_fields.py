from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.errors import DecodeError, UsageError
from shardkit.reading.batches.fields import FIELD_DECODERS, decode_field, decode_fields, encode_labels
from shardkit.sample import MAX_LABEL


def saved(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "value"),
    [
        ("cls", b"12", 12),
        ("cls", b" 3\n", 3),
        ("label.cls", b"4", 4),
        ("txt", "a cat \u732b".encode(), "a cat \u732b"),
        ("text", b"", ""),
        ("json", b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("meta.json", b"3", 3),
        ("xyz", b"\0\1", b"\0\1"),
        ("json.gz", b"\x1f\x8b", b"\x1f\x8b"),
    ],
)
def test_a_field_is_decoded_by_its_last_extension(name: str, data: bytes, value: Any) -> None:
    found = decode_field(name, data)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("cls", b"cat", "field 'cls' can't be decoded: not a class number from 0 to 10000000: b'cat'"),
        ("cls", b"", "not a class number from 0"),
        ("cls", b"1_000", "not a class number from 0"),
        ("cls", b"9" * 5000, "not a class number from 0"),
        ("cls", b"-1", "not a class number from 0"),
        ("cls", b"+1", "not a class number from 0"),
        ("cls", b"%d" % (MAX_LABEL + 1), f"not a class number from 0 to {MAX_LABEL}"),
        ("txt", b"\xff\xfe", "field 'txt' can't be decoded: 'utf-8' codec"),
        ("json", b"{", "field 'json' can't be decoded"),
        ("json", b"[" * 100_000, "field 'json' can't be decoded"),
        ("npy", b"", "field 'npy' can't be decoded"),
        ("npy", b"\x93NUMPY\x01\0", "field 'npy' can't be decoded"),
        ("npy", saved(np.arange(10))[:-1], "in 79 bytes: it is truncated"),
        ("npy", saved(np.array([{}], dtype=object), allow_pickle=True), "would need pickle"),
    ],
)
def test_a_damaged_field_is_an_error_with_its_name(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_field(name, data)
    assert reason in caught.value.fact


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(5, dtype=">i2"),
        np.zeros((0, 3), np.uint8),
        np.array(["a", "bc"]),
        np.array([(1, 2.5)], dtype=[("x", "i4"), ("y", "f8")]),
    ],
)
def test_an_array_comes_back_with_its_shape_and_dtype_and_can_be_written(array: np.ndarray) -> None:
    found = decode_field("npy", saved(array))
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert found.flags.writeable


def test_an_array_that_claims_to_be_huge_is_refused_before_memory_is_taken() -> None:
    data = saved(np.zeros(1, np.uint8)).replace(b"(1,), }     ", b"(9999999,), }"[:12])
    huge = b"\x93NUMPY\x01\0" + (118).to_bytes(2, "little")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1024), }"
    with pytest.raises(DecodeError, match="it is truncated"):
        decode_field("npy", huge + header.ljust(117) + b"\n" + bytes(8))
    nothing = header.replace(b"'<f8'", b"'|V0' ")
    with pytest.raises(DecodeError):
        decode_field("npy", huge + nothing.ljust(117) + b"\n" + bytes(8))
    assert data


@given(st.binary(max_size=80), st.sampled_from(["cls", "txt", "json", "npy"]))
def test_any_bytes_give_a_value_or_a_decode_error(data: bytes, name: str) -> None:
    for start in (b"", b"\x93NUMPY\x01\0"):
        try:
            decode_field(name, start + data)
        except DecodeError as exc:
            assert name in exc.fact


def test_a_sample_s_fields_are_decoded_and_a_decoder_can_be_added() -> None:
    sample = {"__key__": "a", "__url__": "s.tar", "jpg": b"\xff\xd8", "cls": b"3", "rev": b"abc", "done.txt": "text"}
    found = decode_fields(sample, decoders={**FIELD_DECODERS, "rev": lambda data: data[::-1]})
    assert found == {**sample, "cls": 3, "rev": b"cba"}
    assert sample["cls"] == b"3"


def test_whatever_a_caller_s_decoder_raises_is_a_decode_error() -> None:
    def broken(data: bytes) -> Any:
        raise KeyError("no such thing")

    with pytest.raises(DecodeError, match="no such thing") as caught:
        decode_field("x", b"", decoders={"x": broken})
    assert isinstance(caught.value.__cause__, KeyError)


def test_labels_are_encoded_as_keras_does() -> None:
    labels = np.array([0, 2, 1])
    whole = encode_labels(labels, "int", 3)
    assert whole.dtype == np.int64
    assert whole.tolist() == [0, 2, 1]
    onehot = encode_labels(labels, "onehot", 3)
    assert onehot.dtype == np.float32
    assert onehot.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    binary = encode_labels(np.array([0, 1, 1]), "binary", 2)
    assert binary.dtype == np.float32
    assert binary.tolist() == [0, 1, 1]
    assert encode_labels(np.array([], np.int64), "onehot", 4).shape == (0, 4)


@pytest.mark.parametrize("classes", [1, 3])
def test_binary_labels_need_two_classes(classes: int) -> None:
    with pytest.raises(UsageError, match=f"needs two classes, but there are {classes}"):
        encode_labels(np.array([0]), "binary", classes)


@pytest.mark.parametrize("label", [-1, 2])
@pytest.mark.parametrize("mode", ["onehot", "binary"])
def test_a_label_without_a_class_is_an_error(mode: Any, label: int) -> None:
    with pytest.raises(DecodeError, match=f"label {label} with 2 classes: expected 0 to 1"):
        encode_labels(np.array([0, label]), mode, 2)
