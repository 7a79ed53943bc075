"""A shard that becomes shorter while it is mapped is an error of shardkit; the system would end the process (SIGBUS).

Each job runs in a process of its own, and cuts the shard itself in the middle of its work.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import shardkit
from shardkit.storage.mapped import shorter_error

Run = Callable[..., CompletedProcess[str]]

IMAGES, LEFT = 40, 512

BEGIN = """
import os, sys
import shardkit
from shardkit.errors import StorageError
shard, left = sys.argv[1], {left}
calls = []
def cutting(function):
    "The function, which cuts the shard when it was called for the third time."
    def cut(*arguments):
        found = function(*arguments)
        calls.append(function)
        if len(calls) == 3:
            os.truncate(shard, left)
        return found
    return cut
try:
    from shardkit.storage import mapped
    mapped.LOOK_SECONDS = 0.0
    from shardkit.reading.blocks import mapped as catalog
    from shardkit.shards import buffers as fetch
    catalog.LOOK_SECONDS = fetch.LOOK_SECONDS = 0.0
    {job}
except StorageError as exc:
    print(exc)
"""

WITHOUT_INDEX = {
    "samples": """
    from shardkit.reading.blocks import stream
    stream.BLOCK_SAMPLES = 4
    for sample in shardkit.dataset(shard):
        cutting(len)(sample)""",
    "index": """
    from shardkit.shards import scan as _shard
    from shardkit.tools import index_shards as indexing
    _shard.label_of = cutting(_shard.label_of)
    indexing.index_shards(shard)""",
    "verify": """
    from shardkit.shards import scan as _shard
    from shardkit.tools.verify import verify
    _shard.label_of = cutting(_shard.label_of)
    print(verify.verify(shard).findings)""",
    "unpack": """
    from shardkit.tools.unpack import unpack
    unpack._write = cutting(unpack._write)
    unpack.unpack(shard, "out", workers=1)""",
    "repair": """
    from shardkit.tools.repair import repair, salvage as _salvage
    _salvage.image_header = cutting(_salvage.image_header)
    repair.repair(shard, "out")""",
    "convert": """
    from shardkit.tools.convert import rows as _stored, convert
    _stored.label_of = cutting(_stored.label_of)
    convert.convert(shard, "out", workers=1)""",
    "dali": """
    from shardkit.tools import dali
    from shardkit.formats.tar.samples import TarSample
    from shardkit.formats.tfrecord.samples import TfrecordSample
    dali.any = cutting(any)
    TfrecordSample.offset, offset = property(cutting(TfrecordSample.offset.__get__)), TfrecordSample.offset
    dali.write_dali_index(shard, workers=1)""",
}

WITH_INDEX = {
    "samples": """
    for sample in shardkit.dataset(shard):
        cutting(len)(sample)""",
    "images": """
    ds = shardkit.dataset(shard)
    for number in range(len(ds)):
        cutting(len)(ds[number])""",
    "unpack": WITHOUT_INDEX["unpack"],
    "verify": """
    from shardkit.formats.tar import fast_check as _plain
    from shardkit.shards import scan as _shard
    from shardkit.tools.verify import verify
    _plain.plain_sums = lambda *arguments: None
    _shard.label_of = cutting(_shard.label_of)
    print(verify.verify(shard).findings)""",
    "convert": """
    import pyarrow.parquet as pq
    from shardkit.packing.write import stored_samples as stored
    rows = pq.read_table(shard.rpartition("-")[0] + ".parquet").to_pydict()
    columns = [rows[name] for name in ("offset", "size", "key", "path", "label", "crc32c")]
    stored._require_as_indexed = cutting(stored._require_as_indexed)
    form = shard.rpartition(".")[2]
    samples = stored.StoredSamples([os.fsencode(shard)], [0] * len(rows["key"]), *columns, form, {}, [])
    for sample in samples._each():
        pass""",
}


def run(job: str, folder: Path, form: str, run_python: Run, draw_tree: Callable[..., Path], *, index: bool) -> None:
    tree = draw_tree(folder / "tree", {"blue": IMAGES // 2, "red": IMAGES // 2}, size=(64, 64))
    shardkit.pack(tree, folder / "cars", workers=1, format=form)
    shard = folder / f"cars-000000.{form}"
    size = shard.stat().st_size
    assert size > 5 * 4096  # what is cut off has pages of its own
    if not index:
        for name in ("cars.json", "cars.parquet"):
            (folder / name).unlink()
    code = BEGIN.format(left=LEFT, job=job.strip())
    done = run_python("-c", code, str(shard), cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    error = shorter_error(str(shard), LEFT, size)
    assert error.place in done.stdout
    assert error.fact in done.stdout


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
@pytest.mark.parametrize("job", WITHOUT_INDEX)
def test_a_shard_that_becomes_shorter_is_an_error(
    job: str, form: str, tmp_path: Path, run_python: Run, draw_tree: Callable[..., Path]
) -> None:
    run(WITHOUT_INDEX[job], tmp_path, form, run_python, draw_tree, index=False)


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
@pytest.mark.parametrize("job", WITH_INDEX)
def test_a_shard_with_an_index_that_becomes_shorter_is_an_error(
    job: str, form: str, tmp_path: Path, run_python: Run, draw_tree: Callable[..., Path]
) -> None:
    run(WITH_INDEX[job], tmp_path, form, run_python, draw_tree, index=True)


def test_a_packed_shard_that_becomes_shorter_is_an_error(
    tmp_path: Path, run_python: Run, draw_tree: Callable[..., Path]
) -> None:
    """Its last bytes are summed when they were unpacked, SUM_BYTES at a time."""
    code = """
import os, sys
from shardkit.errors import StorageError
from shardkit.location import locate
from shardkit.storage import mapped
from shardkit.shards import scan as _shard
mapped.LOOK_SECONDS = 0.0
shard = locate(sys.argv[1])
sums, _shard.summer = _shard.summer, lambda view: cut(sums(view))
def cut(crc):
    def summed(start, end):
        os.truncate(shard.path, 100)
        return crc(start, end)
    return summed
_shard.SUM_BYTES = 100
try:
    _shard.open_shard(shard)
except StorageError as exc:
    print(exc)
"""
    shard = tmp_path / "x.tar.gz"
    tree = draw_tree(tmp_path / "tree", {"blue": IMAGES})
    shardkit.pack(tree, tmp_path / "cars", workers=1)
    shard.write_bytes(gzip.compress((tmp_path / "cars-000000.tar").read_bytes(), 1))
    size = shard.stat().st_size
    done = run_python("-c", code, str(shard), cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert shorter_error(str(shard), 100, size).fact in done.stdout
