"""Index files that are open: how many, how much of them is fetched from a store, and damage of their parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from reading.far import files_of, put, uploaded

import shardkit
from shardkit.errors import ManifestError, NotFoundError, ShardkitError
from shardkit.location import locate
from shardkit.reading.blocks import catalog
from shardkit.shards.parquet import sources
from shardkit.storage import ranged
from shardkit.storage.store import ObjectInfo

PARTS = 4
KeysOf = Callable[[Any], list[str]]


@pytest.fixture
def grown(tmp_path: Path, draw_tree: Any) -> str:
    """A dataset with PARTS index files, each for three shards."""
    tree = tmp_path / "tree"
    for part in range(PARTS):
        draw_tree(tree, {f"class{part}": 6})
        shardkit.pack(tree, tmp_path / "out" / "train", max_count=2, workers=1, append=part > 0)
    return str(tmp_path / "out" / "train")


def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read index files in a store in parts, however small."""
    monkeypatch.setattr(sources, "FETCHED_WHOLE_BYTES", 10)
    monkeypatch.setattr(ranged, "GAP_BYTES", 0)


@pytest.mark.parametrize(("memory", "count"), [(0, 128), (1 << 30, 2), (1 << 30, 128)])
def test_few_index_files_are_open_and_all_are_read(
    grown: str, memory: int, count: int, monkeypatch: pytest.MonkeyPatch, keys_of: KeysOf
) -> None:
    expected = keys_of(shardkit.dataset(grown, shuffle=True))
    monkeypatch.setattr(catalog, "INDEX_BYTES", memory)
    monkeypatch.setattr(catalog, "KEPT_INDEXES", count)
    data = shardkit.dataset(grown, shuffle=True)
    assert keys_of(data) == expected
    assert sorted(data.keys.tolist()) == sorted(expected)
    found = data.content.catalog
    assert isinstance(found, catalog.IndexCatalog)
    assert len(found._indexes) == (1 if not memory else min(count, PARTS))
    assert all(index.memory > 0 for index in found._indexes.values())


def test_an_index_file_that_is_gone_when_it_is_opened_again_is_an_error(
    grown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "INDEX_BYTES", 0)
    data = shardkit.dataset(grown)
    assert len(data.select("class0")) == 6
    for path in Path(grown).parent.glob("*.parquet"):
        path.unlink()
    with pytest.raises(NotFoundError, match=r"the index is missing"):
        list(data)


def test_labels_and_keys_of_a_store_fetch_less_than_the_index(
    grown: str, watched: Any, monkeypatch: pytest.MonkeyPatch, keys_of: KeysOf
) -> None:
    far, here = uploaded(grown), shardkit.dataset(grown)
    requests = watched()
    in_parts(monkeypatch)
    paths = list(Path(grown).parent.glob("*.parquet"))
    rows = sum(path.stat().st_size - pq.ParquetFile(path).metadata.serialized_size for path in paths)

    def fetched(ask: Callable[[Any], Any]) -> tuple[Any, int]:
        """The answer, and the bytes that were fetched besides the files' own descriptions."""
        data = shardkit.dataset(far)
        for part in range(PARTS):
            data.content.catalog._index(part)
        requests.clear()
        answer = ask(data)
        return answer, sum(size for kind, name, _, size in requests if kind == "read" and name.endswith(".parquet"))

    found, size = fetched(lambda data: data.labels.tolist())
    assert found == here.labels.tolist()
    assert 0 < size < rows / 5
    found, size = fetched(lambda data: data["class2/0001"]["cls"])
    assert found == 2
    assert size < rows / 2
    found, size = fetched(lambda data: len(data.where(pc.field("width") > 0)))
    assert found == 6 * PARTS
    assert size < rows / 5
    assert keys_of(shardkit.dataset(far, shuffle=7)) == keys_of(shardkit.dataset(grown, shuffle=7))


def test_the_rows_of_many_shards_of_a_store_are_fetched_at_the_same_time(
    grown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = uploaded(grown)
    in_parts(monkeypatch)
    held: list[int] = []
    holding = ranged.RangedFile.holding

    def noted(self: Any, spans: Any) -> Any:
        held.append(len(spans))
        return holding(self, spans)

    monkeypatch.setattr(ranged.RangedFile, "holding", noted)
    data = shardkit.dataset(far)
    block = data.content.catalog.block(data[:].rows())
    assert [held[at] for at in (1, -1)] == [3 * len(catalog.TABLE_COLUMNS), len(catalog.TABLE_COLUMNS)]
    assert block.keys == data.keys.tolist()


@pytest.mark.parametrize("column", ["label", "key"])
def test_a_damaged_page_of_an_index_in_a_store_is_an_error(
    grown: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts(monkeypatch)
    name = "train.parquet"
    path = Path(grown).parent / name
    about = pq.ParquetFile(path).metadata.row_group(1)
    chunk = next(found for at in range(about.num_columns) if (found := about.column(at)).path_in_schema == column)
    data = bytearray(path.read_bytes())
    first = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    data[first + chunk.total_compressed_size - 3] ^= 1
    far, files = uploaded(grown), files_of(grown)
    monkeypatch.setattr(
        "shardkit.shards.objects.Objects.info", lambda self, place: ObjectInfo(place.name, len(files[place.name]))
    )
    put(locate(far).parent, {name: bytes(data)})
    with pytest.raises(ManifestError, match=r"train[.0-9]*\.parquet: the index is damaged"):
        _ = shardkit.dataset(far).labels if column == "label" else shardkit.dataset(far)["nobody"]


def test_rows_of_another_shard_are_refused_in_a_store_too(
    grown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the description of the file says which shard the rows are of, and the column is not fetched for it."""
    in_parts(monkeypatch)
    folder = Path(grown).parent
    far = uploaded(grown)
    manifest = (folder / "train.json").read_text("utf-8")
    put(locate(far).parent, {"train.json": manifest.replace("train-000001", "train-000099").encode()})
    with pytest.raises(ManifestError, match=r"rows of 'train-000001\.tar' where those of 'train-000099\.tar' belong"):
        _ = shardkit.dataset(far).labels
    shutil.rmtree(folder)


def test_an_index_in_a_store_that_is_cut_is_an_error(grown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts(monkeypatch)
    far = uploaded(grown)
    data = shardkit.dataset(far)
    _ = data.labels
    put(locate(far).parent, {"train.parquet": b"PAR1"})
    with pytest.raises(ShardkitError, match=r"train\.parquet: "):
        data.content.catalog.table(0)
