"""webdataset and what reads its format: both ways."""

from __future__ import annotations

import itertools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit

wds = pytest.importorskip("webdataset")

pytestmark = [  # its own reader leaves files open
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def shards(tree: Path, tmp_path: Path) -> str:
    shardkit.pack(tree, tmp_path / "shards" / "all")
    return str(tmp_path / "shards" / "all")


def keyed(samples: Any) -> dict[str, tuple[bytes, bytes]]:
    return {sample["__key__"]: (sample["jpg"], sample["cls"]) for sample in samples}


def test_the_samples_are_those_of_webdatasets_own_reader(shards: str) -> None:
    pipe = shardkit.dataset(shards).to_webdataset()
    theirs = wds.WebDataset(pipe.urls, shardshuffle=False)
    assert list(keyed(pipe).items()) == list(keyed(theirs).items())
    assert len(pipe) == 12


def test_its_methods_go_on_from_it(shards: str) -> None:
    pipe = shardkit.dataset(shards).to_webdataset().shuffle(5).decode("rgb8").to_tuple("jpg", "cls").batched(5)
    batches = list(pipe)
    assert [len(images) for images, _ in batches] == [5, 5, 2]
    assert batches[0][0][0].shape == (30, 40, 3)
    assert sorted(itertools.chain.from_iterable(labels for _, labels in batches)) == [0] * 5 + [1] * 7


def test_it_is_the_source_of_a_pipeline(shards: str) -> None:
    pipe = wds.DataPipeline(shardkit.dataset(shards).to_webdataset(), wds.to_tuple("__key__", "cls"))
    assert sorted(pipe) == sorted(
        (key, cls) for key, (_, cls) in keyed(shardkit.dataset(shards).to_webdataset()).items()
    )


def test_decoded_samples_and_batches_pass_through(shards: str) -> None:
    decoded = list(shardkit.dataset(shards).decode(size=8).to_webdataset().to_tuple("jpg", "cls"))
    assert decoded[0][0].shape == (8, 8, 3) and isinstance(decoded[0][1], int)
    batches = list(shardkit.dataset(shards).decode(size=8).batch(6).to_webdataset())
    assert [batch.images.shape for batch in batches] == [(6, 8, 8, 3)] * 2


def test_each_iteration_is_the_next_epoch(shards: str) -> None:
    data = shardkit.dataset(shards, shuffle=6, lanes=1, seed=1)
    pipe = data.to_webdataset()
    epochs = [[sample["__key__"] for sample in pipe] for _ in range(2)]
    plain = [sample["__key__"] for sample in shardkit.dataset(shards, shuffle=6, lanes=1, seed=1).repeat(2)]
    assert epochs[0] + epochs[1] == plain and epochs[0] != epochs[1]


def test_workers_share_the_samples_and_know_the_epoch(shards: str) -> None:
    pytest.importorskip("torch")
    pipe = shardkit.dataset(shards, shuffle=6, lanes=1).to_webdataset().to_tuple("__key__")
    loader = wds.WebLoader(pipe, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    epochs = [[key for (key,) in loader] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) and len(set(epochs[0])) == 12
    assert epochs[0] != epochs[1]


def test_all_that_webdataset_writes_is_passed_on(tmp_path: Path, draw_image: Any) -> None:
    path = str(tmp_path / "theirs-000000.tar")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    with wds.TarWriter(path) as sink:
        for n in range(3):
            sample = {
                "__key__": f"dir/s{n}", "jpg": draw_image(n), "cls": n, "txt": f"été {n}", "json": {"n": n},
                "npy": array + n, "seg.png": draw_image(n, format="PNG"), "bin": bytes([n]),
            }  # fmt: skip
            sink.write(sample)
    theirs = list(wds.WebDataset([path], shardshuffle=False))
    ours = list(shardkit.dataset(path).to_webdataset())
    ignored = {"__url__", "__local_path__"}
    for one, other in zip(ours, theirs, strict=True):
        assert {k: v for k, v in one.items() if k not in ignored} == {
            k: v for k, v in other.items() if k not in ignored
        }
    decoded = next(iter(shardkit.dataset(path).decode(size=8)))
    assert (decoded["txt"], decoded["json"], decoded["cls"]) == ("été 0", {"n": 0}, 0)
    np.testing.assert_array_equal(decoded["npy"], array)


def test_hugging_face_datasets_reads_what_was_packed(shards: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    urls = shardkit.dataset(shards).to_webdataset().urls
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": urls}, split="train", streaming=True, cache_dir=str(tmp_path)
    )
    found = {row["__key__"]: row["cls"] for row in loaded}
    assert found == {key: int(cls) for key, (_, cls) in keyed(shardkit.dataset(shards).to_webdataset()).items()}


def test_torchdata_reads_what_was_packed(shards: str) -> None:
    nodes = pytest.importorskip("torchdata.nodes")
    data = shardkit.dataset(shards).decode(size=8).batch(6).to_torch()
    node = nodes.IterableWrapper(data)
    assert [tuple(batch.images.shape) for batch in node] == [(6, 8, 8, 3)] * 2


RAY = """
import sys, ray, shardkit
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
tar, tfrecord = (shardkit.dataset(name).to_webdataset().urls for name in sys.argv[1:])
rows = ray.data.read_webdataset(tar).take_all()
print(sorted((row["__key__"], int(row["cls"])) for row in rows))
rows = ray.data.read_tfrecords(tfrecord).take_all()
print(sorted((row["image/key"].decode(), row["image/class/label"]) for row in rows))
print({row["image/encoded"][:2] for row in rows})
"""


def test_ray_reads_what_was_packed(shards: str, tree: Path, tmp_path: Path, run_python: Any) -> None:
    if not (find_spec("ray") and find_spec("pandas")):
        pytest.skip("ray[data] is not installed")
    shardkit.pack(tree, tmp_path / "tfrecord" / "all", format="tfrecord")
    run = run_python("-c", RAY, shards, str(tmp_path / "tfrecord" / "all"), cwd=tmp_path)
    want = str(sorted((sample["__key__"], sample["cls"]) for sample in shardkit.dataset(shards)))
    assert run.stdout.splitlines()[-3:] == [want, want, "{b'\\xff\\xd8'}"]
