from __future__ import annotations

import io
import os
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import numpy as np
import pytest

from shardkit.errors import BadFileError, DestinationError
from shardkit.formats.columns import Strings, texts_of_paths
from shardkit.formats.tar import fast_write, samples
from shardkit.packing.write import sink as sink_module
from shardkit.packing.write.file_samples import FileSamples
from shardkit.packing.write.receipt import COLUMNS, Receipt, Rows, receipt_path, rows_path
from shardkit.packing.write.shard import write_shard
from shardkit.packing.write.sink import Meter, Sink
from shardkit.packing.write.task import ShardTask
from shardkit.sources.readers import TreeFiles

Draw = Callable[..., bytes]


@pytest.fixture(autouse=True, params=["with the C loop, where it is built", "without it"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is for both ways of reading plain JPEGs."""
    if request.param == "without it":
        monkeypatch.setattr(fast_write, "extension", lambda: None)


@pytest.fixture
def files(tmp_path: Path, draw_image: Draw) -> dict[str, bytes]:
    """Images in the folder `tree`, by path."""
    found = {f"c{number % 2}/{number}.jpg": draw_image(number) for number in range(5)}
    found["c1/p.png"] = draw_image(9, format="PNG")
    found["c0/upper.JPEG"] = draw_image(10)
    for path, data in found.items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(data)
    (tmp_path / "work").mkdir()
    return found


def numbers_of(values: Iterable[int]) -> bytes:
    return array("q", values).tobytes()


def task_of(tmp_path: Path, files: dict[str, bytes], **fields: Any) -> ShardTask:
    root = os.fsencode(tmp_path / "tree")
    samples = FileSamples(
        root=root,
        files=TreeFiles(root),
        paths=Strings.of_texts([*files]),
        sizes=numbers_of(map(len, files.values())),
        labels=numbers_of(int(path[1]) for path in files),
        keys=Strings.of_texts([path.rpartition(".")[0] for path in files]),
    )
    skip_bad = fields.pop("skip_bad", False)
    return ShardTask(
        name="t-000000.tar",
        work=os.fsencode(tmp_path / "work"),
        digest="d",
        check="header",
        skip_bad=skip_bad,
        samples=msgspec.structs.replace(samples, **fields),
    )


def test_the_digest_of_a_task_changes_with_all_that_decides_its_bytes() -> None:
    samples = FileSamples(
        root=b"tree", files=TreeFiles(b"tree"), paths=Strings.of([b"c0/a.jpg", b"c1/b.jpg"]),
        sizes=numbers_of([3, 4]), labels=numbers_of([0, 1]), keys=Strings.of([b"c0/a", b"c1/b"]),
    )  # fmt: skip
    others = [
        {"paths": Strings.of([b"c0/a.jpg", b"c1/c.jpg"])}, {"paths": Strings.of([b"c0/a.jp", b"gc1/b.jpg"])},
        {"sizes": numbers_of([3, 5])}, {"labels": numbers_of([0, 2])}, {"keys": Strings.of([b"c0/a", b"c1/b_1"])},
        {"names": ["jpg"]}, {"inline": {"json": Strings.of([b"1", b"2"])}},
        {"inline": {"json": Strings.of([b"1", b"3"])}}, {"inline": {"txt": Strings.of([b"1", b"2"])}},
    ]  # fmt: skip
    each = [samples, *(msgspec.structs.replace(samples, **fields) for fields in others)]
    digests = {one.digest(b"salt", b"marks") for one in each}
    digests |= {samples.digest(b"other", b"marks"), samples.digest(b"salt", b"other")}
    assert len(digests) == len(others) + 3


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_many_pieces_are_written_each_once(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "VECTOR", 2)
    pieces = [bytes([number]) * 16384 for number in range(count)]
    with open(tmp_path / "x", "wb") as file:
        sink = Sink(file.fileno(), b"x")
        sink.write(pieces, sum(map(len, pieces)))
    assert (tmp_path / "x").read_bytes() == b"".join(pieces)
    assert (sink.bytes, sink.crc) == (16384 * count, google_crc32c.value(b"".join(pieces)))


def ignore(files: int, size: int) -> None:
    assert files >= 0 and size >= 0


def test_a_shard_is_its_samples_one_after_another_and_the_end_mark(tmp_path: Path, files: dict[str, bytes]) -> None:
    task = task_of(tmp_path, files)
    receipt = write_shard(task, ignore)
    expected = b""
    for path, data in files.items():
        key, _, extension = path.rpartition(".")
        field = {"JPEG": "jpg"}.get(extension, extension)
        expected += b"".join(samples.encode_sample(key, ((field, data), ("cls", path[1].encode())))[0])
    written = (tmp_path / "work" / "t-000000.tar").read_bytes()
    assert written == expected + samples.END
    entry = receipt.entry
    assert (entry.name, entry.samples, entry.bytes) == ("t-000000.tar", 7, len(written))
    assert entry.crc32c == f"{google_crc32c.value(written):08x}"


def test_the_receipt_and_the_rows_are_beside_the_shard(tmp_path: Path, files: dict[str, bytes]) -> None:
    task = task_of(tmp_path, files)
    receipt = write_shard(task, ignore)
    with open(receipt_path(task.work, task.name), "rb") as file:
        assert msgspec.msgpack.decode(file.read(), type=Receipt) == receipt
    assert (receipt.labels, receipt.fields, receipt.skipped) == ({0: 4, 1: 3}, ["jpg", "png"], [])
    assert receipt.types == {"JPEG jpg": 6, "PNG png": 1}
    with open(rows_path(task.work, task.name), "rb") as file:
        data = file.read()
    assert receipt.rows_crc32c == google_crc32c.value(data)
    rows = msgspec.msgpack.decode(data, type=Rows)
    numbers = {name: np.frombuffer(rows.numbers[name], np.int64).tolist() for name in COLUMNS}
    written = (tmp_path / "work" / "t-000000.tar").read_bytes()
    assert (rows.paths.texts(), rows.keys) == (list(files), task.samples.keys)
    assert numbers["label"] == [int(path[1]) for path in files]
    assert (set(numbers["width"]), set(numbers["height"])) == ({40}, {30})
    for row, data in enumerate(files.values()):
        start = numbers["image_offset"][row]
        assert written[start : start + numbers["image_size"][row]] == data
        assert numbers["crc32c"][row] == google_crc32c.value(data)
    assert np.cumsum([0, *numbers["size"]]).tolist() == [*numbers["offset"], len(written) - 1024]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
        "t-000000.tar", "t-000000.tar.receipt", "t-000000.tar.rows",
    ]  # fmt: skip


@pytest.mark.parametrize("flush_bytes", [1, 3000, 10**9])
def test_the_bytes_do_not_depend_on_when_they_are_written(
    flush_bytes: int, tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_shard(task_of(tmp_path, files), ignore).entry
    monkeypatch.setattr(Sink, "FLUSH_BYTES", flush_bytes)
    assert write_shard(task_of(tmp_path, files), ignore).entry == whole


def test_large_files_are_written_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(fast_write, "extension", lambda: None)  # which has a buffer of its own
    vectors: list[int] = []
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, pieces: [vectors.append(len(pieces)), writev(fd, pieces)][1])
    (tmp_path / "tree" / "c0").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    files = {}
    for number in range(3):
        sink = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (300, 300, 3), np.uint8)
        Image.fromarray(noise).save(sink, "JPEG", quality=95)
        files[f"c0/{number}.jpg"] = sink.getvalue()
    for path, data in files.items():
        (tmp_path / "tree" / path).write_bytes(data)
    receipt = write_shard(task_of(tmp_path, files), ignore)
    assert max(vectors) > 1
    written = (tmp_path / "work" / "t-000000.tar").read_bytes()
    assert receipt.entry.crc32c == f"{google_crc32c.value(written):08x}"
    assert [written.count(data) for data in files.values()] == [1, 1, 1]


def test_what_was_read_is_told_now_and_then_and_adds_up(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_write, "extension", lambda: None)  # which reads as many as it has room for
    monkeypatch.setattr(Sink, "FLUSH_BYTES", 1)
    monkeypatch.setattr(Meter, "TELL_FILES", 3)
    told: list[tuple[int, int]] = []
    write_shard(task_of(tmp_path, files), lambda *what: told.append(what))
    assert [number for number, _ in told] == [3, 3, 1]
    assert sum(size for _, size in told) == sum(map(len, files.values()))


def test_a_bad_file_leaves_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "tree" / "c1" / "3.jpg").write_bytes(bytes(len(files["c1/3.jpg"])))
    with pytest.raises(BadFileError, match=r"c1/3.jpg: not an image \(zero bytes only\)"):
        write_shard(task_of(tmp_path, files), ignore)
    assert list((tmp_path / "work").iterdir()) == []


def test_bad_files_are_noted_and_the_rest_is_packed_where_the_task_skips_them(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    for path in ("c0/0.jpg", "c0/upper.JPEG"):
        (tmp_path / "tree" / path).unlink()
    told: list[tuple[int, int]] = []
    receipt = write_shard(task_of(tmp_path, files, skip_bad=True), lambda *what: told.append(what))
    assert [(item.path, item.reason) for item in receipt.skipped] == [
        (path, "the file has vanished since the scan") for path in ("c0/0.jpg", "c0/upper.JPEG")
    ]
    assert (receipt.entry.samples, receipt.labels) == (5, {0: 2, 1: 3})
    assert sum(number for number, _ in told) == 7


def test_a_shard_without_a_sample_is_the_end_mark_alone(tmp_path: Path, files: dict[str, bytes]) -> None:
    for path in files:
        (tmp_path / "tree" / path).write_bytes(b"")
    task = task_of(tmp_path, files, skip_bad=True, sizes=numbers_of([0] * 7))
    receipt = write_shard(task, ignore)
    assert (receipt.entry.samples, receipt.entry.bytes, receipt.labels, receipt.fields) == (0, 1024, {}, [])
    assert {item.reason for item in receipt.skipped} == {"empty file"}


def test_a_key_that_no_reader_gives_back_is_our_own_mistake(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="not a key"):
        write_shard(task_of(tmp_path, files, keys=Strings.of([b"a.b"] * 7)), ignore)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_work_folder_that_is_gone_is_told(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "work").rmdir()
    (tmp_path / "work").write_bytes(b"")
    with pytest.raises(DestinationError, match=r"work/t-000000.tar: a file already exists at this path"):
        write_shard(task_of(tmp_path, files), ignore)


@pytest.mark.parametrize(
    ("paths", "texts"),
    [
        ([b"a.jpg", b"b/c.jpg"], ["a.jpg", "b/c.jpg"]),
        ([b"a.jpg", b"b\\c.jpg"], ["a.jpg", "b\\\\c.jpg"]),
        ([b"a.jpg", "é.jpg".encode(), b"\xff.jpg"], ["a.jpg", "é.jpg", "\\xff.jpg"]),
        ([], []),
    ],
)
def test_paths_become_texts_of_the_index(paths: list[bytes], texts: list[str]) -> None:
    assert texts_of_paths(Strings.of(paths)).texts() == texts
