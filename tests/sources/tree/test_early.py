"""A tree that is listed and read while the process loads gives the same source and shards, whatever was done."""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shardkit
from shardkit.errors import SourceError
from shardkit.formats.tar.fast_write import extension
from shardkit.sample import DEFAULT_EXTENSIONS
from shardkit.sources.source import Source, scan_tree
from shardkit.sources.tree import early, native
from shardkit.sources.tree.walk import wanted_extensions
from shardkit.system import POSIX

pytestmark = pytest.mark.skipif(extension() is None, reason="the C extension is not built here")

WHOLE = 1 << 20

WANTED = wanted_extensions(DEFAULT_EXTENSIONS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "a/notes.md", "b/deep/er/3.jpg", "b/.hidden/4.jpg", "c/5.PNG", "stray.jpg"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(name.encode())
    os.symlink("a", tmp_path / "tree" / "linked")
    return tmp_path / "tree"


@pytest.fixture
def run_before() -> Iterator[Callable[..., early._Early]]:
    """Makes an early listing that has ended before anything is taken from it."""

    def run(root: Path, room: int = WHOLE, *, asked: bool = False) -> early._Early:
        found = early._Early(extension(), str(root), room)
        if asked:  # listing comes first then
            found.taken(f"{root}/nowhere", WANTED)
        found.images.run()
        early._early.append(found)
        return found

    yield run
    early._early.clear()


def told(source: Source) -> tuple[object, ...]:
    return [*source.paths], source.sizes.tolist(), source.classes, source.left_out.lines()


@pytest.mark.parametrize("room", [0, 5, WHOLE])
def test_the_source_is_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch, run_before: Callable[..., early._Early], room: int
) -> None:
    expected = told(scan_tree(root))
    with early.listing_early(str(root), reading=bool(room)):
        assert told(scan_tree(root)) == expected
    run_before(f"{root}/", room)
    seen = []
    monkeypatch.setattr(native, "load", lambda name: (None, "all was listed"))
    monkeypatch.setattr("shardkit.sources.tree.walk.lister", lambda wanted: lambda folder: seen.append(folder))
    assert told(scan_tree(root)) == expected
    assert len(seen) == 1, "the folder that is too deep"


@pytest.mark.parametrize("asked", [False, True])
def test_sizes_are_those_of_the_scan_whether_images_are_small_large_or_empty(
    tmp_path: Path, run_before: Callable[..., early._Early], asked: bool
) -> None:
    """Files above 32 KiB are not read ahead, and end the reading."""
    for place, size in enumerate([0, 1, 3000, (1 << 15) - 1, 1 << 15, (1 << 15) + 1, 1 << 17, 5]):
        (tmp_path / "tree" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / "a" / f"{place}.jpg").write_bytes(bytes(size))
    if POSIX:
        os.mkfifo(tmp_path / "tree" / "a" / "pipe.jpg")
    expected = told(scan_tree(tmp_path / "tree"))
    run_before(tmp_path / "tree", asked=asked)
    assert told(scan_tree(tmp_path / "tree")) == expected


def test_a_folder_is_taken_once(root: Path, run_before: Callable[..., early._Early]) -> None:
    run_before(root)
    assert early.taken(f"{root}/a", WANTED) == ("1.jpg/2.jpg/", array("q", [7, 7]).tobytes(), ["notes.md"])
    assert early.taken(f"{root}/a", WANTED) is None
    assert early.taken(f"{root}/nowhere", WANTED) is None
    assert early.taken("/elsewhere/a", WANTED) is None


def test_other_extensions_take_nothing_and_end_the_listing(root: Path, run_before: Callable[..., early._Early]) -> None:
    expected = told(scan_tree(root, extensions=["md"]))
    run_before(root)
    assert told(scan_tree(root, extensions=["md"])) == expected
    late = early._Early(extension(), str(root), WHOLE)
    early._early[:] = [late]
    assert told(scan_tree(root, extensions=["md"])) == expected
    late.images.run()
    assert late.taken(str(root), WANTED) is None


def test_a_folder_that_the_walk_lists_itself_is_left_to_it(root: Path) -> None:
    late = early._Early(extension(), str(root), WHOLE)
    assert late.taken(str(root), WANTED) is None
    assert late.taken(f"{root}/c", WANTED) is None
    late.images.run()
    assert late.taken(f"{root}/a", WANTED) is None


def test_a_listing_that_was_stopped_gives_nothing(root: Path) -> None:
    stopped = early._Early(extension(), str(root), WHOLE)
    stopped.images.stop()
    stopped.images.run()
    assert stopped.taken(str(root), WANTED) is None
    assert stopped.images.end() == -1


def test_a_folder_whose_names_are_not_utf_8_is_left_to_the_walk(
    root: Path, run_before: Callable[..., early._Early]
) -> None:
    with open(os.path.join(os.fsencode(root), b"c", b"caf\xe9.jpg"), "wb") as file:
        file.write(b"data")
    whole = run_before(root)
    assert whole.taken(f"{root}/c", WANTED) is None
    assert whole.taken(f"{root}/a", WANTED) is not None


def test_what_was_begun_is_gone_on_with_or_ends(root: Path, tmp_path: Path) -> None:
    early.begin(f"{root}/")
    (begun,) = early._early
    with early.listing_early(str(root), reading=True):
        assert early._early == [begun]
        assert told(scan_tree(root))[2] == ("a", "b", "c", "linked")
    assert early._early == []
    early.begin(str(tmp_path))
    with early.listing_early(str(root)):
        assert [each.root for each in early._early] == [str(root)]
    assert early._early == []


def test_nothing_more_is_read_for_a_command_that_only_lists(root: Path) -> None:
    found = early._Early(extension(), str(root), WHOLE)
    early._early[:] = [found]
    with early.listing_early(str(root)):
        found.images.run()
        assert found.images.end() == -1
        assert found.taken(f"{root}/a", WANTED) is not None


@pytest.mark.parametrize("place", ["", "a\0b"])
def test_what_is_no_path_is_not_begun(place: str) -> None:
    early.begin(place)
    assert early._early == []


def test_a_process_that_can_start_no_thread_lists_later(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    expected = told(scan_tree(root))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with early.listing_early(str(root), reading=True):
        assert told(scan_tree(root)) == expected


def test_what_is_no_folder_is_reported_by_the_walk(tmp_path: Path) -> None:
    with early.listing_early(str(tmp_path / "nowhere")), pytest.raises(SourceError, match="there is no such folder"):
        scan_tree(tmp_path / "nowhere")


def packed(source: Path, dest: Path, **options: object) -> dict[str, bytes]:
    shardkit.pack(source, dest / "d", max_bytes="1MiB", **options)
    return {path.name: path.read_bytes() for path in sorted(dest.iterdir())}


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
@pytest.mark.parametrize("room", [0, 2000, WHOLE])
@pytest.mark.parametrize("asked", [False, True])
def test_images_that_were_read_are_packed_to_the_same_bytes(
    tree: Path, tmp_path: Path, run_before: Callable[..., early._Early], form: str, room: int, asked: bool
) -> None:
    (tree / "blue" / "no image.jpg").write_bytes(b"text")
    (tree / "blue" / "empty.jpg").write_bytes(b"")
    expected = packed(tree, tmp_path / "plain", format=form, on_error="skip", workers=1)
    run_before(tree, room, asked=asked)
    assert packed(tree, tmp_path / "early", format=form, on_error="skip", workers=1) == expected
    assert packed(tree, tmp_path / "threads", format=form, on_error="skip", workers=2) == expected
    assert early.read_ahead(os.fsencode(tree)).began is not None or not room


@pytest.mark.parametrize("when", ["on the occasion", "when all is listed"])
def test_images_that_were_read_are_not_read_again(
    tree: Path, tmp_path: Path, run_before: Callable[..., early._Early], when: str
) -> None:
    expected = packed(tree, tmp_path / "plain", workers=1)
    run_before(tree, asked=when == "when all is listed")
    for path in tree.glob("*/*.jpg"):
        os.chmod(path, 0o000)
        path.write_bytes(bytes(path.stat().st_size)) if os.geteuid() == 0 else None
    assert packed(tree, tmp_path / "early", workers=1) == expected


def test_an_image_whose_size_has_changed_is_read_again(
    tree: Path, tmp_path: Path, run_before: Callable[..., early._Early]
) -> None:
    run_before(tree)
    for folder in (tree, *tree.iterdir()):
        early.taken(str(folder), WANTED)  # so that the scan lists them again
    image = next(tree.glob("*/*.jpg"))
    image.write_bytes(image.read_bytes()[:-2] + b"more\xff\xd9")
    early_bytes = packed(tree, tmp_path / "early", workers=1)
    early._early.clear()
    assert packed(tree, tmp_path / "plain", workers=1) == early_bytes


def vanish(image: Path) -> None:
    image.unlink()


def become_a_pipe(image: Path) -> None:
    image.unlink()
    os.mkfifo(image)


def become_a_folder(image: Path) -> None:
    image.unlink()
    image.mkdir()


def become_a_link_to_nothing(image: Path) -> None:
    image.unlink()
    image.symlink_to("nowhere")


def grow(image: Path) -> None:
    with image.open("ab") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize(
    "change",
    [vanish, become_a_pipe, become_a_folder, become_a_link_to_nothing, grow],
    ids=lambda change: change.__name__,
)
def test_a_file_that_changes_after_it_was_listed_is_packed_as_it_was_read_or_skipped(
    tree: Path, tmp_path: Path, run_before: Callable[..., early._Early], change: Callable[[Path], None]
) -> None:
    expected = packed(tree, tmp_path / "plain", workers=1)
    run_before(tree)
    change(min(tree.glob("*/*.jpg")))
    assert packed(tree, tmp_path / "read", workers=1) == expected


@pytest.mark.parametrize(
    "change",
    [vanish, become_a_pipe, become_a_folder, become_a_link_to_nothing, grow],
    ids=lambda change: change.__name__,
)
def test_a_file_that_changes_after_it_was_listed_and_was_not_read_is_skipped(
    tree: Path, tmp_path: Path, run_before: Callable[..., early._Early], change: Callable[[Path], None]
) -> None:
    run_before(tree, 0)
    images = sorted(tree.glob("*/*.jpg"))
    change(images[0])
    found = shardkit.pack(tree, tmp_path / "d", workers=1, on_error="skip").manifest
    assert (found.samples, found.skipped) == (len(images) - 1, 1)


def test_images_of_splits_are_found_below_their_root(
    tree: Path, tmp_path: Path, run_before: Callable[..., early._Early]
) -> None:
    (tmp_path / "all" / "test").mkdir(parents=True)
    tree.rename(tmp_path / "all" / "train")
    (tmp_path / "all" / "test" / "blue").mkdir()
    (tmp_path / "all" / "test" / "blue" / "1.jpg").write_bytes(next(tmp_path.glob("all/train/*/*.jpg")).read_bytes())
    whole = run_before(tmp_path / "all")
    assert early.read_ahead(os.fsencode(tmp_path / "all" / "train")).prefix == b"train"
    assert early.read_ahead(os.fsencode(tmp_path / "all")).prefix == b""
    assert early.read_ahead(os.fsencode(tmp_path / "allother")) is None
    assert whole.below(os.fsencode(tmp_path)) is None


def test_a_shard_of_images_that_were_read_is_dated_before_they_were(
    tree: Path, tmp_path: Path, run_before: Callable[..., early._Early], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes after it was read, and before its shard is begun, is not taken for the one in the shard."""
    kept = []
    keep = "shardkit.packing.write.shard.keep_receipt"
    original = pytest.importorskip("shardkit.packing.write.shard").keep_receipt
    monkeypatch.setattr(keep, lambda *args, since, **more: kept.append(since) or original(*args, since=since, **more))
    whole = run_before(tree)
    began = whole.images.end()
    os.utime(next(tree.glob("*/*.jpg")))
    packed(tree, tmp_path / "early", workers=1)
    assert kept == [began]


def test_taking_and_reading_may_go_on_at_once(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / "many" / f"class{number:02}"
        folder.mkdir(parents=True)
        for image in range(20):
            (folder / f"{image}.jpg").write_bytes(bytes(50))
    expected = told(scan_tree(tmp_path / "many"))
    for _ in range(20):
        found = early._Early(extension(), str(tmp_path / "many"), WHOLE)
        thread = threading.Thread(target=found.images.run)
        thread.start()
        early._early[:] = [found]
        assert told(scan_tree(tmp_path / "many")) == expected
        found.images.end()
        thread.join()
