"""`shardkit.write` and `ShardWriter`: samples of a program, and that nothing is there after an error."""

from __future__ import annotations

import gc
import io
import itertools
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import shardkit
from shardkit.errors import BadFileError, BusyError, DestinationError, SourceError, StorageError, UsageError
from shardkit.formats.format import FORMATS
from shardkit.packing import open_shard
from shardkit.packing.dest.work_folder import IndexFiles
from shardkit.packing.shard_writer import WriterOptions, WriterSettings
from shardkit.packing.write import framed, sink
from shardkit.packing.write.encoders import encoded
from shardkit.sample import MAX_KEY_BYTES, MAX_LABEL

Content = Callable[[Path], dict[str, bytes]]


@pytest.fixture(params=["C", "Python"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of writing: with the C extension `framing` if it is built here, and without."""
    if request.param == "Python":
        for module in (framed, sink):
            monkeypatch.setattr(module, "load", lambda name: (None, "switched off"))


def texts(count: int, **more: Any) -> Iterator[dict[str, Any]]:
    return ({"__key__": f"s/{n}", "txt": f"text {n}", "cls": n % 3, **more} for n in range(count))


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
def test_samples_are_written_in_their_order_and_verified(format: Any, out: Path) -> None:
    manifest = shardkit.write(texts(10), out / "train", format=format, max_count=4)
    assert [shard.samples for shard in manifest.shards] == [4, 4, 2]
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("0", 4), ("1", 3), ("2", 3)]
    assert (manifest.samples, manifest.fields) == (10, ("cls", "txt"))
    found = list(shardkit.dataset(out / "train"))
    assert [(sample["__key__"], sample["txt"], sample["cls"]) for sample in found] == [
        (f"s/{n}", f"text {n}".encode(), n % 3) for n in range(10)
    ]
    assert shardkit.verify(out / "train").sound
    assert sorted(path.name for path in out.iterdir())[-2:] == ["train.json", "train.parquet"]
    assert not (out / ".train.packing").exists()


def test_equal_samples_give_equal_bytes(out: Path, content_of: Content) -> None:
    shardkit.write(texts(10), out / "a" / "train")
    shardkit.write(texts(10), out / "b" / "train")
    assert content_of(out / "a") == content_of(out / "b")


def test_samples_with_images_pack_as_the_files_do(tree: Path, out: Path, pack_one: Any) -> None:
    pack_one(tree, out / "a", shuffle=False)
    names = ["blue", "red"]
    samples = [
        {"__key__": f"{path.parent.name}/{path.stem}", "jpg": path.read_bytes(), "cls": path.parent.name}
        for path in sorted(tree.rglob("*.jpg"))
    ]
    shardkit.write(samples, out / "b", classes=names)
    assert (out / "a-000000.tar").read_bytes() == (out / "b-000000.tar").read_bytes()
    assert pq.read_table(out / "a.parquet").drop(["shard"]) == pq.read_table(out / "b.parquet").drop(["shard"])


def test_shards_are_cut_before_they_are_too_large(out: Path) -> None:
    manifest = shardkit.write(texts(20), out / "train", max_bytes=10_000)
    assert len(manifest.shards) > 1
    assert all(shard.bytes <= 10_000 for shard in manifest.shards)
    large = [{"txt": "x"}, {"txt": "y" * 20_000}, {"txt": "z"}]
    alone = shardkit.write(large, out / "large", max_bytes=10_000)
    assert [shard.samples for shard in alone.shards] == [1, 1, 1]


def test_samples_without_keys_are_numbered(out: Path) -> None:
    shardkit.write(({"txt": "x"} for _ in range(3)), out / "train")
    assert [sample["__key__"] for sample in shardkit.dataset(out / "train")] == [f"{n:09d}" for n in range(3)]


def test_python_values_are_encoded_by_the_field(out: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    sample = {
        "png": array, "seg.png": array[:, :, 0], "jpeg": Image.fromarray(array), "json": {"a": np.int64(1), "b": [2.5]},
        "npy": array.astype(np.float32), "txt": "grün", "index": 7, "bin": bytearray(b"ab"), "__url__": "ignored",
    }  # fmt: skip
    shardkit.write([sample], out / "train")
    (found,) = shardkit.dataset(out / "train")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found["png"]))), array)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found["seg.png"]))), array[:, :, 0])
    assert Image.open(io.BytesIO(found["jpg"])).size == (4, 2)
    assert json.loads(found["json"]) == {"a": 1, "b": [2.5]}
    assert np.array_equal(np.load(io.BytesIO(found["npy"])), array.astype(np.float32))
    assert (found["txt"], found["index"], found["bin"]) == ("grün".encode(), b"7", b"ab")


def test_several_labels_and_numbers_are_stored_as_json(out: Path) -> None:
    multi = shardkit.write(
        ({"txt": "x", "cls": value} for value in (["b", "a"], [], ["a"])), out / "m", classes=["a", "b"]
    )
    assert multi.options["labels"] == "multi"
    assert [(entry.name, entry.count) for entry in multi.classes] == [("a", 2), ("b", 1)]
    assert [sample["cls.json"] for sample in shardkit.dataset(out / "m")] == [b"[0,1]", b"[]", b"[0]"]
    numbers = shardkit.write(({"txt": "x", "cls": np.array([n, 0.5])} for n in range(2)), out / "n")
    assert (numbers.options["labels"], numbers.classes) == ("number", ())
    assert [sample["cls.json"] for sample in shardkit.dataset(out / "n")] == [b"[0.0,0.5]", b"[1.0,0.5]"]
    assert pq.read_table(out / "n.parquet")["label"].null_count == 2


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([{"txt": "a"}, {"jpg": b"no image"}], "sample 1: sample 000000001: "),
        ([{"txt": "a"}, {"txt": object()}], "sample 1: sample 000000001: field 'txt': this field can't hold a object"),
        ([{"png": np.zeros((2, 2), np.float32)}], "field 'png': an image of float32: it must be uint8"),
        ([{"png": np.zeros((2, 2, 5), np.uint8)}], r"field 'png': an array of the shape \(2, 2, 5\) is not an image"),
        ([{"pkl": {"a": 1}}], "field 'pkl': pickles are not written"),
        ([{"json": {"a": object()}}], "field 'json': JSON can't hold it"),
        ([{"json": {"a": [1, float("nan")]}}], "field 'json': JSON can't hold it"),
        ([{"json": np.array([np.inf])}], "field 'json': JSON can't hold it"),
        ([{"__key__": "k" * (MAX_KEY_BYTES + 1), "txt": "a"}], "its __key__ has 8,001 bytes; 8,000 is the most"),
        ([{"__key__": "a", "txt": "a"}, {"__key__": "k" * (MAX_KEY_BYTES + 1), "txt": "a"}], "sample 1: .* bytes"),
        ([{"txt": "a", "cls": -1}], rf"field 'cls': the class -1 is not in 0 … {MAX_LABEL}"),
        ([{"txt": "a", "cls": "cat"}], r"field 'cls': a class by its name, 'cat': give its number, or classes="),
        ([{"txt": "a", "cls": 1}, {"txt": "b"}], "field 'cls': it has no label, but those before have one class"),
        ([{"txt": "a", "cls": float("nan")}], "field 'cls': nan is not a number to predict"),
        ([{"txt": "a", "cls": [0.5, float("inf")]}], "field 'cls': inf is not a number to predict"),
        ([{"txt": "a", "cls": [0.5, True]}], "field 'cls': True is not a number to predict"),
        ([{"txt": "a", "cls": [0.5, "x"]}], "field 'cls': 'x' is not a number to predict"),
        ([{"__key__": "a", "txt": "a"}, {"__key__": "a", "txt": "b"}], "sample a: its __key__ occurs twice"),
        ([{"__key__": "a", "txt": "a"}, {"txt": "b"}], "sample 1: it has no __key__"),
        ([{"txt": "a"}, {"__key__": "a", "txt": "b"}], "it has a __key__, but those before have none"),
        ([{"__key__": 3, "txt": "a"}], "its __key__ is not text"),
        ([{"__key__": "a.b", "txt": "a"}], "not a key"),
        ([{"__key__": "a", "txt": "a"}, {"__key__": "\udc80", "txt": "b"}], "its __key__ has an invalid character"),
        ([None], "sample 0: a NoneType is not a sample, which is a dict of its fields"),
        ([{"txt": "a"}, ("jpg", b"")], "sample 1: a tuple is not a sample"),
        ([{"cls": 1, "a/b": b""}], "not a field"),
        ([{}], "it has no field"),
        ([{"jpg": b"", "jpeg": b""}], "two of its fields have the same name"),
        ([], "no sample was written"),
    ],
)
def test_a_bad_sample_is_named_and_nothing_is_left(samples: list[dict[str, Any]], message: str, out: Path) -> None:
    with pytest.raises(SourceError, match=message):
        shardkit.write(samples, out / "train")
    assert not out.exists()


def test_json_may_hold_null_and_the_word(out: Path) -> None:
    shardkit.write([{"json": {"a": None, "b": "null", "c": [0.5]}}], out / "train")
    assert [json.loads(sample["json"]) for sample in shardkit.dataset(out / "train")] == [
        {"a": None, "b": "null", "c": [0.5]}
    ]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("text", ["k", "\\"], ids=["plain", "doubled in the path"])
def test_the_longest_key_is_read_again(form: Any, text: str, out: Path) -> None:
    keys = [str(number) + text * (MAX_KEY_BYTES - 1) for number in range(3)]
    shardkit.write(({"__key__": key, "txt": "a"} for key in keys), out / "train", format=form)
    assert [sample["__key__"] for sample in shardkit.dataset(out / "train")] == keys
    assert shardkit.verify(out / "train").sound


@pytest.mark.parametrize("form", FORMATS)
def test_keys_may_be_those_of_an_array_of_text(form: Any, out: Path) -> None:
    keys = np.array(["a", "b", "c"])
    shardkit.write(({"__key__": key, "txt": key} for key in keys), out / "train", format=form)
    assert [sample["__key__"] for sample in shardkit.dataset(out / "train")] == keys.tolist()


def test_an_exception_in_the_block_leaves_no_dataset_and_no_files(out: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), shardkit.ShardWriter(out / "train", max_count=2) as writer:
        for sample in texts(5):
            writer.write(sample)
        raise RuntimeError("mine")
    assert not out.exists()
    with pytest.raises(UsageError, match="nor after an error"):
        _ = writer.manifest
    with pytest.raises(UsageError, match="the writer is closed"):
        writer.write({"txt": "x"})


def test_what_the_iterable_raises_goes_on_as_it_is(out: Path) -> None:
    def samples() -> Iterator[dict[str, Any]]:
        yield {"txt": "x"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shardkit.write(samples(), out / "train")
    assert not out.exists()


def test_a_bad_sample_may_be_passed_over_by_the_caller(out: Path) -> None:
    with shardkit.ShardWriter(out / "train", max_count=1) as writer:
        for sample in ({"txt": "a"}, {"jpg": b"no image"}, {"txt": "b"}, {"jpg": b"no image"}):
            try:
                writer.write(sample)
            except BadFileError:
                continue
    assert [shard.samples for shard in writer.manifest.shards] == [1, 1]
    assert shardkit.verify(out / "train").sound


def test_a_dataset_that_is_there_is_replaced_only_when_asked(out: Path) -> None:
    first = shardkit.write(texts(6), out / "train", max_count=2)
    with pytest.raises(DestinationError, match="a dataset is already there"):
        shardkit.write(texts(6), out / "train")
    assert len(first.shards) == 3
    again = shardkit.write(texts(2), out / "train", overwrite=True)
    assert again.samples == 2
    assert sorted(path.name for path in out.iterdir()) == ["train-g2-000000.tar", "train-g2.parquet", "train.json"]


def test_a_failed_writer_leaves_the_dataset_that_it_would_replace(out: Path, content_of: Content) -> None:
    shardkit.write(texts(6), out / "train")
    before = content_of(out)
    with pytest.raises(SourceError):
        shardkit.write([{"txt": "x"}, {}], out / "train", overwrite=True)
    assert content_of(out) == before


def test_two_writers_do_not_share_a_destination(out: Path) -> None:
    with shardkit.ShardWriter(out / "train") as writer:
        writer.write({"txt": "x"})
        with pytest.raises(BusyError):
            shardkit.ShardWriter(out / "train")
    assert writer.manifest.samples == 1


def test_a_close_that_fails_gives_the_destination_free(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, too, whose writer is still there."""

    def full(*args: Any) -> None:
        raise StorageError("train", "no space left", "free some")

    writer = shardkit.ShardWriter(out / "train")
    writer.write({"txt": "x"})
    with monkeypatch.context() as patch:
        patch.setattr(IndexFiles, "end", full)
        with pytest.raises(StorageError, match="no space left"):
            writer.close()
    assert not (out / "train.json").exists()
    with pytest.raises(UsageError, match="closed"):
        writer.write({"txt": "x"})
    with shardkit.ShardWriter(out / "train") as again:
        again.write({"txt": "y"})
    assert [sample["txt"] for sample in shardkit.dataset(out / "train")] == [b"y"]


def test_a_first_or_last_shard_that_cannot_be_ended_gives_the_destination_free(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = shardkit.ShardWriter(out / "train")
    writer.write({"txt": "x"})
    with monkeypatch.context() as patch:
        patch.setattr(open_shard, "keep_receipt", lambda *args, **more: [][0])
        with pytest.raises(IndexError):
            writer.close()
    assert shardkit.write(texts(1), out / "train").samples == 1


def test_a_shard_whose_file_cannot_be_closed_gives_the_destination_free(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(self: object) -> None:
        raise StorageError("train-000000.tar", "Input/output error", "check the disk")

    writer = shardkit.ShardWriter(out / "train")
    writer.write({"txt": "x"})
    with monkeypatch.context() as patch:
        patch.setattr(open_shard.OpenShard, "abort", bad)
        with pytest.raises(StorageError, match="Input/output"):
            writer.abort()
    assert shardkit.write(texts(1), out / "train").samples == 1


def test_close_writes_the_dataset_without_a_with_block(out: Path) -> None:
    writer = shardkit.ShardWriter(out / "train")
    writer.write({"txt": "x"})
    assert not (out / "train.json").exists()
    writer.close()
    writer.close()
    assert (out / "train.json").exists()


def test_a_folder_takes_samples_under_their_own_name(out: Path) -> None:
    out.mkdir()
    shardkit.write(texts(1), out)
    assert (out / "samples.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "zip"}, "format: 'zip' is not one of tar, tfrecord"),
        ({"max_count": 0}, "max_count: 0 is too small"),
        ({"check": "half"}, "check: 'half' is not one of"),
        ({"max_bytes": "many"}, "max_bytes: "),
        ({"classes": ["a", "a"]}, "classes: 'a' is named twice"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str, out: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        shardkit.ShardWriter(out / "train", **options)
    assert not out.exists()


def test_samples_go_to_a_bucket_and_an_error_leaves_no_manifest_there(tmp_path: Path) -> None:
    given: dict[str, Any] = {"work": tmp_path / "work", "max_count": 2}
    bucket = f"memory://{tmp_path.name}"
    with pytest.raises(SourceError):
        shardkit.write([{"txt": "x"}] * 5 + [{}], f"{bucket}/out/train", **given)
    with pytest.raises(shardkit.NotFoundError):
        len(shardkit.dataset(f"{bucket}/out/train.json"))
    manifest = shardkit.write(texts(5), f"{bucket}/out/train", **given)
    assert [sample["txt"] for sample in shardkit.dataset(f"{bucket}/out/train")] == [
        f"text {n}".encode() for n in range(5)
    ]
    assert len(manifest.shards) == 3


def test_a_jpeg_of_an_array_is_close_to_it() -> None:
    array = np.full((16, 16, 3), 120, np.uint8)
    found = np.asarray(Image.open(io.BytesIO(encoded("jpg", array))))
    assert np.abs(found.astype(int) - 120).max() <= 2


def test_the_options_have_the_names_and_types_of_the_settings() -> None:
    assert WriterOptions.__annotations__.keys() == {field.name for field in fields(WriterSettings)}
    assert WriterOptions.__optional_keys__ == set(WriterOptions.__annotations__)
    types = {name: annotation.__forward_arg__ for name, annotation in WriterOptions.__annotations__.items()}
    assert types == {field.name: field.type for field in fields(WriterSettings)}


def test_an_option_that_a_writer_does_not_have_is_answered_with_the_right_one(out: Path) -> None:
    with pytest.raises(shardkit.UsageError, match=r"write\(\): .* argument 'max_samples'; did you mean `max_count`\?"):
        shardkit.write([{"txt": "x"}], out / "train", max_samples=3)  # type: ignore[call-arg]
    with pytest.raises(shardkit.UsageError, match=r"ShardWriter\(\): .* 'shard_size'; did you mean `max_bytes`\?"):
        shardkit.ShardWriter(out / "train", shard_size=3)  # type: ignore[call-arg]
    assert not out.exists()


def test_the_next_shard_is_written_while_the_disk_flushes_one(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushing, written = threading.Event(), threading.Event()
    close = open_shard.OpenShard.close

    def slow(self: open_shard.OpenShard, *args: Any) -> Any:
        flushing.set()
        assert written.wait(60)
        return close(self, *args)

    monkeypatch.setattr(open_shard.OpenShard, "close", slow)
    with shardkit.ShardWriter(out / "train", max_count=2) as writer:
        samples = texts(7)
        for sample in itertools.islice(samples, 4):
            writer.write(sample)
        assert flushing.wait(60)
        written.set()
        for sample in samples:
            writer.write(sample)
    assert [shard.name for shard in writer.manifest.shards] == [f"train-{n:06}.tar" for n in range(4)]
    assert [shard.samples for shard in writer.manifest.shards] == [2, 2, 2, 1]
    assert shardkit.verify(out / "train").sound


def test_a_shard_that_cannot_be_flushed_is_told_at_the_next_one_and_leaves_no_dataset(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise StorageError("train-000000.tar", "no space left", "free some")

    writer = shardkit.ShardWriter(out / "train", max_count=2)
    with monkeypatch.context() as patch:
        patch.setattr(open_shard, "keep_receipt", full)
        for sample in texts(4):
            writer.write(sample)
        with pytest.raises(StorageError, match="no space left"):
            writer.write({"__key__": "fifth", "txt": "x", "cls": 0})
    with pytest.raises(StorageError, match="no space left"):  # even if the caller went on
        writer.close()
    assert not (out / "train.json").exists()
    assert shardkit.write(texts(1), out / "train").samples == 1


@pytest.mark.parametrize("began", [True, False])
def test_an_abort_leaves_nothing_of_the_shard_that_is_flushed(
    out: Path, monkeypatch: pytest.MonkeyPatch, began: bool
) -> None:
    """Nor of one whose turn had not come, so that another writer of this process may write to the same place."""
    close, aborting = open_shard.OpenShard.close, threading.Event()

    def slow(self: open_shard.OpenShard, *args: Any) -> Any:
        assert aborting.wait(60)
        return close(self, *args)

    monkeypatch.setattr(open_shard.OpenShard, "close", slow)
    writer = shardkit.ShardWriter(out / "train", max_count=2)
    if not began:
        writer._ending._flushing.submit(aborting.wait, 60)
    for sample in texts(3):
        writer.write(sample)
    threading.Timer(0.1, aborting.set).start()
    writer.abort()
    assert not out.exists() or not os.listdir(out)
    monkeypatch.undo()
    with shardkit.ShardWriter(out / "train", max_count=2) as again:
        again.write({"txt": "x"})
        del writer
        gc.collect()
    assert again.manifest.samples == 1
