"""What can't be packed while it is read, and what goes wrong meanwhile: the errors of `pack`, and no silent loss."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from adapters.pack_to.packings import SMALL, files_in, finished_shards, settle

import shardkit

Reference = Callable[..., dict[str, bytes]]


def opened(photos: Path, dest: Path, **options: Any) -> shardkit.Dataset[Any]:
    return shardkit.dataset(photos, pack_to={"dest": dest, **SMALL, **options}, shuffle=True)


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        (3, "names no destination"),
        ({"max_bytes": "1MB"}, "names no destination"),
        ({"dest": "shards/train", "max_byte": "1MB"}, "did you mean 'max_bytes'"),
        ({"dest": "shards/train", "shuffle": False}, "'shuffle' is not an option"),
        ({"dest": "shards/train", "overwrite": True}, "'overwrite' is not an option"),
        ({"dest": "shards/train", "max_count": 0}, "max_count"),
    ],
    ids=["number", "no dest", "misspelt", "shuffle", "overwrite", "zero"],
)
def test_invalid_options_are_refused_at_once(photos: Path, given: Any, fact: str) -> None:
    with pytest.raises(shardkit.UsageError, match=fact):
        shardkit.dataset(photos, pack_to=given)


@pytest.mark.parametrize("source", [["a", "b"], "s3://bucket/train", "https://example.org/train"], ids=str)
def test_only_a_folder_on_this_machine_is_packed(source: Any) -> None:
    with pytest.raises(shardkit.UsageError, match="one folder of class folders on this machine"):
        shardkit.dataset(source, pack_to="shards/train")


@pytest.mark.parametrize("option", [{"index": "x"}, {"image_field": "x"}, {"label_field": "x"}], ids=lambda o: min(o))
def test_options_of_shards_are_refused(photos: Path, option: Any) -> None:
    with pytest.raises(shardkit.UsageError, match="which is for shards"):
        shardkit.dataset(photos, pack_to="shards/train", **option)


@pytest.mark.parametrize(
    "use",
    [
        lambda data: data.select("blue"),
        lambda data: data.where(pc.field("label") == 0),
        lambda data: data.split({"a": 0.5, "b": 0.5}),
        lambda data: data.split(3),
        lambda data: data[:10],
        lambda data: data.balance(),
        lambda data: data.weight([1.0]),
        lambda data: shardkit.concat([data, data]),
        lambda data: shardkit.mix([data, data]),
    ],
    ids=["select", "where", "split", "folds", "slice", "balance", "weight", "concat", "mix"],
)
def test_parts_and_mixes_are_refused(photos: Path, tmp_path: Path, use: Callable[[Any], Any]) -> None:
    with pytest.raises(shardkit.UsageError, match=r"whole epochs are read.*pack first"):
        use(opened(photos, tmp_path / "shards" / "train"))
    assert not (tmp_path / "shards").exists()


def test_ray_data_is_refused(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(shardkit.UsageError, match=r"to_ray\(\): with `pack_to` whole epochs are read"):
        opened(photos, tmp_path / "shards" / "train").to_ray()


def test_a_tree_of_splits_is_refused(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(shardkit.SourceError, match="this folder holds splits"):
        next(iter(shardkit.dataset(splits, pack_to=tmp_path / "shards")))


def test_a_list_is_refused(photos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\n" + "".join(f"{path},a\n" for path in photos.rglob("*.jpg")))
    with pytest.raises(shardkit.UsageError, match=r"folder of class folders.*pack it first"):
        next(iter(shardkit.dataset(listed, pack_to=tmp_path / "shards" / "train")))


def test_a_destination_inside_the_tree_is_refused(photos: Path) -> None:
    with pytest.raises(shardkit.DestinationError, match="inside the source"):
        next(iter(opened(photos, photos / "blue" / "train")))


@pytest.mark.parametrize("options", [{}, {"max_count": 11}, {"seed": 1}], ids=["files", "max_count", "seed"])
def test_shards_of_something_else_are_refused_with_a_cure(photos: Path, tmp_path: Path, options: Any) -> None:
    if not options:
        (photos / "blue" / "0000.jpg").rename(photos / "blue" / "other.jpg")
    shardkit.pack(photos, tmp_path / "shards" / "train", **SMALL | options)
    if not options:
        (photos / "blue" / "other.jpg").rename(photos / "blue" / "0000.jpg")
    before = files_in(tmp_path / "shards")
    with pytest.raises(shardkit.DestinationError, match=r"another dataset is there.*shardkit\.pack\(.*overwrite=True"):
        next(iter(opened(photos, tmp_path / "shards" / "train")))
    assert files_in(tmp_path / "shards") == before


def test_shards_of_a_tree_that_has_changed_since_are_refused(
    photos: Path, tmp_path: Path, draw_image: Callable[..., bytes]
) -> None:
    for _ in opened(photos, tmp_path / "shards" / "train"):
        pass
    size = (photos / "red" / "0003.jpg").stat().st_size
    (photos / "red" / "0003.jpg").write_bytes(draw_image(99).ljust(size, b"\0")[:size])
    with pytest.raises(shardkit.DestinationError, match=r"out of date: the source's red/0003\.jpg"):
        next(iter(opened(photos, tmp_path / "shards" / "train")))


@pytest.mark.parametrize("name", ["train.json", "train-000000.tar", "train.parquet"])
def test_files_in_the_way_are_refused(photos: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / name).write_text("mine")
    with pytest.raises(shardkit.DestinationError, match="already exists"):
        next(iter(opened(photos, tmp_path / "shards" / "train")))
    assert files_in(tmp_path / "shards") == {name: b"mine"}


def test_a_destination_that_is_not_writable_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(shardkit.ShardkitError, match="file"):
        next(iter(opened(photos, tmp_path / "file" / "train")))


@pytest.mark.usefixtures("close_behind")
@pytest.mark.parametrize("damage", ["cut", "vanished"])
def test_a_bad_file_stops_the_epoch_with_the_error_of_pack(photos: Path, tmp_path: Path, damage: str) -> None:
    data = opened(photos, tmp_path / "shards" / "train")
    iterator = iter(data)
    for _ in range(20):
        next(iterator)
    bad = photos / (list(data.paths)[70])
    if damage == "vanished":
        bad.unlink()
    else:
        bad.write_bytes(b"\0" * bad.stat().st_size)
    with pytest.raises((shardkit.BadFileError, shardkit.NotFoundError)) as seen:
        for _ in iterator:
            pass
    settle()
    assert seen.value.place == str(bad)
    if damage == "cut":
        with pytest.raises(shardkit.BadFileError) as packing:
            shardkit.pack(photos, tmp_path / "other" / "train", **SMALL)
        assert str(packing.value) == str(seen.value)
    assert finished_shards(tmp_path / "shards")


def test_bad_files_are_skipped_as_pack_skips_them(photos: Path, tmp_path: Path, packed: Reference) -> None:
    (photos / "red" / "0007.jpg").write_bytes(b"not an image")
    data = opened(photos, tmp_path / "shards" / "train", on_error="skip").decode(size=16, on_error="skip")
    assert sum(1 for _ in data) == 119
    assert files_in(tmp_path / "shards") == packed(on_error="skip")
    assert len(data) == sum(1 for _ in data) == 119


@pytest.mark.usefixtures("close_behind")
def test_a_full_disk_ends_the_packing_and_not_the_epoch(
    photos: Path, tmp_path: Path, packed: Reference, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from shardkit.storage import files

    full, replace, done = [True], os.replace, []

    def replaced(part: Any, path: Any) -> None:
        if os.fsencode(path).endswith(b".tar"):
            done.append(path)
            if full[0] and len(done) > 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(part, path)

    monkeypatch.setattr(files.os, "replace", replaced)
    data = opened(photos, tmp_path / "shards" / "train")
    assert len(list(data)) == 120
    settle()
    assert "not packed further" in caplog.text and os.strerror(errno.ENOSPC) in caplog.text
    kept = finished_shards(tmp_path / "shards")
    assert kept and not (tmp_path / "shards" / "train.json").exists()
    full[0] = False
    assert len(list(data)) == 120
    assert files_in(tmp_path / "shards") == packed()


def test_it_can_be_pickled_before_and_after(photos: Path, tmp_path: Path) -> None:
    data = opened(photos, tmp_path / "shards" / "train")
    keys = [sample["__key__"] for sample in pickle.loads(pickle.dumps(data))]
    assert keys == [sample["__key__"] for sample in data]
    assert len(list(pickle.loads(pickle.dumps(data)))) == 120
    assert len(pickle.dumps(data)) < 10_000


def test_its_text_names_source_and_destination(photos: Path, tmp_path: Path) -> None:
    text = repr(opened(photos, tmp_path / "shards" / "train"))
    assert str(photos) in text and "pack_to=" in text and "shuffle=10000" in text
    assert not (tmp_path / "shards").exists()
