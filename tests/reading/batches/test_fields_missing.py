"""Samples that lack a field, an image or a label, and images beside the image."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shardkit
from shardkit import DatasetError, DecodeError, UsageError
from shardkit.reading.batches.batch import collate
from shardkit.reading.batches.tasks import samples as single
from shardkit.reading.batches.tasks.worker import PART_SAMPLES

Make = Callable[..., str]


def png(number: int = 0) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture(params=["streamed", "indexed"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Writes samples (dicts of fields) into a tar shard; gives its path."""

    def write(samples: list[dict[str, bytes]]) -> str:
        path = str(tmp_path / "x-000000.tar")
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, sample in enumerate(samples):
                for field, data in sample.items():
                    info = tarfile.TarInfo(f"{number}.{field}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        if request.param == "indexed":
            shardkit.index_shards(path)
        return path

    return write


def captions(lacking: int) -> list[dict[str, bytes]]:
    return [{"png": png(n), **({} if n == lacking else {"txt": b"no. %d" % n})} for n in range(4)]


@pytest.mark.parametrize("lacking", [0, 2])
def test_a_field_that_a_sample_lacks_is_none_at_its_place(make: Make, lacking: int) -> None:
    data = shardkit.dataset(make(captions(lacking)))
    (raw,), (decoded,) = data.batch(4), data.decode(size=4).batch(4)
    expected = [None if n == lacking else f"no. {n}" for n in range(4)]
    assert decoded.txt == expected
    assert [None if value is None else str(value, "utf-8") for value in raw["txt"]] == expected


LACKING = [{"png": png(), "cls": b"0"}, {"txt": b"none", "cls": b"1"}, {"png": png(), "cls": b"2"}]


@pytest.mark.parametrize("samples", [LACKING, [{"png": png(), "cls": b"0"}, {"cls": b"1"}]])
@pytest.mark.parametrize("batched", [True, False])
def test_a_sample_without_an_image_is_named(make: Make, samples: list[dict[str, bytes]], batched: bool) -> None:
    data = shardkit.dataset(make(samples)).decode(size=4)
    with pytest.raises(DecodeError, match=r"x-000000\.tar: sample 1: this sample has no image") as caught:
        list(data.batch(2) if batched else data)
    assert (caught.value.key, caught.value.offset) == ("1", None)


@pytest.mark.parametrize("batched", [True, False])
def test_a_sample_without_an_image_is_skipped_and_counted(
    make: Make, caplog: pytest.LogCaptureFixture, batched: bool, keys_of: Any
) -> None:
    data = shardkit.dataset(make(LACKING)).decode(size=4, on_error="skip")
    assert keys_of(data.batch(2) if batched else data) == ["0", "2"]
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("skipped (1 of at most 100): ")


def test_decode_that_finds_nothing_to_decode_names_the_fields(make: Make) -> None:
    path = make([{"left.png": png(), "right.png": png(), "cls": b"1"}])
    with pytest.raises(DecodeError, match=r"its fields: left\.png, right\.png, cls.*image_field="):
        next(iter(shardkit.dataset(path).decode(size=4).batch(1)))


MASKS = [{"png": png(n), "seg.png": png(n)} for n in range(4)]
DECODERS = {"png": lambda data: np.asarray(Image.open(io.BytesIO(bytes(data))))}


@pytest.mark.parametrize("options", [{"flip": True}, {"crop": "random"}, {"crop": "center"}])
def test_a_decoded_mask_that_would_not_move_with_its_image_is_refused(make: Make, options: dict[str, Any]) -> None:
    data = shardkit.dataset(make(MASKS), decoders=DECODERS).decode(size=4, **options)
    with pytest.raises(UsageError, match=r"'png' only, and 'seg\.png' would no longer match it.*map\(\)"):
        list(data)


def test_a_mask_is_decoded_with_an_image_that_stays_in_place(make: Make) -> None:
    for sample in shardkit.dataset(make(MASKS), decoders=DECODERS).decode(size=8):
        assert (sample["png"] == sample["seg.png"]).all()


def test_a_mask_that_stays_bytes_beside_a_flipped_image_is_logged_once(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "_SAID", set())
    path = make(MASKS)
    caplog.clear()  # what `index` has to say of the labels
    assert len(list(shardkit.dataset(path).decode(size=4, flip=True))) == 4
    assert [("'seg.png' would no longer match it" in message) for message in caplog.messages] == [True]


@pytest.mark.parametrize(
    ("items", "fact"),
    [
        ([{"__key__": "a", "jpg": np.zeros(3)}, {"__key__": "b"}], "image for each sample, but 'b' has none"),
        ([{"__key__": "a"}, {"__key__": "b", "jpg": np.zeros(3)}], "image for each sample, but 'a' has none"),
        ([{"__key__": "a", "jpg": np.zeros(3), "cls": 1}, {"__key__": "b", "jpg": np.zeros(3)}], "label .* 'b' has"),
        ([{"__key__": "a", "jpg": np.zeros(3)}, {"__key__": "b", "jpg": np.zeros(3), "cls": 1}], "label .* 'a' has"),
        ([(1, 2), (1, 2, 3)], "some have 2 and some 3 values"),
        ([(1, 2, 3), (1, 2)], "some have 3 and some 2 values"),
        ([{"a": 1}, 5], "dict and int"),
        ([(1, 2), 5], "tuple and int"),
    ],
)
def test_items_that_make_no_batch_are_named(items: list[Any], fact: str) -> None:
    with pytest.raises(DatasetError, match=fact):
        collate(items)


@pytest.mark.parametrize("last", [b"", png()[:20]])
def test_a_sample_far_inside_a_batch_is_named_and_left_out_alone(
    make: Make, caplog: pytest.LogCaptureFixture, keys_of: Any, last: bytes
) -> None:
    """Threads take parts of a batch: a number there counts from the part's first sample."""
    wrong = PART_SAMPLES + 5
    samples = [{"png": png(), "cls": b"0"} for _ in range(2 * PART_SAMPLES)]
    samples[wrong] = {"png": last, "cls": b"0"} if last else {"cls": b"0"}
    data = shardkit.dataset(make(samples), threads=2)
    with pytest.raises(DecodeError) as caught:
        list(data.decode(size=4).batch(len(samples)))
    assert caught.value.key == f"{wrong}"
    (batch,) = data.decode(size=4, on_error="skip").batch(len(samples))
    assert batch.keys == [f"{number}" for number in range(len(samples)) if number != wrong]
    assert len(batch.images) == len(batch.labels) == len(samples) - 1
    assert len(caplog.messages) == 1 and f"{wrong}: " in caplog.messages[0]
