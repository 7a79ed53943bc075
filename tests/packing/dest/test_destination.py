"""What may be wrong with a destination: each is a clear error, and what is there stays as it is."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit import Manifest
from shardkit.errors import BusyError, DestinationError, ManifestError, ShardkitError, StorageError, UsageError
from shardkit.packing.dest.disk import disk_destination
from shardkit.storage.files import FolderLock

Pack = Callable[..., Manifest]


def refused(kind: type[ShardkitError], exit_code: int, call: Callable[[], object]) -> str:
    """The text of the error that `call` raises."""
    with pytest.raises(kind) as raised:
        call()
    assert raised.value.exit_code == exit_code
    assert raised.value.cure
    return str(raised.value)


def test_a_destination_that_is_a_file_is_refused(tree: Path, splits: Path, tmp_path: Path, pack_one: Pack) -> None:
    (tmp_path / "file").write_bytes(b"of the user")
    text = refused(DestinationError, 4, lambda: pack_one(tree, tmp_path / "file"))
    assert text.endswith("file: the destination is a file, and the shards' names start with it; give a prefix such as "
                         "shards/train")  # fmt: skip
    text = refused(DestinationError, 4, lambda: shardkit.pack(splits, tmp_path / "file"))
    assert text.endswith("file: the destination is a file; give a folder for the splits")
    text = refused(DestinationError, 4, lambda: pack_one(tree, tmp_path / "file" / "train"))
    assert "a file already exists at this path" in text
    assert (tmp_path / "file").read_bytes() == b"of the user"


@pytest.mark.parametrize("dest", ["tree", "tree/", "tree/out", "tree/red/deep/out", "link/out", "tree/../tree/out"])
def test_a_destination_inside_the_source_is_refused(
    dest: str, tree: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch, content_of: Any
) -> None:
    monkeypatch.chdir(tree.parent)
    Path("link").symlink_to("tree")
    before = content_of(tree)
    text = refused(DestinationError, 4, lambda: pack_one(Path("tree"), dest))
    assert text == f"{dest}: the destination is inside the source tree; choose a place outside it"
    assert content_of(tree) == before


def test_splits_inside_the_source_are_refused(splits: Path) -> None:
    text = refused(DestinationError, 4, lambda: shardkit.pack(splits, splits))
    assert "the destination is inside the source" in text
    assert sorted(path.name for path in splits.iterdir()) == ["test", "train", "validation"]


def test_a_destination_beside_the_source_with_the_same_beginning_is_fine(tree: Path, pack_one: Pack) -> None:
    assert pack_one(tree, f"{tree}2").samples == 12


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_destination_that_is_not_writable_is_refused(
    number: int, tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "mkdir", refuse)  # the tests may run as root, for whom everything is writable
    text = refused(DestinationError, 4, lambda: pack_one(tree, out / "train"))
    assert f": not writable ({os.strerror(number)}); choose another destination, or change its permissions" in text


def test_another_dataset_there_is_kept_and_the_difference_is_told(
    tree: Path, tmp_path: Path, out: Path, pack_one: Pack, content_of: Any, draw_tree: Any
) -> None:
    pack_one(tree, out / "train", seed=1)
    before = content_of(out)
    other = draw_tree(tmp_path / "other", {"blue": 5, "red": 7}, size=(50, 50))
    third = draw_tree(tmp_path / "third", {"blue": 5, "green": 7})
    for source, options, difference in (
        (tree, {"seed": 2}, "packed with the option seed 1, not 2"),
        (tree, {"seed": 1, "max_bytes": "1MB"}, "packed with the option max_bytes 256000000, not 1000000"),
        (other, {"seed": 1}, "of other files"),
        (third, {"seed": 1}, "with other classes"),
    ):
        text = refused(DestinationError, 4, lambda: pack_one(source, out / "train", **options))  # noqa: B023
        cure = "choose another destination, or replace it with `overwrite=True`"
        if "option" not in difference:
            cure = "add what is new with `append=True`, replace it with `overwrite=True`, or choose another destination"
        assert text == f"{out}/train.json: another dataset is there, {difference}; {cure}"
    assert content_of(out) == before


def test_no_split_is_written_where_another_dataset_is_in_the_way_of_one(
    splits: Path, tree: Path, out: Path, pack_one: Pack, content_of: Any
) -> None:
    pack_one(tree, out / "validation")
    before = content_of(out)
    text = refused(DestinationError, 4, lambda: shardkit.pack(splits, out, workers=1))
    assert text.startswith(f"{out}/validation.json: another dataset is there")
    assert content_of(out) == before


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000099.tfrecord", "train.skipped.json"])
def test_files_of_somebody_else_are_in_the_way(
    name: str, tree: Path, out: Path, pack_one: Pack, content_of: Any
) -> None:
    out.mkdir()
    (out / name).write_bytes(b"of the user")
    text = refused(DestinationError, 4, lambda: pack_one(tree, out / "train"))
    assert text == (
        f"{out}/{name}: this file already exists, belongs to no manifest, and was not written by this run; "
        "choose another destination, or replace it with `overwrite=True`"
    )
    assert content_of(out) == {name: b"of the user"}
    pack_one(tree, out / "train", overwrite=True)
    assert sorted(content_of(out)) == ["train-000000.tar", "train.json", "train.parquet"]


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "this is not a manifest (Input data was truncated)"),
        (b'{"format": "shardkit", "version": 99}', "the manifest has version 99, and this shardkit reads versions up"),
    ],
)
def test_a_file_with_the_name_of_the_manifest_is_in_the_way(
    data: bytes, fact: str, tree: Path, out: Path, pack_one: Pack, content_of: Any
) -> None:
    out.mkdir()
    (out / "train.json").write_bytes(data)
    if data:
        (out / "train.parquet").write_bytes(b"")
        with pytest.raises(DestinationError, match="not a shardkit index"):
            pack_one(tree, out / "train", overwrite=True)
        (out / "train.parquet").unlink()
    text = refused(DestinationError, 4, lambda: pack_one(tree, out / "train"))
    assert f"{out}/train.json: a file already exists here: {fact}" in text
    assert content_of(out) == {"train.json": data}
    assert pack_one(tree, out / "train", overwrite=True).samples == 12


@pytest.mark.parametrize(("name", "kind"), [("train.parquet", "an index"), ("train.json", "a manifest")])
@pytest.mark.parametrize("how", ["pack", "write", "convert", "repair", "upload", "download", "index"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_table_or_json_file_of_the_user_is_replaced_by_no_writer(
    name: str, kind: str, how: str, overwrite: bool, tree: Path, out: Path, pack_one: Pack, content_of: Any
) -> None:
    packed = out.parent / "packed" / "train"
    pack_one(tree, packed)
    out.mkdir()
    data = b'{"images": [], "annotations": []}'
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"url": ["http://x/1"], "caption": ["a"]}), out / name)
        data = (out / name).read_bytes()
    (out / name).write_bytes(data)
    if how == "index":
        shutil.copy(packed.with_name("train-000000.tar"), out)
    acts = {
        "pack": lambda: shardkit.pack(tree, out / "train", workers=1, overwrite=overwrite),
        "write": lambda: shardkit.write([{"txt": "a"}], out / "train", overwrite=overwrite),
        "convert": lambda: shardkit.convert(packed, out / "train", workers=1, overwrite=overwrite),
        "repair": lambda: shardkit.repair(packed, out / "train", workers=1, overwrite=overwrite),
        "upload": lambda: shardkit.upload(packed, out / "train", overwrite=overwrite),
        "download": lambda: shardkit.download(f"slow+file://{packed}", out / "train", overwrite=overwrite),
        "index": lambda: shardkit.index_shards(out / "train-000000.tar", overwrite=overwrite),
    }
    before = content_of(out)
    with pytest.raises(DestinationError) as raised:
        acts[how]()
    assert raised.value.cure.startswith("move it elsewhere, or ")
    assert f"is not a shardkit {kind.split()[1]}" in raised.value.fact or "already exists here" in raised.value.fact
    assert content_of(out) == before


@pytest.mark.parametrize("name", ["train-000000.tar", "train.json", "train.parquet"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_the_way_is_never_removed(
    name: str, overwrite: bool, tree: Path, out: Path, pack_one: Pack, content_of: Any
) -> None:
    (out / name).mkdir(parents=True)
    (out / name / "precious.txt").write_bytes(b"of the user")
    text = refused(DestinationError, 4, lambda: pack_one(tree, out / "train", overwrite=overwrite))
    assert text == f"{out}/{name}: a folder already exists at this path; choose another destination"
    assert content_of(out) == {f"{name}/precious.txt": b"of the user"}


def test_a_link_in_the_way_is_replaced_and_not_followed(tree: Path, out: Path, tmp_path: Path, pack_one: Pack) -> None:
    out.mkdir()
    (tmp_path / "precious").write_bytes(b"of the user")
    for name in ("train-000000.tar", "train-000007.tar"):
        (out / name).symlink_to(tmp_path / "precious")
    pack_one(tree, out / "train", overwrite=True)
    assert (tmp_path / "precious").read_bytes() == b"of the user"
    assert not (out / "train-000000.tar").is_symlink()


@pytest.mark.parametrize("stem", [*(os.fsdecode(b"latin-%c" % byte) for byte in (0x80, 0xE9, 0xFF)), "back\\slash"])
def test_a_name_that_a_manifest_can_not_hold_is_refused(stem: str, tree: Path, out: Path, pack_one: Pack) -> None:
    text = refused(DestinationError, 4, lambda: pack_one(tree, out / stem))
    assert "can't be the beginning of the shards' names: they must be UTF-8, without a backslash" in text
    assert not out.exists()


@pytest.mark.parametrize("stem", ["猫", "two words", "a.b", "new\nline", ".hidden", "[x]{1..2}*?"])
def test_a_name_of_any_other_kind_is_fine(stem: str, tree: Path, out: Path, pack_one: Pack) -> None:
    manifest = pack_one(tree, out / stem)
    assert [entry.name for entry in manifest.shards] == [f"{stem}-000000.tar"]
    assert pack_one(tree, out / stem) == manifest
    assert len(shardkit.dataset(out / f"{stem}.json")) == 12


def test_a_name_that_is_too_long_is_refused(tree: Path, out: Path, pack_one: Pack) -> None:
    text = refused(DestinationError, 4, lambda: pack_one(tree, out / ("n" * 240)))
    assert "the name is too long for this file system; choose a shorter one" in text


@pytest.mark.parametrize(("dest", "message"), [("", "location: it is empty"), ("a\0b", "a path can't hold a NUL")])
def test_a_destination_that_is_no_path_is_refused(dest: str, message: str, tree: Path, pack_one: Pack) -> None:
    assert message in refused(UsageError, 2, lambda: pack_one(tree, dest))


def test_a_second_run_into_the_same_destination_is_refused_while_the_first_goes_on(
    tree: Path, out: Path, pack_one: Pack
) -> None:
    texts = []

    def progress(now: shardkit.Progress) -> None:
        if now.step == "pack" and not texts:
            texts.append(refused(BusyError, 4, lambda: pack_one(tree, out / "train")))
            assert pack_one(tree, out / "other").samples == 12

    assert pack_one(tree, out / "train", progress=progress).samples == 12
    assert texts == [
        f"{out}/.train.packing: another run (process {os.getpid()}) is writing to this destination; "
        "wait until it ends, or choose another destination"
    ]


def test_a_run_into_a_split_that_is_being_written_is_refused(splits: Path, out: Path, content_of: Any) -> None:
    lock = FolderLock(disk_destination(str(out), "train").work)
    text = refused(BusyError, 4, lambda: shardkit.pack(splits, out, workers=1))
    assert f"{out}/.train.packing: another run" in text
    assert sorted(content_of(out)) == [".train.packing/lock"]
    lock.release()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_and_what_is_finished_is_kept(
    workers: int, tree: Path, out: Path, pack_one: Pack, draw_image: Any, content_of: Any
) -> None:
    (tree / "red" / "9999.jpg").write_bytes(draw_image(size=(900, 900)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        text = refused(
            StorageError, 6, lambda: pack_one(tree, out / "train", shuffle=False, max_count=3, workers=workers)
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    shard = f"{out}/.train.packing/train-000004.tar"
    assert text == f"{shard}: File too large; raise the file size limit (ulimit -f), or make smaller shards"
    assert not [name for name in content_of(out) if name.endswith(".part")]
    kept = {path.stem: path.with_suffix("").stat().st_ino for path in out.glob(".train.packing/*.receipt")}
    assert kept.keys() == {f"train-00000{number}.tar" for number in range(4)} if workers == 1 else kept
    pack_one(tree, out / "train", shuffle=False, max_count=3, workers=workers)
    assert kept.items() <= {path.name: path.stat().st_ino for path in out.glob("*.tar")}.items()


@pytest.mark.parametrize("call", ["writev", "fsync", "replace"])
def test_no_space_left_is_told_with_the_cure_at_whatever_call_it_shows(
    call: str, tree: Path, out: Path, pack_one: Pack, content_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        text = refused(StorageError, 6, lambda: pack_one(tree, out / "train"))
    assert text == (
        f"{out}/.train.packing/train-000000.tar: No space left on device; "
        "free some space and run the same command again: finished work is kept"
    )
    assert content_of(out) == {}
    assert pack_one(tree, out / "train").samples == 12


def test_a_write_that_is_cut_short_goes_on(
    tree: Path, out: Path, pack_one: Pack, content_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev, write = os.writev, os.write
    pack_one(tree, out / "a" / "train")
    monkeypatch.setattr(os, "writev", lambda fd, pieces: writev(fd, [b"".join(pieces)[:1000]]))
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:777]))
    pack_one(tree, out / "b" / "train")
    assert content_of(out / "b") == content_of(out / "a")


def test_a_manifest_of_classes_that_is_none_is_refused(tree: Path, out: Path, pack_one: Pack) -> None:
    (tree.parent / "x.json").write_text("{}")
    text = refused(ManifestError, 5, lambda: pack_one(tree, out / "train", classes_from=tree.parent / "x.json"))
    assert 'x.json: this is not a manifest: "format" is not "shardkit"' in text
