"""Which part of a pattern stands for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardkit.location import locate
from shardkit.shards.find.files import Disk
from shardkit.shards.find.pattern import is_numbered, read_pattern


def matching(text: str) -> list[str]:
    """The paths that a pattern means on a disk."""
    pattern = read_pattern(locate(text), Disk())
    return [place.path for place in Disk().matching(pattern.known, pattern.rest)]


@pytest.mark.parametrize("folder", ["plain", "a[1]", "a?", "a*", "a[", "[!a]"])
def test_a_glob_takes_a_folder_that_is_there_as_it_is_named(folder: str, tmp_path: Path) -> None:
    for name in (folder, "a1"):
        (tmp_path / name).mkdir(exist_ok=True)
        for number in range(2):
            (tmp_path / name / f"t-{number}.tar").touch()
    assert matching(f"{tmp_path}/{folder}/t-*.tar") == [f"{tmp_path}/{folder}/t-{number}.tar" for number in range(2)]


def test_a_bracket_stands_for_itself_where_nothing_else_matches(tmp_path: Path) -> None:
    for name in ("t[1]-0.tar", "t[1]-1.tar"):
        (tmp_path / name).touch()
    assert matching(f"{tmp_path}/t[1]-*.tar") == [f"{tmp_path}/t[1]-0.tar", f"{tmp_path}/t[1]-1.tar"]
    (tmp_path / "t1-0.tar").touch()
    assert matching(f"{tmp_path}/t[1]-*.tar") == [f"{tmp_path}/t1-0.tar"]
    assert matching(f"{tmp_path}/**/t1*") == [f"{tmp_path}/t1-0.tar"]


@pytest.mark.parametrize(
    ("name", "numbered"),
    [
        ("x-000000.tar", True),
        ("x-*.tar", True),
        ("x-0000[0-9]?.tar", True),
        ("x-{000..004}.tar.gz", True),
        ("x-{a,b}-*.tfrecord", True),
        ("x.tfrecord-?????-of-00010", True),
        ("x", False),
        ("x.tar", False),
        ("a[1]", False),
        ("x-*", False),
        ("x*.tar", False),
    ],
)
def test_what_has_the_number_of_a_shard_names_no_dataset(name: str, numbered: bool) -> None:
    assert is_numbered(name) is numbered


@pytest.mark.parametrize(
    ("there", "text", "known"),
    [
        ("a[1]/x", "a[1]/t-*.tar", "a[1]/"),
        ("b/x", "a[1]/t-*.tar", ""),
        ("t[1].json", "t[1]-*.tar", "t[1]-"),
        ("t[1].json", "t[1]-g2-*.tar", "t[1]-g2-"),
        ("t[1]-*.tar", "t[1]-*.tar", "t[1]-*.tar"),
        ("a{0,1}/t{2}.json", "a{0,1}/t{2}-{0..4}.tar", "a{0,1}/t{2}-"),
        ("x", "plain/t-*.tar", "plain/"),
        ("x", "plain/*/t-*.tar", "plain/"),
    ],
)
def test_what_is_there_by_its_name_is_known(there: str, text: str, known: str, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    pattern = read_pattern(locate(f"{tmp_path}/{text}"), Disk())
    assert (pattern.known.path, pattern.rest) == (f"{tmp_path}/{known}", text.removeprefix(known))
