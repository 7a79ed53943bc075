"""What may be wrong with a source: each is a clear error and nothing is written, or it is packed and said."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit import Manifest
from shardkit.errors import BadFileError, SourceError
from shardkit.formats.tar import fast_write
from shardkit.formats.tar.samples import read_samples
from shardkit.packing.commit import SHOWN_SKIPPED
from shardkit.sample import path_of_text
from shardkit.sources import readers

Pack = Callable[..., Manifest]
Draw = Callable[..., bytes]


def put(root: Path, path: str | bytes, data: bytes) -> None:
    """Write a file below `root`, and the folders that it needs."""
    place = os.path.join(os.fsencode(root), os.fsencode(path))
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as file:
        file.write(data)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---- the tree


def test_a_source_that_is_not_there_is_named(tmp_path: Path, out: Path, pack_one: Pack) -> None:
    with pytest.raises(SourceError, match="pets: there is no such folder; check the path of the source"):
        pack_one(tmp_path / "pets", out / "train")
    assert not out.exists()


def test_a_source_that_is_a_file_is_refused(tmp_path: Path, out: Path, pack_one: Pack) -> None:
    put(tmp_path, "pets.rar", b"Rar!")
    with pytest.raises(SourceError, match=r"pets.rar: this file is not an archive \(.zip, .*, a list \(.csv, "):
        pack_one(tmp_path / "pets.rar", out / "train")
    assert not out.exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "tree: the folder is empty; put the images of each class into a folder"),
        (["1.jpg", "2.jpg"], r"no class folder in it \(files not in a class folder: 2 \(1.jpg, 2.jpg\)\); put"),
        (["cat/notes.txt"], r"contain no image \(files with other extensions: 1 \(.txt 1\)\); name other extensions"),
        ([".git/1.jpg"], r"no class folder in it \(hidden folders: 1 \(.git\)\)"),
    ],
)
def test_a_source_without_an_image_says_what_is_there_instead(
    files: list[str], message: str, tmp_path: Path, out: Path, pack_one: Pack, draw_image: Draw
) -> None:
    (tmp_path / "tree").mkdir()
    for name in files:
        put(tmp_path / "tree", name, draw_image())
    with pytest.raises(SourceError, match=message):
        pack_one(tmp_path / "tree", out / "deep" / "train")
    assert not out.exists()


def test_an_unreadable_folder_is_named(tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if os.fsencode(path).endswith(b"/red"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)  # the tests may run as root, for whom everything is readable
    with pytest.raises(SourceError, match=r"tree/red: the folder can't be read \(Permission denied\)"):
        pack_one(tree, out / "train")
    assert not out.exists()


def test_what_is_left_out_is_counted_and_said(
    tree: Path, out: Path, pack_one: Pack, draw_image: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (
        "top.jpg", "red/.hidden.jpg", "red/.ipynb_checkpoints/1.jpg", "red/__MACOSX/1.jpg", "red/Thumbs.db",
        "red/notes.txt", "red/noextension",
    ):  # fmt: skip
        put(tree, name, draw_image())
    (tree / "green").mkdir()
    with caplog.at_level(logging.WARNING, "shardkit"):
        manifest = pack_one(tree, out / "train")
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("blue", 5), ("green", 0), ("red", 7)]
    assert said(caplog) == [
        f"{tree}: no image of class green",
        "left out: files not in a class folder: 1 (top.jpg)",
        "left out: files with other extensions: 2 (.txt 1, without extension 1)",
        "left out: hidden files: 1 (red/.hidden.jpg)",
        "left out: hidden folders: 1 (red/.ipynb_checkpoints)",
        "left out: system files and folders: 2 (red/Thumbs.db, red/__MACOSX)",
    ]


def test_links_are_followed_and_loops_and_broken_ones_are_left_out(
    tree: Path, tmp_path: Path, out: Path, pack_one: Pack, draw_image: Draw, samples_of: Any
) -> None:
    put(tmp_path, "elsewhere/1.jpg", draw_image(90))
    (tree / "linked").symlink_to(tmp_path / "elsewhere")
    (tree / "red" / "a.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    (tree / "red" / "loop").symlink_to(tree)
    (tree / "red" / "self.jpg").symlink_to("self.jpg")
    (tree / "red" / "gone.jpg").symlink_to("nowhere.jpg")
    manifest = pack_one(tree, out / "train")
    members = samples_of(out)
    assert members["linked/1.jpg"] == members["red/a.jpg"] == draw_image(90)
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("blue", 5), ("linked", 1), ("red", 8)]


ODD_NAMES: list[str | bytes] = [
    "cat.0.jpg", "cat.1.jpg", "two words.jpg", " .jpg", "猫.jpg", "e\u0301.jpg", "é.jpg", "new\nline.jpg", "tab\t.jpg",
    "back\\slash.jpg", "A.jpg", "a.jpg", "x.jpg", "x.png", "upper.JPEG", "x-2.jpg", "quote'\".jpg", "do..ts...jpg",
    b"latin-\xe9.jpg", b"\xff\xfe.jpg", "n" * 200 + ".jpg", "ü" * 120 + ".jpg", "deep/er/" + "d" * 90 + "/1.jpg",
    "__meta__.jpg", "%41.jpg", "[1].jpg", "a;b|c&d.jpg", "-rf.jpg", "~.jpg",
]  # fmt: skip


def test_files_of_any_name_are_packed_each_under_a_key_of_its_own(
    tmp_path: Path, out: Path, pack_one: Pack, draw_image: Draw, samples_of: Any
) -> None:
    tree, expected = tmp_path / "tree", {}
    for number, name in enumerate(ODD_NAMES):
        path = b"class one/" + os.fsencode(name)
        expected[path] = draw_image(number)
        put(tree, path, expected[path])
    put(tree, "__background__/1.jpg", draw_image(1000))
    expected[b"__background__/1.jpg"] = draw_image(1000)
    manifest = pack_one(tree, out / "train", ext="jpg,jpeg,png", max_count=7)
    assert manifest.samples == len(expected) == len(ODD_NAMES) + 1
    rows = pq.read_table(out / "train.parquet").to_pylist()
    assert {path_of_text(row["path"]) for row in rows} == expected.keys()
    assert len({row["key"] for row in rows}) == len(expected)
    keys = []
    for entry in manifest.shards:
        data = (out / entry.name).read_bytes()
        for sample in read_samples(data, place=entry.name):
            row = rows[len(keys)]
            start, size = next(place for field, place in sample.fields.items() if field != "cls")
            assert data[start : start + size] == expected[path_of_text(row["path"])]
            assert (sample.key, sample.offset, sample.size) == (row["key"], row["offset"], row["size"])
            keys.append(sample.key)
    assert len(keys) == len(expected)
    assert len(samples_of(out)) == 2 * len(expected)  # by Python's tarfile


def test_the_planned_size_of_a_shard_is_its_size_for_any_name(
    tmp_path: Path, out: Path, pack_one: Pack, draw_image: Draw
) -> None:
    for number, name in enumerate(ODD_NAMES):
        put(tmp_path / "tree", b"c/" + os.fsencode(name), draw_image(number))
    plan: Any = shardkit.plan_pack(tmp_path / "tree", out / "train", max_count=4)
    manifest = pack_one(tmp_path / "tree", out / "train", max_count=4)
    assert [size for _, _, size in plan.datasets[0].shards] == [entry.bytes for entry in manifest.shards]


# ---- the files


def odd_images(draw_image: Draw) -> dict[str, bytes]:
    from PIL import Image

    def saved(image: Image.Image, format: str, **options: Any) -> bytes:
        sink = io.BytesIO()
        image.save(sink, format, **options)
        return sink.getvalue()

    frames = [Image.new("P", (8, 6), color) for color in range(3)]
    rotated = Image.Exif()
    rotated[0x0112] = 6
    return {
        "cmyk.jpg": draw_image(mode="CMYK"),
        "gray.jpg": draw_image(mode="L"),
        "16bit.png": saved(Image.new("I;16", (8, 6), 4000), "PNG"),
        "palette.png": saved(Image.new("P", (8, 6)), "PNG"),
        "transparent.png": saved(Image.new("RGBA", (8, 6), (1, 2, 3, 4)), "PNG"),
        "animated.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "rotated.jpg": saved(Image.new("RGB", (8, 6)), "JPEG", exif=rotated),
        "progressive.jpg": saved(Image.new("RGB", (8, 6)), "JPEG", progressive=True),
        "bilevel.tif": saved(Image.new("1", (8, 6)), "TIFF"),
        "web.webp": saved(Image.new("RGB", (8, 6)), "WEBP"),
        "windows.bmp": saved(Image.new("RGB", (8, 6)), "BMP"),
        "netpbm.ppm": saved(Image.new("RGB", (8, 6)), "PPM"),
    }


@pytest.mark.parametrize("check", ["header", "full", "none"])
def test_images_of_every_kind_are_packed_untouched(
    check: str, tmp_path: Path, out: Path, pack_one: Pack, draw_image: Draw, samples_of: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    images = odd_images(draw_image)
    for name, data in images.items():
        put(tmp_path / "tree", f"c/{name}", data)
    with caplog.at_level(logging.WARNING, "shardkit"):
        manifest = pack_one(tmp_path / "tree", out / "train", check=check, classes=["c"])
    members = samples_of(out)
    assert {name: members[f"c/{name}"] for name in images} == images
    assert manifest.fields == ("bmp", "cls", "gif", "jpg", "png", "ppm", "tif", "webp")
    rows = {row["path"]: (row["width"], row["height"]) for row in pq.read_table(out / "train.parquet").to_pylist()}
    assert rows.pop("c/cmyk.jpg") == rows.pop("c/gray.jpg") == (40, 30)
    assert set(rows.values()) == {(8, 6)}
    assert said(caplog) == []


def test_a_png_called_jpg_is_packed_as_it_is_and_said(
    tree: Path, out: Path, pack_one: Pack, draw_image: Draw, samples_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        put(tree, f"red/{name}.jpg", draw_image(format="PNG"))
    put(tree, "red/photo.jfif", draw_image())
    put(tree, "red/mapped.tiff", draw_image(format="TIFF"))
    with caplog.at_level(logging.WARNING, "shardkit"):
        pack_one(tree, out / "train")
    assert samples_of(out)["red/a.jpg"] == draw_image(format="PNG")
    assert said(caplog) == ["files named .jpg that are PNG: 2; they are packed unchanged"]


def damaged(draw_image: Draw) -> dict[str, tuple[bytes, str]]:
    """Name -> (content, what the error says of it)."""
    jpeg, png = draw_image(), draw_image(format="PNG")
    bomb = png[:16] + (40_000).to_bytes(4, "big") * 2 + png[24:]
    return {
        "empty.jpg": (b"", "empty file"),
        "zeros.jpg": (bytes(1000), "not an image (zero bytes only)"),
        "page.jpg": (b"<!DOCTYPE html><title>404</title>", "HTML, not an image"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "JPEG truncated: no end-of-image marker"),
        "cut in its header.jpg": (jpeg[:100], "JPEG truncated inside its header"),
        "cut.png": (png[:-20], "PNG truncated: no end chunk (IEND)"),
        "text.png": (b"this is no image at all", "not an image (starts with b'this is '"),
        "bomb.png": (bomb, "PNG of 40000 x 40000 pixels, more than 178,956,970: a decompression bomb"),
    }


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", damaged(lambda **_: bytes(200)))
def test_a_file_that_is_no_whole_image_stops_the_run_with_its_name_and_the_cure(
    name: str, workers: int, tree: Path, out: Path, pack_one: Pack, draw_image: Draw, content_of: Any
) -> None:
    data, reason = damaged(draw_image)[name]
    put(tree, f"red/{name}", data)
    with pytest.raises(BadFileError) as raised:
        pack_one(tree, out / "train", workers=workers)
    place, fact, cure = raised.value.args[:3]
    assert (place, fact[: len(reason)]) == (f"{tree}/red/{name}", reason)
    assert 'fix or remove it, or skip such files with `on_error="skip"`' in cure
    assert raised.value.exit_code == 3
    assert content_of(out) == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_are_left_out_and_listed_where_the_user_says_so(
    workers: int, tree: Path, out: Path, pack_one: Pack, draw_image: Draw, samples_of: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    bad = damaged(draw_image)
    for name, (data, _) in bad.items():
        put(tree, f"red/{name}", data)
    with caplog.at_level(logging.WARNING, "shardkit"):
        manifest = pack_one(tree, out / "train", on_error="skip", workers=workers, max_count=6)
    assert (manifest.samples, manifest.skipped) == (12, len(bad))
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("blue", 5), ("red", 7)]
    assert sum(entry.samples for entry in manifest.shards) == 12 == len(samples_of(out)) / 2
    listed = json.loads((out / "train.skipped.json").read_text("utf-8"))
    assert {item["path"] for item in listed} == {f"red/{name}" for name in bad}
    for item in listed:
        assert item["reason"].startswith(bad[item["path"].removeprefix("red/")][1])
    named = [f"skipped: {item['path']}: {item['reason']}" for item in listed[:SHOWN_SKIPPED]]
    more = f"skipped: {len(bad) - SHOWN_SKIPPED} more, {len(bad)} in all: see train.skipped.json"
    assert said(caplog) == named + [more] * (len(bad) > SHOWN_SKIPPED)


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_shard_of_bad_files_only_is_not_written(
    form: str, workers: int, tree: Path, out: Path, pack_one: Pack, content_of: Any
) -> None:
    for number in range(3):
        put(tree, f"black/{number}.jpg", b"")
        put(tree, f"blue2/{number}.jpg", b"")
    options = {"on_error": "skip", "max_count": 3, "shuffle": False, "format": form}
    manifest = pack_one(tree, out / "train", workers=workers, **options)
    assert all(entry.samples for entry in manifest.shards)
    assert sum(entry.samples for entry in manifest.shards) == 12
    written = {name for name in content_of(out) if name.endswith((".tar", ".tfrecord"))}
    assert written == {entry.name for entry in manifest.shards}
    assert len(list(shardkit.dataset(str(out / "train")))) == 12
    assert shardkit.verify(out / "train").sound
    assert pack_one(tree, out / "train", **options) == manifest
    again = pack_one(tree, out / "again" / "train", **options)
    assert again.shards == manifest.shards


def test_an_empty_shard_goes_to_no_bucket(tree: Path, pack_one: Pack) -> None:
    from shardkit.location import Location
    from shardkit.storage.store import open_store

    for number in range(3):
        put(tree, f"black/{number}.jpg", b"")
    manifest = pack_one(tree, "memory://pack-empty/train", on_error="skip", max_count=3, shuffle=False)
    there = {info.name for info in open_store(Location("memory", "pack-empty"), {}).list() if info.name.endswith("tar")}
    assert there == {entry.name for entry in manifest.shards}
    assert all(entry.samples for entry in manifest.shards)


def test_a_class_of_bad_files_only_keeps_its_label_and_is_said(
    tree: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    put(tree, "black/1.jpg", b"")
    with caplog.at_level(logging.WARNING, "shardkit"):
        manifest = pack_one(tree, out / "train", on_error="skip")
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("black", 0), ("blue", 5), ("red", 7)]
    assert said(caplog)[-1] == "no image of class black is left: all of them were skipped"


def test_a_class_folder_that_is_no_text_is_named_with_escapes(
    tmp_path: Path, out: Path, pack_one: Pack, draw_image: Draw, samples_of: Any
) -> None:
    put(tmp_path / "tree", b"caf\xe9/1.jpg", draw_image())
    put(tmp_path / "tree", "\u732b/1.jpg", draw_image(1))
    manifest = pack_one(tmp_path / "tree", out / "train", shuffle=False)
    assert manifest.class_names == ["caf\\xe9", "\u732b"]
    assert samples_of(out) == {
        "caf\\xe9/1.jpg": draw_image(), "caf\\xe9/1.cls": b"0", "\u732b/1.jpg": draw_image(1), "\u732b/1.cls": b"1",
    }  # fmt: skip
    again = pack_one(tmp_path / "tree", out / "again", classes_from=out / "train.json")
    assert again.classes == manifest.classes


def test_a_source_of_bad_files_only_is_an_error(tmp_path: Path, out: Path, pack_one: Pack, content_of: Any) -> None:
    put(tmp_path / "tree", "red/1.jpg", b"")
    put(tmp_path / "tree", "red/2.jpg", b"")
    with pytest.raises(SourceError, match=r"tree: none of its 2 files can be packed \(the first: .*: empty file\)"):
        pack_one(tmp_path / "tree", out / "train", on_error="skip")
    assert [name for name in content_of(out) if not name.startswith(".train.packing/")] == []


def test_a_damaged_image_with_a_good_header_is_found_by_the_full_check_only(
    tree: Path, out: Path, pack_one: Pack, draw_image: Draw
) -> None:
    data = bytearray(draw_image(size=(200, 200)))
    data[len(data) // 2 : len(data) // 2 + 300] = b"\xff\xc4" * 150
    put(tree, "red/bad.jpg", bytes(data))
    with pytest.raises(BadFileError, match=r"red/bad.jpg: damaged JPEG"):
        pack_one(tree, out / "train", check="full")
    assert pack_one(tree, out / "train", check="header").samples == 13


def test_nothing_is_checked_where_the_user_says_so(tree: Path, out: Path, pack_one: Pack, samples_of: Any) -> None:
    put(tree, "red/odd.jpg", b"<html>")
    assert pack_one(tree, out / "train", check="none").samples == 13
    assert samples_of(out)["red/odd.jpg"] == b"<html>"
    [row] = [row for row in pq.read_table(out / "train.parquet").to_pylist() if row["path"] == "red/odd.jpg"]
    assert (row["width"], row["height"]) == (0, 0)


# ---- a source that changes while it is packed


def change(path: Path, how: str) -> str:
    """Change a file; what the error says of it."""
    size = path.stat().st_size
    if how == "vanishes":
        path.unlink()
        return "the file has vanished since the scan"
    if how == "shrinks":
        path.write_bytes(path.read_bytes()[:-7])
        return f"the file had {size} bytes at the scan and has shrunk to {size - 7} since"
    if how == "grows":
        path.write_bytes(path.read_bytes() + b"more")
        return f"the file had {size} bytes at the scan and has grown since"
    path.unlink()
    if how == "becomes a folder":
        path.mkdir()
        return "can't be read (Is a directory)"
    if how == "becomes a pipe":
        os.mkfifo(path)
        return f"the file had {size} bytes at the scan and has shrunk to 0 since"
    path.symlink_to(path.name)
    return "can't be read (Too many levels of symbolic links)"


CHANGES = ["vanishes", "shrinks", "grows", "becomes a folder", "becomes a pipe", "becomes a loop"]


@pytest.fixture
def changed_after_the_scan(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has a function called when the plan is made and nothing is written yet."""
    from shardkit.packing.plan import content as tasks
    from shardkit.packing.plan import datasets

    def arrange(function: Callable[[], object]) -> None:
        def plan_source(*args: Any, **options: Any) -> Any:
            content = tasks.plan_source(*args, **options)
            function()
            return content

        monkeypatch.setattr(datasets, "plan_source", plan_source)

    return arrange


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_between_plan_and_write_stops_the_run(
    how: str, tree: Path, out: Path, pack_one: Pack, changed_after_the_scan: Any, content_of: Any
) -> None:
    reasons: list[str] = []
    changed_after_the_scan(lambda: reasons.append(change(tree / "red" / "0003.jpg", how)))
    with pytest.raises(BadFileError) as raised:
        pack_one(tree, out / "train")
    assert (raised.value.place, raised.value.fact) == (f"{tree}/red/0003.jpg", reasons[0])
    assert content_of(out) == {}


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_between_plan_and_write_is_left_out_where_the_user_says_so(
    how: str, tree: Path, out: Path, pack_one: Pack, changed_after_the_scan: Any, samples_of: Any
) -> None:
    reasons: list[str] = []
    changed_after_the_scan(lambda: reasons.append(change(tree / "red" / "0003.jpg", how)))
    manifest = pack_one(tree, out / "train", on_error="skip", workers=2)
    assert (manifest.samples, manifest.skipped) == (11, 1)
    assert "red/0003.jpg" not in samples_of(out)
    assert json.loads((out / "train.skipped.json").read_bytes()) == [{"path": "red/0003.jpg", "reason": reasons[0]}]


def test_a_read_that_comes_in_pieces_gives_the_whole_file(
    tree: Path, out: Path, pack_one: Pack, samples_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.read
    monkeypatch.setattr(fast_write, "extension", lambda: None)
    monkeypatch.setattr(readers.os, "read", lambda fd, size: read(fd, min(size, 100)))
    pack_one(tree, out / "train")
    monkeypatch.undo()
    members = samples_of(out)
    for path in tree.rglob("*.jpg"):
        assert members[str(path.relative_to(tree))] == path.read_bytes()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_file_that_can_not_be_read_stops_the_run(
    error: OSError, tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if os.fsencode(path).endswith(b"red/0002.jpg"):
            raise error
        return real(path, *args, **kwargs)

    monkeypatch.setattr(fast_write, "extension", lambda: None)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BadFileError, match=rf"red/0002.jpg: can't be read \({error.strerror}\)"):
        pack_one(tree, out / "train")
