"""`pack(split=…, group_near_duplicates=True)`: images that look alike stay in one split, whatever is packed."""

from __future__ import annotations

import csv
import io
import json
import logging
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from images.photos import copies, jpeg, photo

import shardkit
from shardkit import DestinationError, SourceError, UsageError
from shardkit.cli.main import run
from shardkit.images.quality import duplicates

SPLIT = {"train": 0.6, "test": 0.4}
FAMILIES = 12


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Path -> file of twelve pictures in two classes, and their changed copies, spread over both."""
    found = {}
    for family in range(FAMILIES):
        picture = photo(family)
        named = {"plain": jpeg(picture), "same": jpeg(picture), **copies(picture)}
        for number, (kind, data) in enumerate(named.items()):
            found[f"{'ab'[(family + number) % 2]}/{kind}{family:02}.jpg"] = data
    return found


@pytest.fixture
def tree(files: Mapping[str, bytes], tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", files)


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def pack(source: Any, out: Path, **options: Any) -> shardkit.Packed:
    given = {"split": SPLIT, "group_near_duplicates": True, "workers": 1} | options
    return shardkit.pack(source, out, **given)


def by_split(out: Path) -> dict[str, str]:
    """The last two parts of a path -> its split."""
    found = {}
    for name in SPLIT:
        for path in pq.read_table(out / f"{name}.parquet")["path"].to_pylist():
            found["/".join(path.split("/")[-2:])] = name
    return found


def homes_of(places: Mapping[str, str]) -> dict[str, set[str]]:
    """Family -> its splits."""
    homes: dict[str, set[str]] = {}
    for path, split in places.items():
        homes.setdefault(Path(path).stem[-2:], set()).add(split)
    return homes


def test_no_near_duplicates_and_no_equal_files_are_in_two_splits(tree: Path, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pack(tree, out / "apart", group_near_duplicates=False, quality_columns=True)
    pack(tree, out / "together", quality_columns=True)
    (leak,) = shardkit.report(str(out / "apart" / "train"), tmp_path / "report.html").leaks
    assert leak.images and leak.near
    for name in SPLIT:
        (leak,) = shardkit.report(str(out / "together" / name), tmp_path / "report.html").leaks
        assert (leak.images, leak.near) == ((), ())
    homes = homes_of(by_split(out / "together"))
    assert len(homes) == FAMILIES
    assert all(len(each) == 1 for each in homes.values())
    assert set().union(*homes.values()) == set(SPLIT)


def test_images_that_look_like_no_other_are_in_the_split_of_their_key(
    files: Mapping[str, bytes], tmp_path: Path, out: Path
) -> None:
    single = {path: data for path, data in files.items() if "plain" in path} | {"a/new00.jpg": jpeg(photo(500))}
    tree = write_tree(tmp_path / "single", single)
    pack(tree, out / "one")
    pack(tree, out / "two", group_near_duplicates=False)
    assert by_split(out / "one") == by_split(out / "two")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "csv", "memory"])
def test_archives_and_lists_are_divided_as_a_tree_is(
    kind: str, tree: Path, files: Mapping[str, bytes], tmp_path: Path, out: Path
) -> None:
    pack(tree, out / "tree")
    source: Any = tmp_path / f"images.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for path, data in files.items():
                archive.writestr(f"tree/{path}", data)
    elif kind.startswith("tar"):
        with tarfile.open(source, "w:gz" if kind.endswith("gz") else "w") as archive:
            for path, data in files.items():
                entry = tarfile.TarInfo(f"tree/{path}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    elif kind == "csv":
        with source.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *((path, path[0]) for path in sorted(files))])
    else:
        source = {"path": [str(tree / path) for path in sorted(files)], "label": [path[0] for path in sorted(files)]}
    options = {"columns": shardkit.TableColumns(root=tree)} if kind == "csv" else {}
    pack(source, out / kind, **options)
    homes = homes_of(by_split(out / kind))
    assert all(len(each) == 1 for each in homes.values())
    if kind != "memory":  # whose keys are whole paths
        assert by_split(out / kind) == by_split(out / "tree")


def test_samples_of_several_files_are_compared_by_their_image(tree: Path, out: Path) -> None:
    for path in list(tree.rglob("*.jpg")):
        path.with_suffix(".json").write_text(json.dumps({"name": path.name}))
    pack(tree, out, fields="json,jpg")
    homes = homes_of(by_split(out))
    assert len(homes) == FAMILIES
    assert all(len(each) == 1 for each in homes.values())


def test_groups_of_names_and_groups_of_looks_are_joined(tree: Path, out: Path) -> None:
    pattern = r"(\d)\.jpg"  # families 00 and 10, 01 and 11
    pack(tree, out, group_by=pattern)
    homes = homes_of(by_split(out))
    assert all(len(each) == 1 for each in homes.values())
    for first, second in (("00", "10"), ("01", "11")):
        assert homes[first] == homes[second]
    pack(tree, out / "kinds", split={"train": 1.0}, group_by=r"([a-z]+)\d")  # everything is one group
    with pytest.raises(SourceError, match=r"gets none of the .* a source of more groups"):
        pack(tree, out / "kinds", group_by=r"([a-z]+)\d", overwrite=True)


def test_parts_and_interrupted_runs_have_the_same_splits(tree: Path, out: Path) -> None:
    pack(tree, out / "whole", max_count=8)
    for number in (2, 1, 3):
        pack(tree, out / "parts", max_count=8, part=(number, 3))
    shardkit.merge(out / "parts")
    for path in (out / "whole").iterdir():
        assert (out / "parts" / path.name).read_bytes() == path.read_bytes()
    again = pack(tree, out / "whole", max_count=8)
    assert again["train"].manifest.options["group_near_duplicates"] is True


def test_what_is_kept_together_is_said(tree: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["pack", str(tree), str(out), "--split", "train=0.6,test=0.4", "--group-near-duplicates"]
    assert run(command) == 0
    said = capsys.readouterr().err
    assert f"near-duplicates: {6 * FAMILIES} images look alike in {FAMILIES} groups" in said


def test_a_configuration_file_asks_for_it_too(tree: Path, out: Path, tmp_path: Path) -> None:
    config = tmp_path / "pack.yaml"
    config.write_text("split: train=0.6,test=0.4\ngroup_near_duplicates: true\nworkers: 1\n")
    assert run(["pack", str(tree), str(out / "one"), "--config", str(config)]) == 0
    pack(tree, out / "two")
    assert by_split(out / "one") == by_split(out / "two")


def test_images_that_can_not_be_decoded_are_told(tree: Path, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(7):
        data = jpeg(photo(300 + number))
        (tree / "a" / f"broken{number}.jpg").write_bytes(data[: 200 + number])
    with caplog.at_level(logging.INFO):
        pack(tree, out, check="none")
    assert "can't be decoded, and so look like no other: 7 (a/broken0.jpg, " in caplog.text
    assert len(by_split(out)) == 6 * FAMILIES + 7


def test_progress_tells_how_many_images_were_read_and_compared(tree: Path, out: Path) -> None:
    steps: dict[str, tuple[int, int]] = {}

    def told(now: Any) -> None:
        steps.setdefault(now.step, (0, 0))
        steps[now.step] = max(steps[now.step], (now.done, now.total))

    plan = shardkit.plan_pack(tree, out, split=SPLIT, group_near_duplicates=True, progress=told)
    assert steps["look"] == (6 * FAMILIES, 6 * FAMILIES)
    assert steps["compare"][0] > 0
    assert sum(each.samples for each in plan.datasets) == 6 * FAMILIES
    assert not out.exists()


def test_what_the_search_over_all_misses_is_found_between_the_splits(
    tree: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(duplicates, "MOST_CONFIRMED", 3)
    pack(tree, out, quality_columns=True)
    for name in SPLIT:
        (leak,) = shardkit.report(str(out / name), tmp_path / "report.html").leaks
        assert (leak.images, leak.near) == ((), ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"split": None},
            "group_near_duplicates: there are no splits to keep near-duplicates together in; add `split`",
        ),
        ({"append": True}, "group_near_duplicates: given together with `append`"),
        ({"fields": "json,txt"}, "fields: none of the fields json, txt is an image that can be compared"),
    ],
    ids=["no splits", "append", "no image"],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str, tree: Path, out: Path) -> None:
    with pytest.raises(UsageError, match=message):
        pack(tree, out, **options)
    assert not out.exists()


def test_nothing_is_added_to_splits_without_near_duplicates(tree: Path, out: Path) -> None:
    pack(tree, out)
    with pytest.raises(DestinationError, match=r"keep near-duplicates together.*pack all of it again"):
        pack(tree, out, group_near_duplicates=False, append=True)
