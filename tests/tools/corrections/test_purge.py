"""`delete(purge=True)`: no byte of a sample is left, and everything else is as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_crashes import killed_at

import shardkit
from shardkit.errors import DestinationError, NotFoundError, SourceError
from shardkit.storage import files

Labels = Callable[[str], dict[str, str]]


def everything(folder: Path) -> bytes:
    """The bytes of all files, with Parquet files unpacked as text."""
    import pyarrow.parquet as pq

    parts = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            parts.append(path.name.encode() + path.read_bytes())
            if path.suffix == ".parquet":
                parts.append(repr(pq.read_table(path).to_pylist()).encode())
    return b"\n".join(parts)


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
@pytest.mark.parametrize("before", ["there", "deleted", "relabelled"])
def test_no_byte_of_a_purged_sample_is_left(
    form: str, before: str, packed_once: Path, tmp_path: Path, labels_of: Labels
) -> None:
    folder = tmp_path / "shards"
    train = str(folder / "train")
    shardkit.pack(packed_once / "tree", train, max_count=5, workers=1, format=form)
    shardkit.relabel(train, {"cat/0002": "dog", "dog/0003": "fox"})
    shardkit.delete(train, ["cat/0003"])
    image = shardkit.dataset(f"{train}@1")["cat/0001"]["jpg"]
    if before == "deleted":
        shardkit.delete(train, ["cat/0001"])
    if before == "relabelled":
        shardkit.relabel(train, {"cat/0001": "fox"})
    wanted = {key: name for key, name in labels_of(train).items() if key != "cat/0001"}
    images = {sample["__key__"]: sample["jpg"] for sample in shardkit.dataset(train)}
    number = len(shardkit.log(train))
    shards = {path.name for path in folder.glob(f"*.{form}")}
    done = shardkit.delete(train, ["cat/0001"], purge=True, message="asked for")
    assert (done.version, done.kind, done.changed) == (number + 1, "purge", 1)
    left = everything(folder)
    assert image not in left and image[-80:] not in left
    assert b"cat/0001" not in left
    assert labels_of(train) == wanted
    assert {s["__key__"]: s["jpg"] for s in shardkit.dataset(train)} == {key: images[key] for key in wanted}
    assert shardkit.verify(train).findings == ()
    assert len(shards - {path.name for path in folder.glob(f"*.{form}")}) == 1
    with pytest.raises(NotFoundError, match="version 1 is gone: samples were purged since"):
        shardkit.dataset(f"{train}@1").classes  # noqa: B018
    assert [entry.kind for entry in shardkit.log(train)][-1] == "purge"
    shardkit.relabel(train, {"cat/0000": "dog"})
    assert labels_of(f"{train}@{number + 1}") == wanted
    assert shardkit.revert(train, number + 1).version == number + 3
    assert labels_of(train) == wanted
    assert shardkit.verify(train).findings == ()


def test_a_purged_dataset_can_be_added_to_and_replaced(packed_once: Path, tmp_path: Path, labels_of: Labels) -> None:
    tree, train = tmp_path / "tree", str(tmp_path / "shards" / "train")
    shutil.copytree(packed_once / "tree", tree)
    shardkit.pack(tree, train, max_count=4, workers=1)
    shardkit.delete(train, ["cat/0001", "fox/0000"], purge=True)
    (tree / "cat" / "0001.jpg").unlink()
    (tree / "fox" / "0000.jpg").unlink()
    shutil.copy(tree / "cat" / "0000.jpg", tree / "cat" / "0007.jpg")
    shardkit.pack(tree, train, max_count=4, workers=1, append=True)
    assert len(labels_of(train)) == 11
    assert shardkit.verify(train).findings == ()
    shardkit.delete(train, ["cat/0007"], purge=True)
    assert len(labels_of(train)) == 10
    assert shardkit.verify(train).findings == ()
    shardkit.pack(tree, train, max_count=6, workers=1, overwrite=True)
    assert len(labels_of(train)) == 11
    assert shardkit.verify(train).findings == ()
    assert not [path.name for path in (tmp_path / "shards").iterdir() if ".v" in path.name]


def test_a_shard_without_samples_is_removed(train: str, labels_of: Labels) -> None:
    import pyarrow.parquet as pq

    shardkit.relabel(train, {"fox/0001": "cat"})
    rows = pq.read_table(f"{train}.parquet", columns=["shard", "key"]).to_pylist()
    keys = [row["key"] for row in rows if row["shard"] == "train-000000.tar"]
    wanted = {key: name for key, name in labels_of(train).items() if key not in keys}
    shardkit.delete(train, keys, purge=True)
    assert labels_of(train) == wanted
    assert shardkit.verify(train).findings == ()
    assert not Path(f"{train}-000000.tar").exists()


def test_unknown_samples_and_shards_of_other_datasets_are_not_purged(
    train: str, packed_once: Path, draw_tree: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"repeats the key 'x'; no sample has the key 'x'"):
        shardkit.delete(train, ["x", "x"], purge=True)
    shardkit.pack(draw_tree(tmp_path / "tree", {"cat": 0, "emu": 2}), f"{train}2", workers=1,
                  classes=["cat", "dog", "fox", "emu"])  # fmt: skip
    shardkit.merge([train, f"{train}2"], str(Path(train).parent / "all"))
    with pytest.raises(DestinationError, match="the dataset all names this shard too"):
        shardkit.delete(train, ["cat/0001"], purge=True)
    assert len(shardkit.log(train)) == 1


def test_samples_in_a_bucket_are_purged(packed_once: Path, labels_of: Labels) -> None:
    train = "memory://purged/train"
    shardkit.pack(packed_once / "tree", train, max_count=3, workers=1, overwrite=True)
    shardkit.delete(train, ["cat/0002"])
    shardkit.delete(train, ["cat/0001", "cat/0002"], purge=True)
    assert len(labels_of(train)) == 10
    assert shardkit.verify(train, read=True).findings == ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed by fork and _exit")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_purge_is_finished_by_the_next_correction(
    train: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels_of: Labels
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(files, "_sync_file_system", lambda folder: True)
    shardkit.delete(train, ["dog/0000"])
    before, out = labels_of(train), tmp_path / "out"
    image = shardkit.dataset(train)["cat/0001"]["jpg"]

    def begin() -> Path:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(Path(train).parent, out)
        return out

    step, seen = 1, set[int]()
    while killed_at(step, lambda out: shardkit.delete(out / "train", ["cat/0001"], purge=True), begin()):
        done = len(shardkit.log(out / "train")) == 3
        seen.add(done)
        assert labels_of(str(out / "train")) == {k: v for k, v in before.items() if k != "cat/0001" or not done}, step
        if done:
            shardkit.relabel(out / "train", {"cat/0000": "dog"})
        else:
            shardkit.delete(out / "train", ["cat/0001"], purge=True)
        assert image not in everything(out), step
        assert shardkit.verify(out / "train").findings == (), step
        step += 1
    assert step > 10 and seen == {False, True}
