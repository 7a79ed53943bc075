"""The writer's fast way in C gives the bytes, index rows and errors of the way in Python."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images.jpegs import EOI, lossless, photo

import shardkit
from shardkit.errors import BadFileError, StorageError
from shardkit.formats.format import FORMATS
from shardkit.packing import open_shard
from shardkit.packing.write import framed, sink
from shardkit.packing.write.framed import NOT_TAKEN, TAKEN, FramedSamples, PlainKeys, new_keys
from shardkit.packing.write.labels import Targets
from shardkit.packing.write.writer import SampleWriter
from shardkit.sample import MAX_LABEL
from shardkit.shards.manifest import JPEGS, jpeg_options
from shardkit.storage.files import whole_file

pytestmark = pytest.mark.skipif(framed.extension() is None, reason="the C extension is not built here")

Draw = Callable[..., bytes]
Content = Callable[[Path], dict[str, bytes]]
NAMES = ["cat", "dog", "grüße"]


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def switch() -> None:
        for module in (framed, sink):
            monkeypatch.setattr(module, "load", lambda name: (None, "switched off"))

    return switch


def plain(draw: Draw, count: int = 40) -> Iterator[dict[str, Any]]:
    images = [draw(n) for n in range(7)]
    return ({"__key__": f"s/{n:04d}", "jpg": images[n % 7], "cls": n % 3} for n in range(count))


def odd(draw: Draw) -> list[dict[str, Any]]:
    """Samples among which are some that C leaves to Python, and some with values that Python encodes for it."""
    jpeg = draw(1)
    found: list[dict[str, Any]] = [
        {"jpg": jpeg, "cls": 0},
        {"jpeg": jpeg, "cls": 1, "json": {"a": [1, 2.5]}, "txt": "grün", "npy": np.arange(6)},
        {"JPG": draw(2), "cls": 2, "__url__": "ignored", "__index__": 3},
        {"cls": 2, "png": draw(3, format="PNG"), "jpg": jpeg},
        {"txt": "no image", "cls": 0},
        {"jpg": photo(subsampling="4:4:4"), "seg.png": np.zeros((4, 4), np.uint8), "cls": np.int64(1)},
        {"jpg": jpeg + b"stray" + EOI, "cls": 1},
        {"jpg": lossless(6, 8), "cls": 1},
        {"webp": draw(4, format="WEBP"), "cls": 0, "index": 7},
        {"jpg": draw(5, size=(900, 700)), "bin": bytes(100_000), "cls": 1, "other": bytes(40_000)},
        {"bin": b"", "cls": 0},
        {"bin": bytearray(b"ab"), "cls": 0},
        {"jpg": draw(6, mode="L"), "cls": b"2"},
        {f"f{n}": b"x" for n in range(40)} | {"cls": 0},
    ]
    keys = ["a", "ü/b", "n" * 89 + "/" + "m" * 20, "back\\slash", "dir/" * 40 + "x", "_x", "a b"]
    keys += [f"k/{n}" for n in range(len(found) - len(keys))]
    return [{"__key__": key, **sample} for key, sample in zip(keys, found, strict=True)]


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("classes", [None, NAMES])
@pytest.mark.parametrize("format", FORMATS)
def test_both_ways_write_the_same_bytes(
    format: Any, classes: Any, out: Path, in_python: Callable[[], None], content_of: Content, draw_image: Draw,
    *, keyed: bool,
) -> None:  # fmt: skip
    samples = [*plain(draw_image), *odd(draw_image), *({**each, "__key__": f"z{each['__key__']}"} for each in
                                                        plain(draw_image, 1200))]  # fmt: skip
    if not keyed:
        samples = [{name: value for name, value in each.items() if name != "__key__"} for each in samples]
    if classes is not None:
        for each in samples[::2]:
            each["cls"] = classes[int(each["cls"])]
    options: dict[str, Any] = {"format": format, "classes": classes, "max_bytes": "300kB"}
    shardkit.write(samples, out / "fast" / "d", **options)
    in_python()
    shardkit.write(samples, out / "slow" / "d", **options)
    fast = content_of(out / "fast")
    assert content_of(out / "slow") == fast
    assert len(fast) > 5
    assert shardkit.verify(out / "fast" / "d").sound


@pytest.mark.parametrize("labels", [[[0, 2], [], [1]], [0.5, -1.0, 2.0], [[0.5, 1.5]], [None]], ids=str)
@pytest.mark.parametrize("format", FORMATS)
def test_labels_other_than_one_class_are_the_same_both_ways(
    format: Any, labels: list[Any], out: Path, in_python: Callable[[], None], content_of: Content, draw_image: Draw
) -> None:
    samples = [{"jpg": draw_image(n % 5), "cls": labels[n % len(labels)], "txt": str(n)} for n in range(30)]
    shardkit.write(samples, out / "fast" / "d", format=format, max_count=12)
    in_python()
    shardkit.write(samples, out / "slow" / "d", format=format, max_count=12)
    assert content_of(out / "slow") == content_of(out / "fast")


@pytest.mark.parametrize("check", ["header", "full", "none"])
def test_each_check_finds_what_it_finds_in_python(
    check: Any, out: Path, in_python: Callable[[], None], content_of: Content, draw_image: Draw
) -> None:
    cut, text = draw_image(1)[:-300] + EOI, b"no image"
    samples = [*plain(draw_image, 6), {"__key__": "cut", "jpg": cut, "cls": 0}, {"__key__": "t", "jpg": text, "cls": 0}]

    def taken(dest: Path) -> list[str]:
        bad = []
        with shardkit.ShardWriter(dest, check=check) as writer:
            for sample in samples:
                try:
                    writer.write(sample)
                except BadFileError as exc:
                    bad.append(str(exc))
        return bad

    fast = taken(out / "fast" / "d")
    in_python()
    assert taken(out / "slow" / "d") == fast
    assert len(fast) == {"header": 1, "full": 2, "none": 0}[check]
    assert content_of(out / "slow") == content_of(out / "fast")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"__key__": "s/0003", "txt": "x", "cls": 0}, "sample 20: sample s/0003: its __key__ occurs twice"),
        ({"txt": "x", "cls": 0}, "sample 20: it has no __key__"),
        ({"__key__": "b", "txt": "x"}, "sample 20: sample b: field 'cls': it has no label"),
        ({"__key__": "b", "txt": "x", "cls": MAX_LABEL + 1}, "field 'cls': the class 10000001 is not in 0"),
        ({"__key__": "b", "txt": "x", "cls": 1 << 70}, "field 'cls': the class 1180591620717411303424 is not in 0"),
        ({"__key__": "b", "txt": "x", "cls": True}, "field 'cls': a bool is not a label"),
        ({"__key__": "b", "jpg": b"x", "jpeg": b"y", "cls": 0}, "two of its fields have the same name"),
        ({"__key__": "b", "a/b": b"x", "cls": 0}, "not a field"),
        ({"__key__": "b", "txt": "\ud800", "cls": 0}, "field 'txt': the text has an invalid character"),
        ({"__key__": "b", 3: b"x", "cls": 0}, "the name of a field is a int"),
        ({"__key__": "b.c", "txt": "x", "cls": 0}, "not a key"),
        ({"__key__": "b", "jpg": b"", "cls": 0}, "sample 20: sample b: "),
    ],
)
def test_a_bad_sample_among_good_ones_is_named_and_may_be_passed_over(
    bad: dict[Any, Any], message: str, out: Path, draw_image: Draw
) -> None:
    good = list(plain(draw_image))
    with shardkit.ShardWriter(out / "train") as writer:
        for number, sample in enumerate(good):
            if number == 20:
                with pytest.raises(BadFileError, match=message):
                    writer.write(bad)
            writer.write(sample)
    assert [sample["__key__"] for sample in shardkit.dataset(out / "train")] == [sample["__key__"] for sample in good]
    assert shardkit.verify(out / "train").sound


@pytest.mark.parametrize("check", ["header", "full", "none"])
@pytest.mark.parametrize("format", FORMATS)
def test_progressive_jpegs_are_counted_both_ways(
    format: Any, check: Any, out: Path, in_python: Callable[[], None], draw_image: Draw
) -> None:
    progressive = photo(progressive=True)
    images = [draw_image(0), progressive, progressive + b"stray" + EOI, draw_image(1) + b"stray" + EOI]
    samples = [{"jpg": image, "cls": 0} for image in images * 3]
    samples += [{"png": draw_image(2, format="PNG"), "cls": 0}, {"txt": b"no image", "cls": 0}]
    for dest in ("fast", "slow"):
        manifest = shardkit.write(samples, out / dest / "d", format=format, check=check)
        assert manifest.options[JPEGS] == jpeg_options(12, 6)[JPEGS]
        in_python()


def test_what_is_not_an_ordinary_exception_ends_the_write(out: Path, draw_image: Draw) -> None:
    class Interrupting:
        def __array__(self, *args: Any, **more: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), shardkit.ShardWriter(out / "train") as writer:
        writer.write({"jpg": draw_image(0), "cls": 0})
        writer.write({"npy": Interrupting(), "cls": 0})
    assert not out.exists()


def test_a_value_that_writes_a_sample_of_its_own_disturbs_nothing(out: Path, draw_image: Draw) -> None:
    class Nested:
        def __array__(self, *args: Any, **more: Any) -> Any:
            writer.write({"__key__": f"nested{len(keys)}", "jpg": draw_image(1), "cls": 1})
            keys.append(f"nested{len(keys)}")
            return np.arange(3)

    keys: list[str] = []
    with shardkit.ShardWriter(out / "train") as writer:
        for number, sample in enumerate(plain(draw_image, 6)):
            writer.write({**sample, "npy": Nested() if number == 3 else np.arange(3)})
    assert shardkit.verify(out / "train").sound
    assert len(keys) >= 1
    assert writer.manifest.samples == 6 + len(keys)


@pytest.fixture
def framing(tmp_path: Path) -> Iterator[Callable[..., FramedSamples]]:
    """A function that makes the samples of a shard, which go on at byte 0. It takes the options of `go_on`."""
    targets = Targets(None)
    targets.stored(0)
    with (tmp_path / "shard").open("wb") as file:
        output = sink.ThreadSink(file.fileno(), b"shard", framed.extension())

        def begun(limit: int = 1 << 30, left: int = -1) -> FramedSamples:
            samples = FramedSamples(output, "tar", "header", targets, None)
            samples.go_on(SampleWriter(output, "tar", "header"), limit=limit, number=0, left=left)
            return samples

        yield begun
        output.abort()


def test_two_threads_that_write_at_once_get_an_error_instead_of_damage(framing: Any) -> None:
    found: list[BaseException] = []

    class Waiting:
        def __array__(self, *args: Any, **more: Any) -> Any:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
            return np.arange(3)

    def second() -> None:
        try:
            samples.add({"txt": b"x", "cls": 0}, None)
        except RuntimeError as exc:
            found.append(exc)

    samples = framing()
    assert samples.add({"npy": Waiting(), "cls": 0}, None) == TAKEN
    assert "two threads write at once" in str(found[0])


def test_a_sample_that_does_not_fit_the_shard_is_left_to_python(framing: Any) -> None:
    size = FORMATS["tar"].size("000000000", [("txt", 1), ("cls", 1)], b"", "", 0)
    for samples in (framing(limit=size), framing(left=1)):
        assert [samples.add({"txt": b"x", "cls": 0}, None) for _ in range(2)] == [TAKEN, NOT_TAKEN]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is needed")
@pytest.mark.parametrize("size", [100, sink.ThreadSink.WAITING_BYTES // 100])
def test_a_full_disk_is_reported_and_nothing_is_left(size: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def full(path: bytes) -> Iterator[Any]:
        with whole_file(path), open("/dev/full", "wb", buffering=0) as file:
            yield file

    samples = [{"bin": bytes(size), "cls": 0}] * 1000
    monkeypatch.setattr(open_shard, "whole_file", full)
    full_disk = pytest.raises(StorageError, match=r"train-000000\.tar: No space left on device; free some space")
    with full_disk:
        shardkit.write(samples, out / "train")
    assert not out.exists()
    writer = shardkit.ShardWriter(out / "train")
    with contextlib.suppress(StorageError):
        for sample in samples:
            writer.write(sample)
    with full_disk:
        writer.close()
    assert not out.exists()


def test_progress_tells_of_each_thousand_samples_and_of_their_bytes(out: Path, draw_image: Draw) -> None:
    told: list[tuple[int, int]] = []
    data = draw_image(1)
    shardkit.write(
        ({"jpg": data, "cls": 0} for _ in range(3500)), out / "train",
        progress=lambda now: told.append((now.done, now.bytes_done)),
    )  # fmt: skip
    counts = [done // 1000 for done, _ in told]
    assert sorted(set(counts) & {1, 2, 3}) == [1, 2, 3]
    assert all(size > 0 for _, size in told)


@given(st.lists(st.binary(max_size=40), max_size=60))
def test_a_set_of_keys_knows_those_that_were_added(keys: list[bytes]) -> None:
    known: set[bytes] = set()
    sets = [new_keys(), PlainKeys()]
    for key in keys:
        assert [each.add(key) for each in sets] == [key not in known] * 2
        known.add(key)


def test_a_set_of_keys_grows() -> None:
    keys = new_keys()
    assert all(keys.add(b"%d" % n) for n in range(50_000))
    assert not any(keys.add(b"%d" % n) for n in range(50_000))


def test_a_list_of_files_in_memory_is_written_the_same_both_ways(
    tree: Path, out: Path, in_python: Callable[[], None], content_of: Content
) -> None:
    paths = sorted(str(path) for path in tree.rglob("*.jpg"))
    given = {"path": paths, "label": [Path(path).parent.name for path in paths], "note": [json.dumps(p) for p in paths]}
    shardkit.write(given, out / "fast" / "d")
    in_python()
    shardkit.write(given, out / "slow" / "d")
    assert content_of(out / "slow") == content_of(out / "fast")
