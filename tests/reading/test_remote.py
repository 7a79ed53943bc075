"""Shards in a store are read as those on a disk are: the same samples in the same order."""

from __future__ import annotations

import gzip
import io
import logging
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

import shardkit
from shardkit import DamagedError, DatasetError, ManifestError, NotFoundError, StorageError, UsageError
from shardkit.formats import tar
from shardkit.index import INTEGERS, ShardRows, read_columns, write_index
from shardkit.location import Location, locate
from shardkit.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry, encode_manifest
from shardkit.reading import ahead, remote
from shardkit.reading.options import Remote
from shardkit.storage import store as stores
from shardkit.storage.store import ObjectInfo, Store, open_store

KeysOf = Callable[[Any], list[str]]


def put(folder: Any, files: dict[str, bytes], options: Any = None) -> None:
    """Write objects by their names below a folder, a URL or Location."""
    store = open_store(folder if isinstance(folder, Location) else locate(folder), options)
    for name, data in files.items():
        store.put(name, io.BytesIO(data))


def files_of(prefix: str) -> dict[str, bytes]:
    """The files of a local dataset."""
    return {path.name: path.read_bytes() for path in sorted(Path(prefix).parent.glob(f"{Path(prefix).name}*"))}


def uploaded(prefix: str) -> str:
    """The files of a local dataset, copied to a store in memory; the prefix there."""
    folder = f"memory://{os.urandom(6).hex()}/some"
    put(folder, files_of(prefix))
    return f"{folder}/{Path(prefix).name}"


@pytest.fixture(scope="session")
def far(cars: str) -> str:
    """The dataset `cars` in a store in memory; the prefix."""
    return uploaded(cars)


@pytest.fixture(scope="session")
def pairs(small_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """The same 97 images as tar, TFRecord, gzip tar, and as samples of several fields: (local prefix, remote one)."""
    root = tmp_path_factory.mktemp("pairs")
    shardkit.pack(small_tree, root / "tar" / "x", max_count=20, workers=1)
    shardkit.pack(small_tree, root / "tfrecord" / "x", max_count=20, workers=1, format="tfrecord")
    for name in ("gzip", "fields"):
        (root / name).mkdir()
    for shard in (root / "tar").glob("*.tar"):
        (root / "gzip" / f"{shard.name}.gz").write_bytes(gzip.compress(shard.read_bytes()))
    shardkit.index_shards(str(root / "gzip" / "x-*.tar.gz"))
    tree = root / "tree"
    for image in small_tree.rglob("*.jpg"):
        beside = tree / image.relative_to(small_tree)
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(image.read_bytes())
        beside.with_suffix(".txt").write_text(f"this is {image.stem}", "utf-8")
    for form in ("tar", "tfrecord"):
        shardkit.pack(tree, root / f"fields-{form}" / "x", max_count=20, workers=1, fields="jpg,txt", format=form)
    names = ("tar", "tfrecord", "gzip", "fields-tar", "fields-tfrecord")
    return {name: (str(root / name / "x"), uploaded(str(root / name / "x"))) for name in names}


def drawn(count: int) -> str:
    """A dataset of `count` shards of one sample each, made by hand in a store in memory; the prefix."""
    files: dict[str, bytes] = {}
    rows: list[ShardRows] = []
    for n in range(count):
        data = np.random.default_rng(n).bytes(1000)
        pieces, (image, _), size = tar.encode_sample(f"a/{n:04}", [("jpg", data), ("cls", b"0")])
        files[f"x-{n:06}.tar"] = b"".join(pieces) + tar.END
        values = [0, 0, size, image, len(data), 0, 0, google_crc32c.value(data)]
        numbers = {name: np.array([value], INTEGERS[name]) for name, value in zip(INTEGERS, values, strict=True)}
        rows.append(ShardRows(f"x-{n:06}.tar", [f"a/{n:04}"], [f"a/{n:04}.jpg"], numbers))
    entries = [ShardEntry(name, 1, len(d), f"{google_crc32c.value(d):08x}") for name, d in files.items()]
    sink = io.BytesIO()
    write_index(sink, rows)
    files["x.parquet"] = sink.getvalue()
    index = IndexEntry("x.parquet", count, len(sink.getvalue()), f"{google_crc32c.value(sink.getvalue()):08x}")
    total = sum(entry.bytes for entry in entries)
    files["x.json"] = encode_manifest(
        Manifest(
            samples=count,
            bytes=total,
            classes=(ClassEntry("a", count),),
            fields=("cls", "jpg"),
            shards=tuple(entries),
            index=(index,),
            plan="1",
        )
    )
    folder = f"memory://{os.urandom(6).hex()}"
    put(folder, files)
    return f"{folder}/x"


@pytest.fixture(params=[None, 4096], ids=["whole", "chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks as they are, which hold a whole small shard, or of 4 KiB, with borders inside samples."""
    if request.param is not None:
        monkeypatch.setattr(ahead, "CHUNK_BYTES", request.param)
        monkeypatch.setattr(ahead, "GAP_BYTES", 600)


class Watched:
    """A store that notes each request. `fault(nth, name, data)` may change what is read."""

    def __init__(self, inside: Store, requests: list[tuple[str, str, int, int]], fault: Any = None) -> None:
        self.inside, self.requests, self.fault, self.root = inside, requests, fault, inside.root

    def info(self, name: str) -> ObjectInfo:
        self.requests.append(("info", name, 0, 0))
        return self.inside.info(name)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Any]:
        data = b"".join(bytes(piece) for piece in self.inside.pieces(name, start, end))
        self.requests.append(("read", name, start, len(data)))
        yield self.fault(name, start, data) if self.fault else data

    def put(self, *arguments: Any, **options: Any) -> None:
        self.inside.put(*arguments, **options)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.requests.append(("list", prefix, 0, 0))
        return self.inside.list(prefix)

    def delete(self, name: str) -> None:
        self.inside.delete(name)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str, int, int]]]:
    """Watches all stores from here on: gives the list that requests go to, as (kind, name, first byte, bytes)."""

    def watch(fault: Any = None) -> list[tuple[str, str, int, int]]:
        requests: list[tuple[str, str, int, int]] = []

        def opened(folder: Location, options: Any = None) -> Any:
            return Watched(stores.open_store(folder, options), requests, fault)

        monkeypatch.setattr(remote, "open_store", opened)
        return requests

    return watch


def told(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample without the place of its shard."""
    return {name: value for name, value in sample.items() if name != "__url__"}


@pytest.mark.parametrize("shuffle", [0, 10, 1000])
@pytest.mark.parametrize("form", ["tar", "tfrecord", "gzip", "fields-tar", "fields-tfrecord"])
def test_samples_and_order_are_those_of_the_local_shards(
    pairs: dict[str, tuple[str, str]], form: str, shuffle: int, chunks: None
) -> None:
    near, far = (shardkit.dataset(source, shuffle=shuffle, seed=3) for source in pairs[form])
    assert (len(far), far.classes, far.fields) == (len(near), near.classes, near.fields)
    for _ in range(2):
        assert [told(sample) for sample in far] == [told(sample) for sample in near]
    assert next(iter(far))["__url__"].startswith("memory://")


def test_batches_are_those_of_the_local_shards(pairs: dict[str, tuple[str, str]], chunks: None) -> None:
    options: dict[str, Any] = {"size": 8, "crop": "random", "flip": True}
    for form in ("tar", "tfrecord"):
        near, far = (shardkit.dataset(s, shuffle=30).decode(**options).batch(8) for s in pairs[form])
        for (images, labels), (others, other_labels) in zip(near, far, strict=True):
            assert np.array_equal(images, others)
            assert np.array_equal(labels, other_labels)


@pytest.mark.parametrize("source", ["", ".json", "-*.tar", "-00000[0-4].tar", "-{000000..000004}.tar", "-000001.tar"])
def test_a_source_on_a_store_means_what_it_means_on_a_disk(cars: str, far: str, source: str, keys_of: KeysOf) -> None:
    assert keys_of(shardkit.dataset(far + source)) == keys_of(shardkit.dataset(cars + source))


def test_a_list_of_urls_and_a_folder_are_sources(cars: str, far: str, keys_of: KeysOf) -> None:
    names = [f"-{number:06}.tar" for number in (3, 0)]
    near, there = ([prefix + name for name in names] for prefix in (cars, far))
    assert keys_of(shardkit.dataset(there)) == keys_of(shardkit.dataset(near))
    folder = far.rpartition("/")[0]
    assert (
        keys_of(shardkit.dataset(folder)) == keys_of(shardkit.dataset(folder + "/")) == keys_of(shardkit.dataset(far))
    )
    assert keys_of(shardkit.dataset([f"{far}-00000[12].tar"])) == keys_of(shardkit.dataset(f"{cars}-00000[12].tar"))


def test_shards_are_found_by_the_manifest_without_a_listing(far: str, watched: Any, keys_of: KeysOf) -> None:
    requests = watched()
    for source in ("", "-*.tar", "-{000000..000004}.tar"):
        assert len(keys_of(shardkit.dataset(far + source))) == 97
    assert [kind for kind, *_ in requests if kind == "list"] == []


@pytest.mark.parametrize(
    "source", ["memory://nowhere/train", "memory://nowhere/t-*.tar", "memory://nowhere/train.json"]
)
def test_what_is_not_there_is_told(source: str) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        len(shardkit.dataset(source))


def test_paths_and_urls_in_one_list_are_refused(cars: str, far: str) -> None:
    with pytest.raises(UsageError, match="both paths of this machine and URLs"):
        len(shardkit.dataset([f"{cars}-000000.tar", f"{far}-000001.tar"]))


def test_two_datasets_in_one_folder_are_not_mixed_up(cars: str, pairs: dict[str, tuple[str, str]]) -> None:
    far = uploaded(cars)
    put(locate(far).parent, files_of(pairs["tar"][0]))
    assert len(shardkit.dataset(far)) == 97
    with pytest.raises(UsageError, match="the folder holds 2 datasets: cars, x"):
        len(shardkit.dataset(far.rpartition("/")[0]))
    with pytest.raises(UsageError, match="more than one dataset"):
        len(shardkit.dataset([f"{far}-000000.tar", far.rpartition("/")[0] + "/x-000000.tar"]))


def test_views_and_random_access_work(cars: str, far: str) -> None:
    near, there = shardkit.dataset(cars), shardkit.dataset(far)
    assert told(there[5]) == told(near[5])
    assert told(there["red/007"]) == told(near["red/007"])
    assert told(there.decode(size=8)[3])["jpg"].shape == (8, 8, 3)
    for view in (lambda d: d.select("red"), lambda d: d[10:40:3], lambda d: d.shuffle(20).take(30).skip(4)):
        assert list(map(told, view(there))) == list(map(told, view(near)))
    weighted = [list(map(told, d.balance().shuffle(20))) for d in (there, near)]
    assert weighted[0] == weighted[1]


def test_datasets_of_a_store_and_a_disk_are_put_together(cars: str, far: str, keys_of: KeysOf) -> None:
    near, there = shardkit.dataset(cars), shardkit.dataset(far)
    assert keys_of(shardkit.concat([near, there]).shuffle(40)) == keys_of(shardkit.concat([near, near]).shuffle(40))
    mixed = (shardkit.mix([d.select("red").shuffle(9), near]) for d in (there, near))
    assert keys_of(next(mixed)) == keys_of(next(mixed))


def test_ranks_and_workers_share_the_epoch(cars: str, far: str, keys_of: KeysOf) -> None:
    for rank in range(2):
        options = {"shuffle": 16, "rank": rank, "world_size": 2, "lanes": 2}
        assert keys_of(shardkit.dataset(far, **options)) == keys_of(shardkit.dataset(cars, **options))
    batches = shardkit.dataset(far, shuffle=16).batch(8)
    parts = [[item for _, item in batches.run(0, worker=worker, workers=3)] for worker in range(3)]
    together = keys_of([batch for turn in zip(*parts, strict=False) for batch in turn])
    assert together == keys_of(shardkit.dataset(cars, shuffle=16))[: len(together)]


@pytest.mark.parametrize("shuffle", [0, 30])
def test_an_epoch_goes_on_in_the_middle(far: str, shuffle: int, keys_of: KeysOf) -> None:
    whole = keys_of(shardkit.dataset(far, shuffle=shuffle))
    first = shardkit.dataset(far, shuffle=shuffle)
    items = iter(first)
    begun = [next(items)["__key__"] for _ in range(41)]
    then = shardkit.dataset(far, shuffle=shuffle)
    then.load_state_dict(first.state_dict())
    assert begun + keys_of(then) == whole


def keys_in_process(data: shardkit.Dataset, keys: Any) -> None:
    keys.put([sample["__key__"] for sample in data])


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_dataset_goes_to_other_processes(
    s3_server: Any, cars: str, method: str, keys_of: KeysOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3_server.url, files_of(cars), s3_server.options)
    data = shardkit.dataset(f"{s3_server.url}/cars", shuffle=20, storage_options=s3_server.options)
    assert keys_of(data) == keys_of(shardkit.dataset(cars, shuffle=20))
    data.set_epoch(0)
    monkeypatch.setenv("PYTHONPATH", str(Path(shardkit.__file__).parent.parent))
    context = multiprocessing.get_context(method)
    keys = context.SimpleQueue()
    process = context.Process(target=keys_in_process, args=(data, keys))
    process.start()
    try:
        assert keys.get() == keys_of(shardkit.dataset(cars, shuffle=20))
        process.join(30)
        assert process.exitcode == 0
    finally:
        process.kill()


def test_shards_are_streamed_from_s3(s3_server: Any, pairs: dict[str, tuple[str, str]]) -> None:
    put(s3_server.url + "/deep/folder", files_of(pairs["tar"][0]), s3_server.options)
    near = [told(sample) for sample in shardkit.dataset(pairs["tar"][0], shuffle=20)]
    for source in ("x", "x-*.tar"):
        url = f"{s3_server.url}/deep/folder/{source}"
        assert [told(s) for s in shardkit.dataset(url, shuffle=20, storage_options=s3_server.options)] == near


def test_shards_are_streamed_from_a_web_server(http_folder: Any, cars: str, keys_of: KeysOf) -> None:
    for path in sorted(Path(cars).parent.glob("cars*")):
        (http_folder.folder / path.name).write_bytes(path.read_bytes())
    options: Any = http_folder.options
    for source in ("cars", "cars.json", "cars-*.tar", "cars-{000000..000004}.tar"):
        data = shardkit.dataset(f"{http_folder.url}/{source}", shuffle=20, storage_options=options)
        assert keys_of(data) == keys_of(shardkit.dataset(cars, shuffle=20))
    for source in ("*.tar", "other-*.tar", "other"):
        with pytest.raises((UsageError, NotFoundError), match="name the manifest"):
            len(shardkit.dataset(f"{http_folder.url}/{source}", storage_options=options))


# ---- shards without a manifest


@pytest.fixture(scope="session")
def far_foreign(foreign: str) -> str:
    """The shards `foreign` in a store in memory; a glob."""
    return uploaded(foreign.replace("-*.tar", "")) + "-*.tar"


@pytest.mark.parametrize("shuffle", [0, 8])
def test_shards_without_a_manifest_are_streamed(
    foreign: str, far_foreign: str, shuffle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "CHUNK_BYTES", 1000)
    near, far = shardkit.dataset(foreign, shuffle=shuffle), shardkit.dataset(far_foreign, shuffle=shuffle)
    for _ in range(2):
        assert [told(sample) for sample in far] == [told(sample) for sample in near]
    with pytest.raises(DatasetError, match="shardkit index"):
        len(far)


def test_they_are_dealt_to_workers(far_foreign: str, keys_of: KeysOf) -> None:
    data = shardkit.dataset(far_foreign)
    parts = [keys_of(item for _, item in data.run(0, worker=worker, workers=2)) for worker in range(2)]
    assert sorted(parts[0] + parts[1]) == [f"n{number:02}" for number in range(50)]


def test_gzip_and_tfrecord_streams_are_read_from_a_store(pairs: dict[str, tuple[str, str]], keys_of: KeysOf) -> None:
    for form, ending in (("gzip", "tar.gz"), ("tfrecord", "tfrecord")):
        near = pairs[form][0]
        bare = f"memory://{os.urandom(6).hex()}"
        put(bare, {name: data for name, data in files_of(near).items() if name.startswith("x-")})
        assert keys_of(shardkit.dataset(f"{bare}/x-*.{ending}")) == keys_of(shardkit.dataset(near))


def test_a_shard_that_is_gone_is_told(far_foreign: str) -> None:
    with pytest.raises(NotFoundError, match=r"other-005\.tar"):
        list(shardkit.dataset(far_foreign.replace("*", "{000..009}")))


def test_a_cut_shard_is_told(far_foreign: str, foreign: str) -> None:
    bare = f"memory://{os.urandom(6).hex()}"
    data = Path(foreign).with_name("other-000.tar").read_bytes()
    put(locate(bare), {"a-000.tar": data[: len(data) // 2]})
    with pytest.raises(DamagedError, match=r"a-000\.tar"):
        list(shardkit.dataset(f"{bare}/a-000.tar"))


# ---- what is asked for


def test_a_first_batch_needs_a_few_ranges(tmp_path: Path, draw_tree: Any, watched: Any, monkeypatch: Any) -> None:
    draw_tree(tmp_path / "tree", {"a": 150, "b": 150}, size=(200, 200))
    manifest = shardkit.pack(tmp_path / "tree", tmp_path / "x", max_count=75, workers=1)
    assert isinstance(manifest, shardkit.Manifest)
    far, requests = uploaded(str(tmp_path / "x")), watched()
    monkeypatch.setattr(ahead, "CHUNK_BYTES", 64 << 10)
    for shuffle in (0, 64):
        requests.clear()
        batches = iter(shardkit.dataset(far, shuffle=shuffle, ahead_bytes=256 << 10).batch(8))
        next(batches)
        batches.close()
        read = sum(size for kind, name, _, size in requests if kind == "read" and name.endswith(".tar"))
        assert 0 < read < manifest.bytes / 3
        assert {name for kind, name, *_ in requests if kind == "read"} >= {"x.json", "x.parquet"}


def test_an_epoch_fetches_each_byte_about_once(pairs: dict[str, tuple[str, str]], watched: Any, chunks: None) -> None:
    near, far = pairs["tar"]
    total = sum(path.stat().st_size for path in Path(near).parent.glob("x-*.tar"))
    requests = watched()
    for shuffle in (0, 20, 1000):
        requests.clear()
        assert len(list(shardkit.dataset(far, shuffle=shuffle))) == 97
        assert sum(size for kind, name, _, size in requests if kind == "read" and name.endswith(".tar")) <= total
        assert len([kind for kind, *_ in requests if kind == "info"]) == 5


def test_a_sparse_selection_fetches_only_its_samples(pairs: Any, watched: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(ahead, "GAP_BYTES", 100)
    far = pairs["tar"][1]
    requests = watched()
    chosen = list(shardkit.dataset(far)[::10])
    assert len(chosen) == 10
    read = sum(size for kind, name, _, size in requests if kind == "read" and name.endswith(".tar"))
    assert read == sum(len(sample["jpg"]) for sample in chosen)


def test_memory_is_bounded_with_a_thousand_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    flows: list[Any] = []

    class Flow(ahead._Flow):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            flows.append(self)

    monkeypatch.setattr(ahead, "_Flow", Flow)
    bound, keys, most, given = 64 << 10, set(), 0, 0
    for sample in shardkit.dataset(drawn(1000), shuffle=100, ahead_bytes=bound):
        keys.add(sample["__key__"])
        given += len(sample["jpg"])
        most = max(most, flows[0].ahead.asked - given)
    assert len(keys) == 1000
    assert 0 < most <= bound + bound / 8
    assert threading.active_count() < 100


# ---- what goes wrong


def spoil(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("form", ["tar", "tfrecord", "fields-tar", "fields-tfrecord"])
@pytest.mark.parametrize("decode", [False, True])
def test_wrong_bytes_are_fetched_once_more(pairs: Any, watched: Any, form: str, decode: bool, caplog: Any) -> None:
    bad: set[str] = set()

    def fault(name: str, start: int, data: bytes) -> bytes:
        if name.startswith("x-") and name not in bad:
            bad.add(name)
            return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :]
        return data

    near, far = pairs[form]
    watched(fault)
    caplog.set_level(logging.WARNING)
    chain: Any = (lambda d: d.decode(size=8)) if decode else (lambda d: d)
    found, right = chain(shardkit.dataset(far, shuffle=20)), chain(shardkit.dataset(near, shuffle=20))
    assert [s["__key__"] for s in found] == [s["__key__"] for s in right]
    found.set_epoch(0), right.set_epoch(0)
    bad.clear()
    assert all(np.array_equal(a["jpg"], b["jpg"]) for a, b in zip(found, right, strict=True))
    assert len(bad) == 5
    if form in ("tar", "tfrecord"):
        assert "fetched once more" in caplog.text


@pytest.mark.parametrize("form", ["tar", "tfrecord", "fields-tar", "fields-tfrecord"])
def test_bytes_that_stay_wrong_are_damage(pairs: Any, watched: Any, form: str) -> None:
    watched(lambda name, start, data: bytes(len(data)) if name.startswith("x-") else data)
    with pytest.raises(DamagedError, match=r"memory://.*x-00000\d\.t"):
        list(shardkit.dataset(pairs[form][1]))
    with pytest.raises(DamagedError):
        list(shardkit.dataset(pairs[form][1]).decode(size=8, on_error="skip").batch(4))


def test_an_epoch_is_whole_over_a_store_that_fails_often(cars: str, far: str, keys_of: KeysOf) -> None:
    faults = {"refused": 0.1, "reset": 0.2, "short": 0.1, "seed": 4}
    data = shardkit.dataset(f"faulty+{far}", shuffle=20, storage_options=faults)
    assert keys_of(data) == keys_of(shardkit.dataset(cars, shuffle=20))


@pytest.mark.timeout(60)
def test_a_store_that_stops_answering_is_an_error_in_time(far: str, watched: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(ahead, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(remote, "GRACE_SECONDS", 0.1)
    stop = threading.Event()

    def fault(name: str, start: int, data: bytes) -> bytes:
        if name.endswith(".tar"):
            stop.wait(30)
        return data

    watched(fault)
    try:
        for make in (lambda d: iter(d), lambda d: iter(d.decode(size=8).batch(4)), lambda d: iter([d[3]])):
            with pytest.raises(StorageError, match=r"did not answer within 0\.2 seconds"):
                next(make(shardkit.dataset(far, timeout_seconds=0.2)))
    finally:
        stop.set()


@pytest.mark.timeout(60)
def test_a_store_that_always_fails_is_an_error_in_time(far: str) -> None:
    with pytest.raises(StorageError, match="given up after"):
        list(shardkit.dataset(f"faulty+{far}", storage_options={"refused": 1.0}, timeout_seconds=0.3))


def test_a_shard_of_another_size_does_not_fit_its_manifest(cars: str) -> None:
    far = uploaded(cars)
    name = f"{locate(far).name}-000001.tar"
    data = Path(cars).with_name(name).read_bytes()
    put(locate(far).parent, {name: data + bytes(512)})
    with pytest.raises(ManifestError, match=rf"{name}: the shard has {len(data) + 512} bytes"):
        list(shardkit.dataset(far))


def test_a_shard_with_other_content_is_seen_by_verify(cars: str) -> None:
    far = uploaded(cars)
    name = f"{locate(far).name}-000001.tar"
    data = Path(cars).with_name(name).read_bytes()
    put(locate(far).parent, {name: spoil(data)})
    with pytest.raises(ManifestError, match=rf"{name}: the shard's CRC-32C is"):
        list(shardkit.dataset(far, verify=True))


def test_a_missing_shard_is_told(cars: str) -> None:
    far = uploaded(cars)
    open_store(locate(far).parent).delete("cars-000002.tar")
    with pytest.raises(NotFoundError, match=r"cars-000002\.tar"):
        list(shardkit.dataset(far))


def test_an_index_that_is_not_the_manifests_is_refused(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    far = uploaded(cars)
    folder, data = locate(far).parent, Path(cars + ".parquet").read_bytes()
    put(folder, {"cars.parquet": spoil(data)})
    with pytest.raises(ManifestError, match=r"cars\.parquet: the index is not the one"):
        list(shardkit.dataset(far))
    monkeypatch.setattr(remote, "WHOLE_INDEX_BYTES", 10)
    put(folder, {"cars.parquet": data[:-1]})
    with pytest.raises(ManifestError, match=r"cars\.parquet: the index is not the one"):
        list(shardkit.dataset(far))


def test_of_a_large_index_only_parts_are_read(watched: Any, monkeypatch: Any) -> None:
    numbers = {name: np.arange(2000, dtype=dtype) for name, dtype in INTEGERS.items()}
    keys = [f"{n * 7919 % 2000:05}" for n in range(2000)]
    sink = io.BytesIO()
    write_index(sink, [ShardRows(f"x-{n}.tar", [f"{n}/{key}" for key in keys], keys, numbers) for n in range(40)])
    data, place = sink.getvalue(), locate(f"memory://{os.urandom(6).hex()}")
    put(place, {"x.parquet": data})
    requests = watched()
    monkeypatch.setattr(remote, "WHOLE_INDEX_BYTES", 10)
    monkeypatch.setattr(remote.RangedFile, "BLOCK", 1024)
    entry = IndexEntry("x.parquet", 40, len(data), f"{google_crc32c.value(data):08x}")
    with remote.open_index(remote.Objects(place, Remote()), entry) as file:
        columns = read_columns(file, 17, ["key", "offset"])
    assert columns["key"].to_pylist() == [f"17/{key}" for key in keys]
    assert columns["offset"].tolist() == list(range(2000))
    assert 0 < sum(count for kind, _, _, count in requests if kind == "read") < len(data) / 4


# ---- safety


def test_a_manifest_can_point_nowhere_else(cars: str) -> None:
    text = Path(cars + ".json").read_text("utf-8")
    for name in ("../secret.tar", "/etc/passwd", "https://elsewhere/x.tar", ".."):
        far = uploaded(cars)
        evil = text.replace("cars-000001.tar", name).encode()
        put(locate(far).parent, {"cars.json": evil})
        with pytest.raises(ManifestError, match="is not a plain file name"):
            list(shardkit.dataset(far))


def test_options_are_seen_nowhere_but_in_a_pickle(far: str, s3_server: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "sEcReT-kEy"
    options = s3_server.options | {"secret_access_key": secret}
    data = shardkit.dataset(f"{s3_server.url}/train", shuffle=20, storage_options=options)
    with pytest.raises(shardkit.ShardkitError) as caught:
        list(data)
    near = shardkit.dataset(f"faulty+{far}", storage_options={"token": secret, "refused": 0.0})
    seen = [repr(data), repr(data.content), repr(data.content.remote), str(caught.value), repr(caught.value)]
    seen += [caplog.text, repr(data.reading), repr(near)]
    assert not [text for text in seen if secret in text]
    assert secret.encode() in pickle.dumps(data)


def test_the_state_of_a_remote_dataset_is_that_of_the_local_one(cars: str, far: str) -> None:
    near, there = shardkit.dataset(cars, shuffle=20), shardkit.dataset(far, shuffle=20)
    assert there.state_dict() == near.state_dict()
    assert "memory" not in repr(there.state_dict())


@pytest.mark.parametrize(
    "options",
    [
        {"storage_options": "key=1"},
        {"storage_options": {1: 2}},
        {"cache_bytes": "1GB"},
        {"cache": "x", "cache_bytes": "much"},
        {"ahead_bytes": 0},
        {"timeout_seconds": 0},
        {"timeout_seconds": float("inf")},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        shardkit.dataset("memory://x/y", **options)
