from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import Manifest, TableColumns
from shardkit.cli.main import run
from shardkit.errors import SourceError, UsageError
from shardkit.packing.pack import PackPlan
from shardkit.sources.columns import PathColumn
from shardkit.sources.left_out import LeftOut
from shardkit.sources.source import Source
from shardkit.sources.split import Splitting, parts_of, split_source, splitting_of
from shardkit.sources.subset import paths_at

THREE = {"train": 0.8, "validation": 0.1, "test": 0.1}
Splits = dict[str, dict[str, int]]


def made_up(classes: Mapping[str, int], *, name: Callable[[int], str] = "{:06}.jpg".format) -> Source:
    """A source of names alone."""
    paths = PathColumn.of(f"{label}/{name(number)}".encode() for label, n in classes.items() for number in range(n))
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), list(classes.values()))
    return Source(b"/data", tuple(classes), paths, np.full(len(paths), 1000), labels, {}, LeftOut())


def pack_splits(source: Path, out: Path, **options: Any) -> dict[str, Manifest]:
    return shardkit.pack(source, out, **{"workers": 1, "split": THREE} | options).manifests


def paths_of(prefix: Path) -> set[str]:
    """The paths in the index of a dataset."""
    import pyarrow.parquet as pq

    return {
        path
        for file in prefix.parent.glob(f"{prefix.name}*.parquet")
        for path in pq.read_table(file)["path"].to_pylist()
    }


def by_split(out: Path, names: Mapping[str, Any]) -> dict[str, str]:
    """Path -> split."""
    return {path: name for name in names for path in paths_of(out / name)}


@pytest.fixture
def pets(tmp_path: Path, draw_tree: Callable[..., Path]) -> Path:
    return draw_tree(tmp_path / "pets", {"cat": 40, "dog": 30})


def test_every_file_is_in_one_split_and_all_splits_have_one_class_map(pets: Path, out: Path) -> None:
    found = pack_splits(pets, out)
    assert sorted(path.name for path in out.glob("*-000000.tar")) == [f"{name}-000000.tar" for name in sorted(THREE)]
    assert list(found) == list(THREE)
    assert {tuple(manifest.class_names) for manifest in found.values()} == {("cat", "dog")}
    parts = [paths_of(out / name) for name in THREE]
    assert set().union(*parts) == {str(path.relative_to(pets)) for path in pets.rglob("*.jpg")}
    assert sum(map(len, parts)) == 70 == sum(manifest.samples for manifest in found.values())
    assert found["train"].options["split"] == THREE


def test_the_splits_read_as_datasets(pets: Path, out: Path) -> None:
    found = pack_splits(pets, out)
    for name, manifest in found.items():
        samples = list(shardkit.dataset(out / name))
        assert len(samples) == manifest.samples
        assert {sample["__key__"].partition("/")[0] for sample in samples} <= {"cat", "dog"}


def test_the_split_of_a_key_is_pinned() -> None:
    splitting = Splitting((("train", 0.6), ("test", 0.4)), seed=3)
    assert parts_of(made_up({"cat": 12, "dog": 12}), splitting).tolist() == PINNED


def test_no_file_changes_its_split_when_others_are_added_or_removed(
    pets: Path, out: Path, draw_image: Callable[..., bytes]
) -> None:
    pack_splits(pets, out / "old")
    before = by_split(out / "old", THREE)
    for number in range(60):
        (pets / "cat" / f"new{number}.jpg").write_bytes(draw_image(number))
        (pets / "ant").mkdir(exist_ok=True)
        (pets / "ant" / f"{number}.jpg").write_bytes(draw_image(number))
    for path in sorted(pets.rglob("00?5.jpg")):
        path.unlink()
    (pets / "cat" / "0001.png").write_bytes(draw_image(1, format="PNG"))  # the same key as 0001.jpg
    pack_splits(pets, out / "new")
    after = by_split(out / "new", THREE)
    assert len(after) == 70 + 120 - 7 + 1
    kept = before.keys() & after.keys()
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
    assert after["cat/0001.png"] == after["cat/0001.jpg"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_class_is_dealt_in_proportion(seed: int) -> None:
    counts = {"ant": 1000, "bee": 3000, "cat": 6000}
    splitting = Splitting(tuple(THREE.items()), seed)
    found = split_source(made_up(counts), splitting)
    for name, share in THREE.items():
        for count, got in zip(counts.values(), found[name].counts.tolist(), strict=True):
            assert abs(got - count * share) < 5 * math.sqrt(count * share * (1 - share))


def test_another_seed_deals_otherwise() -> None:
    source = made_up({"cat": 1000})
    first, second = (parts_of(source, Splitting(tuple(THREE.items()), seed)) for seed in (0, 1))
    assert 200 < int((first != second).sum()) < 500  # 1 - 0.8² - 2 · 0.1² = 0.34 of them


def test_rows_that_belong_together_go_where_one_of_them_would_go_alone() -> None:
    source, splitting = made_up({"cat": 6000}), Splitting(tuple(THREE.items()), 0)
    alone = parts_of(source, splitting)
    pairs = np.array([(n, n + step) for n in range(0, 6000, 6) for step in (3, 1, 5)])  # three go alone, of six
    pairs = np.concatenate([pairs, [[0, 6], [6, 12]]])  # three groups are one
    parts = parts_of(source, splitting, pairs)
    groups = parts.reshape(-1, 6)[:, [0, 1, 3, 5]]
    assert (groups == groups[:, :1]).all()
    assert len(set(groups[:3, 0].tolist())) == 1
    assert (parts.reshape(-1, 6)[:, [2, 4]] == alone.reshape(-1, 6)[:, [2, 4]]).all()
    assert all(parts[row] in alone[row : row + 6] for row in range(18, 6000, 6))
    for part, share in enumerate(THREE.values()):  # no split is favoured
        assert abs(int((groups[:, 0] == part).sum()) - 1000 * share) < 5 * math.sqrt(1000 * share * (1 - share))


def test_a_group_that_grows_often_stays_where_it_is() -> None:
    source, splitting = made_up({"cat": 4000}), Splitting(tuple(THREE.items()), 0)
    before = parts_of(source, splitting, np.zeros((0, 2), np.int64))
    after = parts_of(source, splitting, np.array([(n, n + 1) for n in range(0, 4000, 2)]))
    assert (before == parts_of(source, splitting)).all()
    kept = float((before[::2] == after[::2]).mean())
    assert kept > 0.75  # 1/2 + 0.66/2


@pytest.mark.parametrize("pattern", [r"p\d+", r"(p\d+)_", r"/(p\d+)_\d+\.jpg$"])
def test_a_group_is_never_divided(pattern: str) -> None:
    source = made_up({"ill": 2000, "well": 2000}, name=lambda n: f"p{n % 100:03}_{n}.jpg")
    splitting = Splitting((("train", 0.5), ("test", 0.5)), 0, pattern)
    parts = parts_of(source, splitting)
    homes: dict[str, set[int]] = {}
    for path, part in zip(source.paths, parts.tolist(), strict=True):
        homes.setdefault(path.decode().partition("/")[2][:4], set()).add(part)
    assert len(homes) == 100
    assert all(len(each) == 1 for each in homes.values())  # over both classes
    assert set().union(*homes.values()) == {0, 1}


def test_groups_are_kept_together_while_packing(tmp_path: Path, out: Path, draw_image: Callable[..., bytes]) -> None:
    for number in range(60):
        path = tmp_path / "scans" / ("ill" if number % 2 else "well") / f"p{number // 4:02}_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_image(number))
    pack_splits(tmp_path / "scans", out, split="train=0.7,test=0.3", group_by=r"p\d+")
    train, test = ({path.split("/")[1][:3] for path in paths_of(out / name)} for name in ("train", "test"))
    assert train and test and not train & test


def test_a_path_without_a_group_is_named(tmp_path: Path, draw_tree: Callable[..., Path], out: Path) -> None:
    tree = draw_tree(tmp_path / "tree", {"cat": 3})
    with pytest.raises(
        SourceError, match=r"tree/cat/0000\.jpg: the pattern 'p\\\\d\+' of `group_by` finds no group in"
    ):
        pack_splits(tree, out, group_by=r"p\d+")
    with pytest.raises(SourceError, match="finds no group"):
        pack_splits(tree, out, group_by=r"(x*)\d+")  # matches, and the group is empty
    assert not out.exists()


def test_the_samples_of_several_files_stay_whole(tmp_path: Path, out: Path, draw_tree: Callable[..., Path]) -> None:
    tree = draw_tree(tmp_path / "tree", {"cat": 30, "dog": 30})
    for path in list(tree.rglob("*.jpg")):
        path.with_suffix(".json").write_text(path.stem)
    plain = pack_splits(tree, out / "plain")
    found = pack_splits(tree, out / "both", fields="jpg,json")
    assert {name: m.samples for name, m in found.items()} == {name: m.samples for name, m in plain.items()}
    for name in THREE:
        assert paths_of(out / "both" / name) == paths_of(out / "plain" / name)
        for sample in shardkit.dataset(out / "both" / name):
            assert sample["json"].decode() == sample["__key__"].partition("/")[2]


def test_an_incomplete_sample_is_listed_in_its_split(tmp_path: Path, out: Path, draw_tree: Callable[..., Path]) -> None:
    tree = draw_tree(tmp_path / "tree", {"cat": 30})
    for path in list(tree.rglob("*.jpg"))[:-4]:
        path.with_suffix(".json").write_text("{}")
    found = pack_splits(tree, out, fields="jpg,json", on_error="skip")
    assert sum(manifest.samples for manifest in found.values()) == 26
    assert sum(manifest.skipped for manifest in found.values()) == 4


def test_tfrecord_has_the_same_splits(pets: Path, out: Path) -> None:
    pack_splits(pets, out / "tar")
    pack_splits(pets, out / "tf", format="tfrecord")
    assert by_split(out / "tar", THREE) == by_split(out / "tf", THREE)


def test_again_nothing_is_written(pets: Path, out: Path, content_of: Any, caplog: pytest.LogCaptureFixture) -> None:
    first = pack_splits(pets, out)
    before = content_of(out)
    with caplog.at_level(logging.INFO):
        assert pack_splits(pets, out) == first
    assert caplog.text.count("already packed") == 3
    assert content_of(out) == before


def test_the_bytes_do_not_depend_on_workers(pets: Path, out: Path, content_of: Any) -> None:
    pack_splits(pets, out / "one", max_count=9)
    pack_splits(pets, out / "two", max_count=9, workers=2)
    assert content_of(out / "one") == content_of(out / "two")


def test_a_dry_run_tells_the_splits(pets: Path, out: Path) -> None:
    plan = shardkit.plan_pack(pets, out, split=THREE)
    assert isinstance(plan, PackPlan)
    assert [dataset.name for dataset in plan.datasets] == list(THREE)
    assert sum(dataset.samples for dataset in plan.datasets) == 70
    assert not out.exists()


def test_what_was_left_out_is_told_once(pets: Path, out: Path) -> None:
    (pets / "notes.txt").write_text("x")
    plan = shardkit.plan_pack(pets, out, split=THREE)
    assert isinstance(plan, PackPlan)
    assert [len(dataset.left_out) for dataset in plan.datasets] == [1, 0, 0]


def test_a_class_that_a_split_lacks_is_told(caplog: pytest.LogCaptureFixture) -> None:
    split_source(made_up({"cat": 500, "rare": 1}), Splitting((("train", 0.5), ("test", 0.5)), 0))
    assert "no sample of 1 of the classes (rare)" in caplog.text


def test_a_split_without_a_sample_is_refused(tmp_path: Path, out: Path, draw_tree: Callable[..., Path]) -> None:
    tree = draw_tree(tmp_path / "tree", {"cat": 2})
    with pytest.raises(SourceError, match="the split test gets none of the 2 files"):
        pack_splits(tree, out, split="train=0.99999,test=0.00001")


@pytest.mark.parametrize(
    ("split", "group_by", "message"),
    [
        ("train=0.8,test=0.1", None, "the fractions add up to 0.9"),
        ({"train": 0.8, "test": 0.3}, None, "the fractions add up to 1.1"),
        ("train=1.2,test=-0.2", None, "the fraction of train is 1.2"),
        ("train=1,test=0", None, "the fraction of test is 0"),
        ("train=nan,test=1", None, "the fraction of train is nan"),
        ("train=0.5,train=0.5", None, "train is named twice"),
        ("train=half,test=0.5", None, "'train=half' is not NAME=FRACTION"),
        ("train", None, "'train' is not NAME=FRACTION"),
        ("", None, "'' is not NAME=FRACTION"),
        ({}, None, "the fractions add up to 0"),
        ({"train": "x"}, None, "could not convert"),
        ("../train=0.5,test=0.5", None, "'../train' can't be the name of a split"),
        ("=0.5,test=0.5", None, "'' can't be the name of a split"),
        ("train=0.5,test=0.5", "p(", "is not a regular expression"),
        ("train=0.5,test=0.5", "", "the pattern is empty"),
        (None, "p", "there are no splits"),
    ],
)
def test_what_makes_no_sense_is_refused(pets: Path, out: Path, split: Any, group_by: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        shardkit.pack(pets, out, split=split, group_by=group_by)
    assert not out.exists()


def test_thirds_may_be_rounded() -> None:
    splitting = splitting_of("a=0.3333333,b=0.3333333,c=0.3333333", None, 0)
    assert splitting is not None and splitting.names == ("a", "b", "c")


def test_a_tree_of_splits_is_not_split_again(splits: Path, out: Path) -> None:
    with pytest.raises(UsageError, match=r"the source is already a tree of splits \(test, train, validation\)"):
        pack_splits(splits, out)


def test_another_splitting_of_the_same_files_is_another_dataset(pets: Path, out: Path) -> None:
    pack_splits(pets, out)
    with pytest.raises(shardkit.errors.DestinationError, match="option split"):
        pack_splits(pets, out, split={"train": 0.7, "validation": 0.2, "test": 0.1})


def test_the_command_makes_splits(pets: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["pack", str(pets), str(out), "--split", "train=0.8,test=0.2", "--group-by", r"\d\d\d\d", "--workers", "1"]
    assert run(line) == 0
    assert f"{out}/train: " in capsys.readouterr().out
    assert not {path[-8:] for path in paths_of(out / "train")} & {path[-8:] for path in paths_of(out / "test")}


def test_paths_at_gathers_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardkit.sources.subset._PIECE", 7)
    paths = PathColumn.of(f"c/{'x' * (n % 5)}{n}.jpg".encode() for n in range(50))
    rows = np.flatnonzero(np.arange(50) % 3 != 1)
    assert list(paths_at(paths, rows)) == paths.take(rows)
    assert list(paths_at(paths, rows[:0])) == []


PINNED = [1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0]


def test_a_list_and_an_archive_have_the_splits_of_the_tree(pets: Path, out: Path) -> None:
    import shutil

    rows = [f"{path.relative_to(pets)},{path.parent.name}" for path in sorted(pets.rglob("*.jpg"))]
    (pets.parent / "list.csv").write_text("\n".join(["path,label", *rows, "cat/none.jpg,cat"]))
    archive = shutil.make_archive(str(pets.parent / "pets"), "zip", pets.parent, pets.name)
    pack_splits(pets, out / "tree")
    listed = pack_splits(pets.parent / "list.csv", out / "list", columns=TableColumns(root=pets), on_error="skip")
    pack_splits(Path(archive), out / "zip")
    assert by_split(out / "tree", THREE) == by_split(out / "list", THREE) == by_split(out / "zip", THREE)
    assert sum(manifest.skipped for manifest in listed.values()) == 1


def test_keys_that_were_made_unique_go_with_their_rows(tmp_path: Path, out: Path, draw_image: Any) -> None:
    (tmp_path / "tree" / "cat").mkdir(parents=True)
    for number in range(30):
        for format in ("JPEG", "PNG"):
            ending = {"JPEG": "jpg", "PNG": "png"}[format]
            (tmp_path / "tree" / "cat" / f"{number}.{ending}").write_bytes(draw_image(number, format=format))
    pack_splits(tmp_path / "tree", out, split="train=0.5,test=0.5")
    for name in ("train", "test"):
        keys = [sample["__key__"] for sample in shardkit.dataset(out / name)]
        assert len(set(keys)) == len(keys)
        assert {key.removesuffix("-2") for key in keys} == {key for key in keys if not key.endswith("-2")}
