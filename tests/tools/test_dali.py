"""The index files of other readers."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import UsageError
from shardkit.formats.tfrecord.samples import read_samples
from shardkit.tools.dali import write_dali_index


def test_a_tar_index_names_each_field_with_its_place(tree: Path, tmp_path: Path) -> None:
    manifest = shardkit.pack(tree, tmp_path / "x", max_bytes=9000, workers=1)
    places = write_dali_index(tmp_path / "x")
    assert [place.name for place in places] == [f"x-00000{n}.idx" for n in range(len(manifest.shards))]
    for place in places:
        lines = Path(place.path).read_text().splitlines()
        with tarfile.open(place.path.replace(".idx", ".tar")) as tar:
            members = {member.name: member for member in tar}
        assert lines[0] == f"v1.2 {len(lines) - 1}"
        words = [word for line in lines[1:] for word in line.split()]
        assert len(words) == 4 * len(members)
        for field, offset, size, name in zip(*(words[n::4] for n in range(4)), strict=True):
            assert name.endswith("." + field)
            assert (members[name].offset_data, members[name].size) == (int(offset), int(size))


def test_a_tfrecord_index_names_each_record(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "x", format="tfrecord", workers=1)
    [place] = write_dali_index(str(tmp_path / "x-*.tfrecord"))
    samples = list(read_samples((tmp_path / "x-000000.tfrecord").read_bytes(), place="x"))
    assert Path(place.path).read_text() == "".join(f"{sample.offset} {sample.size}\n" for sample in samples)


def test_packed_shards_and_trees_are_refused(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "x", workers=1)
    (tmp_path / "z.tar.gz").write_bytes(gzip.compress((tmp_path / "x-000000.tar").read_bytes()))
    with pytest.raises(UsageError, match="compressed, which DALI can't read"):
        write_dali_index(tmp_path / "z.tar.gz")
    with pytest.raises(UsageError, match="a class directory"):
        write_dali_index(tree)


def test_a_tar_whose_first_name_looks_like_a_zlib_stream_is_plain(draw_image: Any, tmp_path: Path) -> None:
    for name in ("80", "8O"):  # 38 30, 38 4F: method 8, and a multiple of 31
        shardkit.write([{"__key__": f"{name}/a", "jpg": draw_image(), "cls": 0}], tmp_path / name, classes=["c"])
        assert [place.name for place in write_dali_index(tmp_path / name)] == [f"{name}-000000.idx"]
        manifest = shardkit.convert(str(tmp_path / f"{name}-000000.tar"), tmp_path / "out" / name, shuffle=True)
        assert manifest.samples == 1
