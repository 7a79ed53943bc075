"""A list that is read, and whose files are looked at and read, while the process loads gives the same shards."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.cli.main import main, run
from shardkit.errors import SourceError
from shardkit.formats.tar.fast_write import extension
from shardkit.sources.lists import early, rows
from shardkit.sources.lists.early import NOT_LOOKED_AT, reading_early, taken
from shardkit.sources.lists.plain_files import extension as lists_extension
from shardkit.sources.options import TableColumns
from shardkit.sources.tree import early as tree_early

pytestmark = pytest.mark.skipif(
    extension() is None or lists_extension() is None, reason="the C extensions are not built here"
)

Content = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def table(tree: Path) -> Path:
    """A list of the tree, in an order of its own."""
    files = sorted(tree.rglob("*.jpg"), key=lambda path: path.name)
    lines = [f"{path.relative_to(tree)},{path.parent.name}" for path in files]
    (tree / "list.csv").write_text("\n".join(["file,label", *lines, ""]))
    return tree / "list.csv"


def images() -> Any:
    return extension().Ahead(b"/", b"jpg\0", 1 << 20, 100, 2)


def visit(seen: Any, paths: list[Path], start: int = 0) -> tuple[int, list[int]]:
    """What `visit` returns, and the sizes."""
    names = [os.fsencode(path) for path in paths]
    offsets, sizes = np.cumsum([0, *map(len, names)]), np.full(len(names), NOT_LOOKED_AT)
    return seen.visit(b"".join(names), offsets, sizes, start), sizes.tolist()


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("root", ["its own", "another"])
def test_a_list_that_was_read_early_packs_to_the_same_bytes(
    table: Path, out: Path, content_of: Content, monkeypatch: pytest.MonkeyPatch, reading: bool, root: str
) -> None:
    monkeypatch.setattr(tree_early, "cores", lambda: 2)
    if root == "another":
        lines = [f"{table.parent}/{line}" for line in table.read_text().splitlines()[1:]]
        table = out.parent / "list.csv"
        table.write_text("\n".join(["file,label", *lines, ""]))
    shardkit.pack(table, out / "late" / "d", max_count=5, workers=1)
    with reading_early(str(table), TableColumns(), reading=reading):
        monkeypatch.setattr(rows, "read_table", lambda *args, **more: pytest.fail("the list is read again"))
        shardkit.pack(table, out / "early" / "d", max_count=5, workers=1)
        ahead = tree_early.read_ahead(os.fsencode(table.parent))
        assert (ahead is not None) == reading
    assert content_of(out / "early") == content_of(out / "late")


def test_files_that_were_read_are_not_read_again(
    table: Path, out: Path, content_of: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    shardkit.pack(table, out / "late" / "d", workers=1)
    monkeypatch.setattr(tree_early, "cores", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.run)  # all is read at once
    with reading_early(str(table), TableColumns(), reading=True):
        monkeypatch.undo()
        for path in table.parent.rglob("*.jpg"):
            path.write_bytes(bytes(path.stat().st_size))
        shardkit.pack(table, out / "early" / "d", workers=1)
    assert content_of(out / "early") == content_of(out / "late")


def test_the_command_reads_a_list_once(table: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = rows.read_table, []
    monkeypatch.setattr(rows, "read_table", lambda *args, **more: calls.append(args) or read(*args, **more))
    monkeypatch.chdir(table.parent)
    for source, more in (("list.csv", []), (str(table), ["--label-column", "label"]), ("./list.csv", ["--dry-run"])):
        with pytest.raises(SystemExit) as ended:
            main(["pack", source, str(out / str(len(calls))), "-q", *more])
        assert not ended.value.code
    assert len(calls) == 3


def test_a_list_is_taken_once_with_its_own_options_and_within_the_block(table: Path) -> None:
    with reading_early(str(table), TableColumns(), reading=False):
        assert taken(str(table), TableColumns(label_column="label")) is None
        assert taken(str(table.parent / "other.csv"), TableColumns()) is None
        found = taken(str(table), TableColumns())
        assert found is not None and found.looked is not None
        assert taken(str(table), TableColumns()) is None
    with reading_early(str(table), TableColumns(), reading=False):
        pass
    assert taken(str(table), TableColumns()) is None


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "file,label\nnone.jpg,a\n"])
def test_what_is_wrong_with_a_list_is_told_when_it_is_packed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(SourceError) as late:
        shardkit.pack(path, tmp_path / "late")
    with reading_early(str(path), TableColumns(), reading=True), pytest.raises(SourceError) as soon:
        shardkit.pack(path, tmp_path / "early")
    assert str(soon.value) == str(late.value)


def test_a_list_that_can_not_be_opened_is_read_once(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("where;label\na.jpg;red\n")
    assert run(["pack", str(path), str(out / "train")]) == SourceError.exit_code
    said = capsys.readouterr().err
    assert said.count("are separated by ';'") == 1
    assert said.count("it has no column of paths") == 1


def test_other_extensions_are_looked_at_again(table: Path, out: Path) -> None:
    with (
        reading_early(str(table), TableColumns(), reading=False),
        pytest.raises(SourceError, match="none of the accepted extensions"),
    ):
        shardkit.pack(table, out / "d", ext="png")


def test_a_process_that_can_start_no_thread_looks_later(
    table: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        listed = early._looking(rows.open_list(str(table), TableColumns()), reading=True)
    assert listed.looked is None


def test_files_are_looked_at_as_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for length, name in enumerate(("a.jpg", "b.jpg", "other/c.jpg", "other/d.jpg", "empty.jpg")):
        (tmp_path / name).write_bytes(b"x" * length)
    (tmp_path / "empty.jpg").write_bytes(b"")
    os.symlink("b.jpg", tmp_path / "link.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["a.jpg", "b.jpg", "link.jpg", "other/c.jpg", "other/d.jpg", "b.jpg", "empty.jpg", "pipe.jpg", "other",
             "none.jpg", "none/a.jpg", "x" * 5000]  # fmt: skip
    paths = [tmp_path / name for name in names]
    wanted = [0, 1, 1, 2, 3, 1, 0, -1, -1, -1, -1, -1]
    assert visit(images(), paths) == (len(paths), wanted)
    hurried = images()
    hurried.hurry()
    assert visit(hurried, paths) == (0, wanted)
    assert hurried.end() == -1, "nothing was read"
    assert visit(hurried, paths)[1] == [NOT_LOOKED_AT] * len(paths), "it has ended"
    assert visit(images(), paths, 3)[1] == [NOT_LOOKED_AT] * 3 + wanted[3:]


def test_files_with_sizes_are_read_however_hurried(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"data")
    seen, name = images(), os.fsencode(path)
    seen.hurry()
    for size in (4, 5, 0, -1, 1 << 40):
        seen.visit(name, np.array([0, len(name)]), np.array([size]), 0)
    assert seen.end() > 0


@pytest.mark.parametrize(
    ("root", "paths", "offsets", "sizes", "start"),
    [
        (b"/tmp", b"/a", [0, 2], [-2], 0), (b"/", b"a", [0, 1], [-2], 0), (b"/", b"/a", [0, 3], [-2], 0),
        (b"/", b"/a", [0, 0], [-2], 0), (b"/", b"/a", [-1, 2], [-2], 0), (b"/", b"/a", [0], [-2], 0),
        (b"/", b"/a", [0, 2], [-2], 2), (b"/", b"/a", [0, 2], [-2], -1), (b"/", b"/\0a", [0, 3], [-2], 0),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(
    root: bytes, paths: bytes, offsets: list[int], sizes: list[int], start: int
) -> None:
    seen = extension().Ahead(root, b"jpg\0", 100, 100, 2)
    with pytest.raises(ValueError, match="not absolute, or outside the column"):
        seen.visit(paths, np.array(offsets), np.array(sizes), start)
