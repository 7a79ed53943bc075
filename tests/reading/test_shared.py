"""dataset(shared=…): what the processes of a machine fetch and decode once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading.far import files_of, put, told, uploaded

import shardkit
from shardkit.errors import UsageError
from shardkit.images.decoder import ImageDecoder
from shardkit.reading.batches import shared as shared_batches
from shardkit.reading.blocks.fetch_ahead import DENSE_SHARE
from shardkit.storage.node import place
from shardkit.storage.node.client import MEMORY_BYTES, open_node
from shardkit.storage.node.memory import Memory

pytestmark = pytest.mark.skipif(not place.AVAILABLE, reason="needs sealed memory")

Requests = list[tuple[str, str, int, int]]


ENDINGS = (".json", ".parquet")
"""Of the files of a dataset that are no shards."""


@pytest.fixture
def meeting(tmp_path: Path) -> Iterator[str]:
    """A folder at which this process serves until the end of the test."""
    node = open_node(str(tmp_path / "meet"), MEMORY_BYTES)
    yield str(tmp_path / "meet")
    assert node is not None


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each part of a batch that is decoded from here on."""
    counts: list[int] = []
    decode = ImageDecoder.batch_into

    def counting(self: ImageDecoder, datas: Any, *others: Any) -> Any:
        counts.append(len(datas))
        return decode(self, datas, *others)

    monkeypatch.setattr(ImageDecoder, "batch_into", counting)
    return counts


def shard_bytes(requests: Requests) -> int:
    return sum(size for kind, name, _, size in requests if kind == "read" and not name.endswith(ENDINGS))


@pytest.mark.parametrize("kind", ["tar", "tfrecord", "gzip", "fields-tar", "fields-tfrecord"])
@pytest.mark.parametrize("shuffle", [0, 30])
def test_what_one_reader_fetched_another_does_not(
    pairs: dict[str, tuple[str, str]], watched: Any, chunks: None, meeting: str, kind: str, shuffle: int
) -> None:
    near, far = pairs[kind]
    expected = list(map(told, shardkit.dataset(near, shuffle=shuffle)))
    requests: Requests = watched()
    assert list(map(told, shardkit.dataset(far, shuffle=shuffle, shared=meeting))) == expected
    read = shard_bytes(requests)
    size = sum(len(data) for name, data in files_of(near).items() if not name.endswith(ENDINGS))
    assert 0 < read <= size
    requests.clear()
    assert list(map(told, shardkit.dataset(far, shuffle=shuffle, shared=meeting))) == expected
    assert shard_bytes(requests) == 0


def test_eight_ranks_together_fetch_the_dataset_once(
    pairs: dict[str, tuple[str, str]], watched: Any, meeting: str
) -> None:
    near, far = pairs["tar"]
    requests: Requests = watched()

    def read(rank: int) -> list[str]:
        data = shardkit.dataset(far, shared=meeting, rank=rank, world_size=8, remainder="uneven")
        return [sample["__key__"] for sample in data]

    with ThreadPoolExecutor(8) as pool:
        keys = Counter(key for keys in pool.map(read, range(8)) for key in keys)
    assert set(keys.values()) == {1}
    assert len(keys) == 97
    assert shard_bytes(requests) <= 1.05 * shardkit.info(near).bytes


def test_a_sparse_selection_fetches_only_its_samples(
    pairs: dict[str, tuple[str, str]], watched: Any, meeting: str, monkeypatch: Any
) -> None:
    near, far = pairs["tar"]
    requests: Requests = watched()
    samples = list(shardkit.dataset(far, shared=meeting)[[3]])
    assert [sample["__key__"] for sample in samples] == [shardkit.dataset(near)[3]["__key__"]]
    assert shard_bytes(requests) * DENSE_SHARE < len(files_of(near)["x-000000.tar"])


def test_a_chunk_that_was_damaged_on_its_way_is_fetched_again(
    pairs: dict[str, tuple[str, str]], watched: Any, meeting: str
) -> None:
    near, far = pairs["tar"]
    asked: Counter[str] = Counter()

    def fault(name: str, start: int, data: bytes) -> bytes:
        asked[name] += name.endswith(".tar")
        return data if asked[name] != 1 else bytes(byte ^ 1 for byte in data)

    watched(fault)
    expected = list(map(told, shardkit.dataset(near)))
    for _ in range(2):
        assert list(map(told, shardkit.dataset(far, shared=meeting))) == expected


@pytest.mark.parametrize("far", [False, True], ids=["disk", "store"])
@pytest.mark.parametrize(
    "options",
    [
        {"size": 16},
        {"size": 16, "crop": "random", "flip": True},
        {"size": 16, "dtype": "float16", "label": "onehot", "layout": "chw"},
        {"views": {"global": (2, 16), "local": (3, 8)}},
        {"size": 16, "augment": shardkit.Augment(rotation_range=20)},
    ],
    ids=["plain", "random", "encoded", "views", "augmented"],
)
def test_equal_batches_are_decoded_once(
    pairs: dict[str, tuple[str, str]], meeting: str, monkeypatch: Any, far: bool, options: dict[str, Any]
) -> None:
    taken: list[Any] = []
    take = shared_batches.SharedBatches.take

    def noting(self: Any, *drawn: Any) -> Any:
        taken.append(take(self, *drawn))
        return taken[-1]

    monkeypatch.setattr(shared_batches.SharedBatches, "take", noting)

    def read(**more: Any) -> list[Any]:
        return list(shardkit.dataset(pairs["tar"][far], shuffle=30, seed=3, **more).decode(**options).batch(10))

    for turn in range(2):
        for got, expected in zip(read(shared=meeting), read(), strict=True):
            same(got, expected)
        kinds = {type(one) for one in taken}
        assert kinds == ({dict} if turn else {shared_batches.Claim})
        taken.clear()


def test_batches_of_buckets_are_decoded_once_for_equal_shapes(
    tmp_path: Path, draw_image: Any, meeting: str, decoded: list[int]
) -> None:
    folder = tmp_path / "tree" / "a"
    folder.mkdir(parents=True)
    for number in range(40):
        (folder / f"{number}.jpg").write_bytes(draw_image(number, size=(30 + number, 40)))
    shardkit.pack(tmp_path / "tree", tmp_path / "x")

    def read(shapes: list[tuple[int, int]], **options: Any) -> list[Any]:
        data = shardkit.dataset(tmp_path / "x", shuffle=9, **options).buckets(shapes)
        return list(data.decode(flip=True).batch(8))

    for shapes in ([(16, 16), (16, 24)], [(16, 16), (16, 23)]):
        expected = read(shapes)
        decoded.clear()
        for _ in range(3):
            for got, right in zip(read(shapes, shared=meeting), expected, strict=True):
                same(got, right)
        assert sum(decoded) == 40


def same(got: Any, expected: Any) -> None:
    assert got.keys == expected.keys
    assert np.array_equal(got.labels, expected.labels)
    assert got.labels.dtype == expected.labels.dtype
    arrays = [(got.images, expected.images)]
    if isinstance(got.images, dict):
        assert list(got.images) == list(expected.images)
        arrays = [(got.images[name], expected.images[name]) for name in got.images]
    for one, other in arrays:
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.array_equal(one, other)


def test_a_shared_batch_belongs_to_who_got_it(pairs: dict[str, tuple[str, str]], meeting: str) -> None:
    def first() -> Any:
        return next(iter(shardkit.dataset(pairs["tar"][0], shared=meeting).decode(size=16).batch(10)))

    expected = first().images.copy()
    for _ in range(2):
        batch = first()
        assert np.array_equal(batch.images, expected)
        batch.images[:] = 0


def test_functions_are_called_by_each_reader(pairs: dict[str, tuple[str, str]], meeting: str, decoded: Any) -> None:
    called: list[int] = []

    def read() -> int:
        data = shardkit.dataset(pairs["tar"][0], shared=meeting).decode(size=16).batch(10)
        return sum(1 for _ in data.map(lambda batch: called.append(len(batch.keys)) or batch))

    assert [read(), read()] == [10, 10]
    assert (sum(called), sum(decoded)) == (2 * 97, 97)


@pytest.mark.parametrize(
    "other",
    [
        {"size": 17},
        {"size": 16, "exact": True},
        {"size": 16, "crop": "random"},
        {"size": 16, "dtype": "float32"},
        {"size": 16, "augment": shardkit.Augment(preprocessing_function=lambda image: image)},
    ],
    ids=["size", "exact", "crop", "dtype", "function"],
)
def test_other_options_are_decoded_again(
    pairs: dict[str, tuple[str, str]], meeting: str, monkeypatch: Any, other: dict[str, Any]
) -> None:
    data = shardkit.dataset(pairs["tar"][0], shared=meeting)
    first = [batch.images.copy() for batch in data.decode(size=16).batch(10)]
    for _ in range(2):
        alone = list(shardkit.dataset(pairs["tar"][0]).decode(**other).batch(10))
        for got, expected in zip(data.decode(**other).batch(10), alone, strict=True):
            same(got, expected)
    assert len(first) == 10


def test_another_version_of_a_dataset_is_another_one(
    tmp_path: Path, draw_tree: Any, meeting: str, decoded: list[int]
) -> None:
    """With the same names, and the same plan: files of the same sizes would give that."""
    found = []
    for version in (0, 1):
        shardkit.pack(draw_tree(tmp_path / "tree", {"a": 20}, seed=1000 * version), tmp_path / "x", overwrite=True)
        far = uploaded(str(tmp_path / "x"))
        if version == 0:
            at = far
        folder = at.rpartition("/")[0]
        put(folder, files_of(str(tmp_path / "x")))
        data = shardkit.dataset(at, shared=meeting).decode(size=16).batch(10)
        got = list(data)
        for one, other in zip(got, shardkit.dataset(str(tmp_path / "x")).decode(size=16).batch(10), strict=True):
            same(one, other)
        found.append(got[0].images)
    assert not np.array_equal(*found)
    assert sum(decoded) == 2 * 2 * 20


def test_images_that_can_not_be_decoded_are_left_out_by_each_reader(
    tmp_path: Path, draw_tree: Any, meeting: str
) -> None:
    shardkit.pack(draw_tree(tmp_path / "tree", {"a": 20}), tmp_path / "x")
    damaged = bytearray((tmp_path / "x-000000.tar").read_bytes())
    damaged[damaged.index(b"\xff\xd8") + 200] ^= 255
    (tmp_path / "x-000000.tar").write_bytes(damaged)
    for _ in range(2):
        read = shardkit.dataset(tmp_path / "x", shared=meeting).decode(size=16, on_error="skip").batch(10)
        assert sum(len(batch.keys) for batch in read) == 19


def bad_batches() -> dict[str, bytes]:
    def described(text: str) -> bytes:
        return (len(text).to_bytes(8, "little") + text.encode()).ljust(64, b"\0") + bytes(64)

    return {
        "empty": b"",
        "noise": bytes(range(256)),
        "too long": (1 << 40).to_bytes(8, "little") + bytes(100),
        "no JSON": described("["),
        "another thing": described('{"a": 1}'),
        "deep": described("[" * 40),
        "objects": described('[["", "|O8", [1], 0]]'),
        "outside": described('[["", "|u1", [1000], 0]]'),
        "before": described('[["", "|u1", [1], -90]]'),
        "negative": described('[["", "|u1", [-1], 0]]'),
        "huge": described('[["", "|u1", [9223372036854775807, 9], 0]]'),
    }


@pytest.mark.parametrize("name", list(bad_batches()))
def test_a_batch_of_a_hostile_peer_is_decoded_here(name: str) -> None:
    assert shared_batches.opened(Memory.of([bad_batches()[name]])) is None


def test_without_memory_everything_is_read_alone(
    pairs: dict[str, tuple[str, str]], meeting: str, monkeypatch: Any, caplog: Any
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    near, far = pairs["tar"]
    expected = list(shardkit.dataset(near).decode(size=16).batch(10))
    monkeypatch.setattr(os, "memfd_create", full)
    for got, other in zip(shardkit.dataset(far, shared=meeting).decode(size=16).batch(10), expected, strict=True):
        same(got, other)
    assert caplog.text.count("no memory to share") == 1


@pytest.mark.parametrize("shared", [3, "", 1.5, b"folder"])
def test_shared_is_true_or_false_or_a_folder(shared: Any) -> None:
    with pytest.raises(UsageError, match="neither True or False nor a folder"):
        shardkit.dataset("x", shared=shared)


NOTING = """
import json, os, sys, time
import shardkit
from shardkit.storage import patient
from shardkit.storage.store import open_store

class Noting:
    def __init__(self, store):
        self.store, self.root = store, store.root
        self.info = store.info
    def pieces(self, name, start=0, end=None):
        for piece in self.store.pieces(name, start, end):
            with open(os.environ["NOTES"], "ab") as file:
                file.write(b"%s %d\\n" % (name.encode(), memoryview(piece).nbytes))
            yield piece

patient.open_store = lambda folder, options=None: Noting(open_store(folder, options))
"""

LOADER = """
data = shardkit.dataset(sys.argv[1], shuffle=int(sys.argv[2]), shared=json.loads(sys.argv[3])).decode(size=16).batch(5)
loader = data.to_torch().loader(num_workers=4)
for _ in range(2):
    print(json.dumps(sorted(key for batch in loader for key in batch.keys)), flush=True)
"""

READER = """
from shardkit.storage.node.client import open_node
data = shardkit.dataset(sys.argv[1], shuffle=20, shared=sys.argv[2], threads=2).decode(size=16).batch(4)
for batch in data:
    print(json.dumps(batch.keys), flush=True)
    if open_node(sys.argv[2], 1)._server is not None:
        print("serves", flush=True)
    time.sleep(0.02)
print("end", flush=True)
"""


def run_noting(code: str, notes: Path, *arguments: str, output: Path | None = None) -> subprocess.Popen[str]:
    home = str(Path(shardkit.__file__).parent.parent)
    environment = os.environ | {"NOTES": str(notes), "PYTHONPATH": home, "XDG_RUNTIME_DIR": str(notes.parent)}
    command = [sys.executable, "-W", "ignore", "-c", NOTING + code, *arguments]
    if output is None:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    with output.open("w") as file:
        return subprocess.Popen(command, stdout=file, text=True, env=environment)


@pytest.mark.parametrize("shuffle", [0, 30])
def test_the_workers_of_a_loader_fetch_each_byte_once(
    pairs: dict[str, tuple[str, str]], tmp_path: Path, shuffle: int
) -> None:
    pytest.importorskip("torch")
    near, _ = pairs["tar"]
    total = shardkit.info(near).bytes
    read = {}
    for shared in (None, False):
        notes = tmp_path / f"{shared}"
        notes.touch()
        done = run_noting(LOADER, notes, f"slow+file://{near}", str(shuffle), json.dumps(shared))
        epochs = [json.loads(line) for line in done.communicate(timeout=120)[0].splitlines()]
        assert done.returncode == 0
        assert all(len(set(keys)) == len(keys) == 97 for keys in epochs)
        lines = [line.split() for line in notes.read_text().splitlines()]
        read[shared] = [int(size) for name, size in lines if name.endswith(".tar")]
    assert sum(read[None]) <= 1.05 * 2 * total
    assert len(read[None]) < len(read[False])
    assert not os.listdir(tmp_path / "shardkit")


def test_no_sample_is_lost_or_doubled_when_the_server_is_killed(
    pairs: dict[str, tuple[str, str]], tmp_path: Path, keys_of: Callable[..., list[str]]
) -> None:
    near, _ = pairs["tar"]
    expected = keys_of(shardkit.dataset(near, shuffle=20))
    outputs = [tmp_path / f"output{number}" for number in range(4)]
    arguments = f"slow+file://{near}", str(tmp_path / "meet")
    readers = {output: run_noting(READER, tmp_path / "notes", *arguments, output=output) for output in outputs}
    for _ in range(3):  # kill whoever serves
        while not (serving := [output for output in readers if "serves" in output.read_text()]):
            assert all(reader.poll() is None for reader in readers.values())
            time.sleep(0.002)
        readers[serving[0]].send_signal(signal.SIGKILL)
        readers.pop(serving[0]).wait()
    ((output, last),) = readers.items()
    assert last.wait(120) == 0
    lines = output.read_text().splitlines()
    assert lines.pop() == "end"
    assert [key for line in lines if line != "serves" for key in json.loads(line)] == expected
