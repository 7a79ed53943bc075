from __future__ import annotations

import logging
import os
import socket
from array import array
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from shardkit.errors import SourceError, UsageError
from shardkit.events import Progress
from shardkit.sources import columns, keys
from shardkit.sources import left_out as leftout
from shardkit.sources.source import Source, scan_tree
from shardkit.sources.tree import native, walk

WAYS = ["with the C lister, where it is built", "with scandir"]


@pytest.fixture(autouse=True, params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test is for both ways of listing a folder and of taking paths and keys."""
    if request.param == WAYS[1]:
        for module in (native, columns, keys):
            monkeypatch.setattr(module, "load", lambda name: (None, "not wanted"))
    found: str = request.param
    return found


def grow(root: Path, *files: str | bytes, size: int = 3) -> Path:
    """Make files of `size` bytes below `root`; a name that ends with `/` is a folder."""
    for name in files:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        folder = path if path.endswith(b"/") else os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        if not path.endswith(b"/"):
            with open(path, "wb") as file:
                file.write(b"x" * size)
    return root


def paths(source: Source) -> list[str]:
    return [os.fsdecode(path) for path in source.paths]


def reasons(source: Source) -> dict[str, int]:
    return {reason: entry.count for reason, entry in source.left_out.reasons.items()}


def test_folders_are_classes_in_sorted_order_and_files_are_rows(tmp_path: Path) -> None:
    grow(tmp_path, "dog/b.jpg", "dog/a.png", "cat/2.JPEG", size=7)
    grow(tmp_path, "cat/1.jpg", size=0)
    source = scan_tree(tmp_path)
    assert source.classes == ("cat", "dog")
    assert paths(source) == ["cat/1.jpg", "cat/2.JPEG", "dog/a.png", "dog/b.jpg"]
    assert source.sizes.tolist() == [0, 7, 7, 7]
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert (source.sizes.dtype, source.labels.dtype, source.counts.dtype) == (np.int64, np.int32, np.int64)
    assert source.counts.tolist() == [2, 2]
    assert source.keys(range(4)) == ["cat/1", "cat/2", "dog/a", "dog/b"] == [source.key(row) for row in range(4)]
    assert os.path.join(source.root, source.paths[0]) == os.fsencode(tmp_path / "cat" / "1.jpg")
    assert len(source) == 4 and source.left_out.total == 0 and source.left_out.lines() == []


def test_the_order_is_that_of_keras(tmp_path: Path) -> None:
    grow(
        tmp_path, *(f"c/{d}{n}.jpg" for d in ("", "a/", "a/b/", "a b/", "a-b/c/", "é/", "Z/") for n in ("2", "10", "é"))
    )
    grow(tmp_path, b"c/\xff/1.jpg", "c/\ue000/1.jpg", "c/\U00010000.jpg", b"c/\xff.jpg", "c/\ue000.jpg", "c/a/b.jpg")
    expected = []
    for folder, _, names in sorted(os.walk(tmp_path / "c"), key=lambda step: step[0]):
        expected += [os.path.relpath(os.path.join(folder, name), tmp_path) for name in sorted(names)]
    assert len(expected) == 27
    assert paths(scan_tree(tmp_path)) == expected


def test_other_files_are_left_out_and_counted_by_reason(tmp_path: Path) -> None:
    grow(tmp_path, "c/1.jpg", "c/a.txt", "c/b.TXT", "c/c.csv", "c/jpg", "c/.hidden.jpg", "c/._1.jpg", "c/.DS_Store")
    grow(tmp_path, "c/.ipynb_checkpoints/1.jpg", "c/__MACOSX/1.jpg", "c/Thumbs.db", "c/desktop.ini", "c/@eaDir/1.jpg")
    grow(tmp_path, ".git/1.jpg", "__MACOSX/c/1.jpg", "top.jpg", "README.md")
    source = scan_tree(tmp_path)
    assert source.classes == ("c",)
    assert paths(source) == ["c/1.jpg"]
    assert reasons(source) == {
        leftout.HIDDEN_FILES: 3,
        leftout.HIDDEN_FOLDERS: 2,
        leftout.SYSTEM: 5,
        leftout.OTHER_EXTENSIONS: 4,
        leftout.NOT_IN_A_CLASS: 2,
    }
    assert source.left_out.total == 16
    assert "files with other extensions: 4 (.txt 2, .csv 1, without extension 1)" in source.left_out.lines()
    assert "files not in a class folder: 2 (README.md, top.jpg)" in source.left_out.lines()


def test_examples_of_what_is_left_out_are_the_first_few(tmp_path: Path) -> None:
    grow(tmp_path, "c/1.jpg", *(f"c/.{n}" for n in range(9)), "c/.new\nline", *(f"c/x.e{n}" for n in range(7)))
    left_out = scan_tree(tmp_path).left_out
    assert left_out.reasons[leftout.HIDDEN_FILES].examples == ("c/.0", "c/.1", "c/.2", "c/.3", "c/.4")
    assert left_out.lines() == [
        "files with other extensions: 7 (.e0 1, .e1 1, .e2 1, .e3 1, .e4 1, …)",
        "hidden files: 10 (c/.0, c/.1, c/.2, c/.3, c/.4, …)",
    ]


def test_extensions_can_be_chosen_in_any_case_and_with_a_dot(tmp_path: Path) -> None:
    grow(tmp_path, "c/1.JpG", "c/2.Tar", "c/3.png")
    assert paths(scan_tree(tmp_path, extensions=[".TAR", "jpg"])) == ["c/1.JpG", "c/2.Tar"]


@pytest.mark.parametrize("extensions", [[], "jpg", [""], ["."], ["seg.png"], ["a/b"]])
def test_extensions_without_sense_are_refused(tmp_path: Path, extensions: list[str]) -> None:
    grow(tmp_path, "c/1.jpg")
    with pytest.raises(UsageError, match="extensions"):
        scan_tree(tmp_path, extensions=extensions)


NAMES = ["new\nline", "a space ", "日本", "e\u0301", "x" * 220, "a\\b", "😀", "-rf", "a.b.c", b"\xff\xfe"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_read_as_it_is_and_gives_a_key_of_valid_text(tmp_path: Path, name: str | bytes) -> None:
    raw = os.fsencode(name)
    grow(tmp_path, raw + b"/" + raw + b".jpg")
    source = scan_tree(tmp_path)
    assert source.paths[0] == raw + b"/" + raw + b".jpg"
    for text in (source.key(0), *source.classes):
        assert text.encode().decode() == text
    assert "." not in source.key(0)
    if isinstance(name, bytes):
        assert source.classes == (r"\xff\xfe",)
        assert source.key(0) == r"\xff\xfe/\xff\xfe"
        assert scan_tree(tmp_path, classes=[os.fsdecode(name)]).classes == source.classes
    else:
        assert source.classes == (name,)


def test_a_given_class_order_gives_the_labels(tmp_path: Path) -> None:
    grow(tmp_path, "cat/1.jpg", "dog/1.jpg")
    source = scan_tree(tmp_path, classes=["dog", "cat"])
    assert paths(source) == ["dog/1.jpg", "cat/1.jpg"]
    assert source.labels.tolist() == [0, 1]


def test_a_folder_that_the_given_classes_lack_is_an_error_that_names_it(tmp_path: Path) -> None:
    grow(tmp_path, "cat/1.jpg", "dog/1.jpg")
    with pytest.raises(SourceError, match="has the class folders dog, which `classes` does not name; add the name"):
        scan_tree(tmp_path, classes=["cat"])


def test_a_given_class_without_a_folder_has_no_files_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grow(tmp_path, "cat/1.jpg", "dog/1.jpg")
    source = scan_tree(tmp_path, classes=["ant", "cat", "dog"])
    assert source.counts.tolist() == [0, 1, 1]
    assert source.labels.tolist() == [1, 2]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no image of class ant" in caplog.text


@pytest.mark.parametrize("classes", [[], "cat", ["cat", "cat"], ["cat", "\ud800"]])
def test_classes_without_sense_are_refused(tmp_path: Path, classes: list[str]) -> None:
    grow(tmp_path, "cat/1.jpg")
    with pytest.raises(UsageError, match="classes"):
        scan_tree(tmp_path, classes=classes)


def test_a_class_without_images_stays_a_class_and_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grow(tmp_path, "a/", "b/x.txt", "c/1.jpg")
    source = scan_tree(tmp_path)
    assert source.classes == ("a", "b", "c")
    assert source.counts.tolist() == [0, 0, 1]
    assert "no image of class a, b" in caplog.text


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere: there is no such folder"):
        scan_tree(tmp_path / "nowhere")


def test_a_root_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="this is a file"):
        scan_tree(grow(tmp_path, "x.zip") / "x.zip")


def test_an_empty_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the folder is empty"):
        scan_tree(tmp_path)


def test_a_root_with_files_only_is_an_error_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"no class folder .*not in a class folder: 1 \(1\.jpg\).*; put the images of each"
    ):
        scan_tree(grow(tmp_path, "1.jpg", ".hidden/1.jpg"))


def test_class_folders_without_any_image_are_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"contain no image \(files with other extensions: 2 \(\.txt 2\)\)"):
        scan_tree(grow(tmp_path, "a/1.txt", "b/2.txt"))


@pytest.mark.parametrize("where", ["", "c", "c/sub"])
def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    grow(tmp_path, "c/1.jpg", "c/sub/1.jpg")
    closed, real = os.path.join(tmp_path, where) if where else str(tmp_path), os.open

    def refuse(path: str, *args: int, **options: int) -> int:
        if path == closed:
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceError, match="can't be read") as caught:
        scan_tree(tmp_path)
    assert caught.value.place == closed
    assert isinstance(caught.value.__cause__, PermissionError)


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    grow(tmp_path / "far", "real/1.jpg", "one.jpg", size=9)
    root = grow(tmp_path / "root", "c/0.jpg")
    (root / "d").symlink_to(tmp_path / "far" / "real")
    (root / "c" / "sub").symlink_to("../../far/real")
    (root / "c" / "x.jpg").symlink_to(tmp_path / "far" / "one.jpg")
    (tmp_path / "link").symlink_to(root)
    for place in (root, tmp_path / "link"):
        source = scan_tree(place)
        assert paths(source) == ["c/0.jpg", "c/x.jpg", "c/sub/1.jpg", "d/1.jpg"]
        assert source.sizes.tolist() == [3, 9, 9, 9]


def test_links_that_lead_back_or_nowhere_are_left_out(tmp_path: Path) -> None:
    root = grow(tmp_path / "root", "a/1.jpg", "b/1.jpg", "a/deep/er/1.jpg")
    loops = {"a/self": ".", "a/deep/er/up": "../..", "b/root": "..", "b/above": "../..", "again": "."}
    broken = {"a/gone.jpg": "nothing", "a/ring.jpg": "ring.jpg", "gone": "nothing"}
    for name, target in (loops | broken).items():
        (root / name).symlink_to(target)
    source = scan_tree(root)
    assert paths(source) == ["a/1.jpg", "a/deep/er/1.jpg", "b/1.jpg"]
    assert reasons(source) == {leftout.LINK_LOOPS: 5, leftout.BROKEN_LINKS: 3}


def test_folders_that_link_to_each_other_are_read_once_each_way(tmp_path: Path) -> None:
    grow(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "l").symlink_to("../b")
    (tmp_path / "b" / "l").symlink_to("../a")
    source = scan_tree(tmp_path)
    assert paths(source) == ["a/1.jpg", "a/l/1.jpg", "b/1.jpg", "b/l/1.jpg"]
    assert reasons(source) == {leftout.LINK_LOOPS: 2}


def test_pipes_and_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path, "c/1.jpg", "c/folder.jpg/2.jpg")
    os.mkfifo(tmp_path / "c" / "pipe.jpg")
    monkeypatch.chdir(tmp_path / "c")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("s.jpg")
        source = scan_tree(tmp_path)
    assert paths(source) == ["c/1.jpg", "c/folder.jpg/2.jpg"]
    assert reasons(source) == {leftout.SPECIAL: 2}


def test_progress_counts_files_and_bytes(tmp_path: Path) -> None:
    grow(tmp_path, *(f"c/{n // 600}/{n}.jpg" for n in range(1800)), size=1)
    seen: list[Progress] = []
    scan_tree(tmp_path, progress=seen.append)
    assert seen == [Progress("scan", 1200, 0, 1200), Progress("scan", 1800, 0, 1800)]


def test_a_relative_root_and_a_root_of_bytes_are_kept_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path, "t/c/1.jpg", b"\xff/c/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert scan_tree("t").root == b"t"
    assert scan_tree(b"\xff").root == b"\xff"


@pytest.mark.parametrize("name", ["2.jpg", "2.txt"])
def test_a_file_that_vanishes_during_the_scan_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    grow(tmp_path, "c/1.jpg", f"c/{name}")
    real, real_lister = walk._entries, walk.lister

    @contextmanager
    def late(path: str) -> Iterator[Iterator[walk.Entry]]:
        with real(path) as entries:
            listed = list(entries)
            if path.endswith("/c"):
                (tmp_path / "c" / name).unlink()
            yield iter(listed)

    def late_lister(extensions: Collection[str]) -> Callable[[int], native.Listed | None] | None:
        def listed(folder: int) -> native.Listed | None:
            (tmp_path / "c" / name).unlink()
            return "1.jpg/", array("q", [3]).tobytes(), [name]

        return None if real_lister(extensions) is None else listed

    monkeypatch.setattr(walk, "_entries", late)
    monkeypatch.setattr(walk, "lister", late_lister)
    source = scan_tree(tmp_path)
    assert paths(source) == ["c/1.jpg"]
    assert reasons(source) == {leftout.VANISHED: 1}
