"""What `report --compare` says changed between two versions of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.cli.main import run

pytest.importorskip("matplotlib")


@pytest.fixture
def versions(tmp_path: Path, draw_tree: Any) -> tuple[Path, Path]:
    """Two trees: of the second, an image is gone, one is new, one is of another class, and one has other bytes."""
    before = draw_tree(tmp_path / "before", {"a": 4, "b": 3}, seed=1)
    after = draw_tree(tmp_path / "after", {"a": 4, "b": 3}, seed=1)
    (after / "a" / "0000.jpg").unlink()
    draw_tree(tmp_path / "more", {"c": 1}, seed=50)
    (after / "c").mkdir()
    (tmp_path / "more" / "c" / "0000.jpg").rename(after / "c" / "0000.jpg")
    other = after / "b" / "0001.jpg"
    other.write_bytes((before / "b" / "0002.jpg").read_bytes())
    return before, after


def test_samples_added_gone_and_with_other_bytes_are_listed(versions: tuple[Path, Path], tmp_path: Path) -> None:
    before, after = versions
    found = shardkit.report(str(before), tmp_path / "r.html", compare=str(after)).changes
    assert found is not None
    assert (found.same, found.added, found.gone) == (6, ("c/0000",), ("a/0000",))
    assert (found.changed, found.relabelled) == (("b/0001",), ())
    assert found.classes == (("a", 4, 3), ("c", None, 1))
    page = (tmp_path / "r.html").read_text("utf-8")
    section = page.partition('<section id="changes"')[2].partition("</section>")[0]
    assert "6 in both, 1 added, 1 gone, 0 with another class, 1 with other bytes" in section


def test_classes_are_compared_by_name(tmp_path: Path, draw_tree: Any) -> None:
    tree = draw_tree(tmp_path / "tree", {"a": 2, "b": 2}, seed=1)
    names = ["b", "a"]
    shardkit.pack(tree, tmp_path / "one", workers=1)
    shardkit.pack(tree, tmp_path / "two", classes=names, workers=1)
    found = shardkit.report(str(tmp_path / "one"), tmp_path / "r.html", compare=str(tmp_path / "two")).changes
    assert found is not None
    assert (found.same, found.relabelled, found.classes) == (4, (), ())


def test_a_sample_of_another_class_is_relabelled(tmp_path: Path, draw_tree: Any) -> None:
    tree = draw_tree(tmp_path / "tree", {"a": 2, "b": 2}, seed=1)
    files = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*.jpg"))
    for name, labels in (("one", "aabb"), ("two", "abbb")):
        lines = "".join(f"{file},{label}\n" for file, label in zip(files, labels, strict=True))
        (tree / f"{name}.csv").write_text("path,label\n" + lines)
        shardkit.pack(tree / f"{name}.csv", tmp_path / name, workers=1)
    found = shardkit.report(str(tmp_path / "one"), tmp_path / "r.html", compare=str(tmp_path / "two")).changes
    assert found is not None
    assert found.relabelled == ((files[1].removesuffix(".jpg"), "a", "b"),)
    assert (found.changed, found.classes) == ((), (("a", 2, 1), ("b", 2, 3)))


def test_datasets_without_common_keys_are_not_versions(tmp_path: Path, draw_tree: Any) -> None:
    first, second = (draw_tree(tmp_path / name, {name: 2}, seed=1) for name in ("x", "y"))
    assert shardkit.report(str(first), tmp_path / "r.html", compare=str(second)).changes is None
    assert "not versions of one dataset" in (tmp_path / "r.html").read_text("utf-8")
    assert shardkit.report(str(first), tmp_path / "r.html").changes is None
    assert 'id="changes"' not in (tmp_path / "r.html").read_text("utf-8")


def test_without_checksums_only_sizes_are_compared(versions: tuple[Path, Path]) -> None:
    from dataclasses import replace

    from shardkit.events import no_progress
    from shardkit.tools.report.changes import changes, find_changes
    from shardkit.tools.report.facts import collect

    before, after = (collect(str(each), no_progress) for each in versions)
    blind = replace(after, summed=False, sizes=np.asarray(before.sizes.max()).repeat(len(after)))
    found = find_changes(replace(before, sizes=np.asarray(before.sizes.max()).repeat(len(before))), blind)
    assert not found.summed
    assert not len(found.changed)
    assert "of another size" in changes(before, blind, found).content


def test_the_command_counts_the_changes(
    versions: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = versions
    assert run(["report", str(before), "--compare", str(after), "--out", str(tmp_path / "r.html")]) == 0
    assert "from before to after: 6 common keys, 1 added, 1 gone, 1 changed\n" in capsys.readouterr().out
