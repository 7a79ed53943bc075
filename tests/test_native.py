"""The C parts and their sources: a part that was built from others is not used."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import shardkit
from shardkit import native
from shardkit.native.sources import digest_of, is_older, newest_in, sources_of

FOLDER = Path(native.__file__).parent
PARTS = sorted(path.stem for path in FOLDER.glob("*.c"))  # none where the package is installed
NOW = 10**18


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The sources of the parts `one`, which includes a/b.h and through it c.h, and `two`; all are old."""
    (tmp_path / "include" / "a").mkdir(parents=True)
    (tmp_path / "one.c").write_text('#include <math.h>\n#include "include/a/b.h"\nint one;\n')
    (tmp_path / "two.c").write_text("int two;\n")
    (tmp_path / "include" / "a" / "b.h").write_text('/* #include "none.h" */\n  #  include "../c.h"\n')
    (tmp_path / "include" / "c.h").write_text("int c;\n")
    for path in [*tmp_path.rglob("*.c"), *tmp_path.rglob("*.h")]:
        os.utime(path, ns=(NOW - 9, NOW - 9))
    return tmp_path


def changed(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(NOW + 9, NOW + 9))


def test_the_sources_of_a_part_are_its_file_and_what_it_includes(folder: Path) -> None:
    assert [os.path.relpath(path, folder) for path in sources_of("one", str(folder))] == [
        "one.c", os.path.join("include", "a", "b.h"), os.path.join("include", "c.h"),
    ]  # fmt: skip


def test_a_part_is_old_once_one_of_its_own_sources_has_other_contents(folder: Path) -> None:
    built = {name: digest_of(sources_of(name, str(folder))) for name in ("one", "two")}
    assert newest_in(str(folder)) == NOW - 9
    changed(folder / "include" / "c.h", "int c;\n")
    assert newest_in(str(folder)) == NOW + 9
    assert not is_older(NOW, built["one"], "one", str(folder))
    changed(folder / "include" / "c.h", "int d;\n")
    assert is_older(NOW, built["one"], "one", str(folder))
    assert is_older(NOW, None, "one", str(folder))
    assert not is_older(NOW, built["two"], "two", str(folder))
    assert not is_older(NOW + 99, built["one"], "one", str(folder))
    (folder / "include" / "c.h").unlink()
    assert is_older(NOW + 99, built["one"], "one", str(folder))


@pytest.mark.parametrize("name", PARTS)
def test_a_part_says_what_it_was_built_from(name: str) -> None:
    part, why = native.load(name)
    if part is None:
        pytest.skip(why)
    assert part.__doc__ == digest_of(sources_of(name, str(FOLDER)))


@pytest.mark.skipif(not PARTS, reason="the package is installed without its sources")
def test_old_parts_are_left_out_with_one_warning(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shardkit.pack(tree, tmp_path / "with", workers=1)
    sources = shutil.copytree(FOLDER, tmp_path / "native", ignore=shutil.ignore_patterns("*.so", "*.py"))
    for path in sources.glob("*.c"):
        path.write_text(path.read_text("utf-8") + "/* later */\n", "utf-8")
    monkeypatch.setattr(native, "_FOLDER", str(sources))
    caches = native.load, native._newest, native._warn_once
    for function in caches:
        function.cache_clear()
    try:
        found = {name: native.load(name) for name in PARTS}
        assert not any(part for part, _ in found.values())
        assert native.BUILD in found["tree"][1]
        shardkit.pack(tree, tmp_path / "without", workers=1)
    finally:
        for function in caches:
            function.cache_clear()
    warned = [record.getMessage() for record in caplog.records if "other sources" in record.getMessage()]
    assert len(warned) == 1 and native.BUILD in warned[0] and str(sources) in warned[0]
    assert (tmp_path / "with-000000.tar").read_bytes() == (tmp_path / "without-000000.tar").read_bytes()
