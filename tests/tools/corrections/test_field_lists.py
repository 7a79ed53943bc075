"""Lists of fields that are refused: all faults are told at once, and nothing is written."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import DestinationError, ManifestError, NotFoundError, SourceError, UsageError
from shardkit.location import locate
from shardkit.shards.corrections import fields
from shardkit.shards.corrections.block import FieldsEntry
from shardkit.storage.patient import open_patient


def names_in(prefix: str) -> list[str]:
    return sorted(os.listdir(os.path.dirname(prefix)))


def test_all_faults_of_a_list_of_fields_are_told_together_and_nothing_is_written(train: str) -> None:
    shardkit.add_fields(train, {"cat/0001": {"age": 1}})
    shardkit.delete(train, ["cat/0003"])
    before = names_in(train)
    rows = {
        "key": ["cat/0000", "cat/0000", "nothing", "cat/0003"],
        "age": [1.0, 2.0, 2.5, 3.0],
        "label": ["a", "b", "c", "d"],
        "many": [[1], [1, 2], [], [1]],
        "none": [None, None, None, None],
    }
    with pytest.raises(SourceError) as told:
        shardkit.add_fields(train, rows)
    for part in (
        "repeats the key 'cat/0000'", "no sample has the key 'nothing'", "a deleted sample has the key 'cat/0003'",
        "its column 'age' is int64 in the dataset, and row 3 has 2.5",
        "its column 'label' has the name of a column that every index has",
        "its column 'many' can't be a field: its lists have 0 to 2 numbers",
        "its column 'none' can't be a field: it has no value",
    ):  # fmt: skip
        assert part in str(told.value)
    assert names_in(train) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,age\nx,1\n", "no column of keys or paths; its columns are name, age; .* the first line of a CSV"),
        ("cat/0000,1\n", r"the list has no rows below its header \(cat/0000, 1\); .* names of the columns"),
        ("cat/0000,1\ncat/0001,2\n", "no column of keys or paths; its columns are cat/0000, 1"),
        ("key\ncat/0000\n", "it has no column besides key; add a column for each field"),
        ("key,age\n,1\n", "row 1: it names no key"),
        ("key,age\ncat/0000,1\ncat/0001,x\ncat/0002,2\n", "'age' is int64 in the dataset, and row 2 has 'x'"),
        ("key,meta.size,size\ncat/0000,1,2\n", "meta.size and size are one field"),
        ("key,crc32c\ncat/0000,1\n", "'crc32c' has the name of a column that every index has"),
        ("", "the list is empty"),
    ],
    ids=["no key", "no header", "no header, rows", "no field", "no name", "text", "twice", "built in", "empty"],
)
def test_a_csv_of_fields_that_does_not_fit_is_refused(text: str, message: str, train: str, tmp_path: Path) -> None:
    shardkit.add_fields(train, {"cat/0003": {"age": 1}})
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        shardkit.add_fields(train, tmp_path / "list.csv")
    assert len(shardkit.log(train)) == 2


@pytest.mark.parametrize("command", ["relabel", "delete"])
def test_a_list_of_corrections_without_a_header_is_told_so(command: str, train: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("cat/0000,dog\n")
    with pytest.raises(SourceError, match=r"no rows below its header \(cat/0000, dog\); name at least one file, below"):
        getattr(shardkit, command)(train, tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"key": ["cat/0000"], "age": [1, 2]}, UsageError, "the columns differ in length: key has 1, age has 2"),
        ({"key": [], "age": []}, UsageError, "it has no rows"),
        ({}, UsageError, "it has no rows"),
        ([], UsageError, "not a list of records"),
        (["cat/0000"], UsageError, "not a list of records"),
        ({"key": ["cat/0000", "cat/0001"], "age": [1, "x"]}, UsageError, "mixes values of the types int and str"),
        ({"key": ["cat/0000"], "x": np.zeros((1, 2, 2))}, UsageError, "3 dimensions"),
        ({"cat/0000": {"x": b"bytes"}}, SourceError, "values of the type binary have no column"),
        (7, UsageError, "int is not something that can be packed"),
    ],
    ids=["lengths", "empty", "nothing", "no records", "texts", "mixed", "dimensions", "bytes", "number"],
)
def test_fields_in_python_that_do_not_fit_are_refused(given: Any, error: type, text: str, train: str) -> None:
    with pytest.raises(error, match=text):
        shardkit.add_fields(train, given)
    assert len(shardkit.log(train)) == 1


def test_a_backslash_in_a_key_is_shown_as_it_is(train: str) -> None:
    with pytest.raises(SourceError, match=r"no sample has the key 'a\\b'") as told:
        shardkit.add_fields(train, {"a\\b": {"age": 1}})
    assert "a\\\\b" not in str(told.value)


def test_a_column_that_the_list_does_not_have_can_not_be_chosen(train: str) -> None:
    with pytest.raises(SourceError, match="no column 'size' beside its key; its columns are key, age"):
        shardkit.add_fields(train, {"key": ["cat/0000"], "age": [1]}, columns=["size"])
    with pytest.raises(UsageError, match="5 is not a list of names"):
        shardkit.add_fields(train, {"key": ["cat/0000"], "age": [1]}, columns=5)  # type: ignore[arg-type]


@pytest.fixture
def filled(train: str) -> str:
    """A dataset with a field in version 2."""
    shardkit.add_fields(train, {"cat/0001": {"age": 41}, "dog/0002": {"age": 7}})
    return train


def fields_file(prefix: str) -> Path:
    corrections = shardkit.dataset(prefix).content.catalog.manifest.corrections  # type: ignore[union-attr]
    assert corrections is not None
    return Path(prefix).parent / corrections.fields[-1].name


def test_a_missing_or_damaged_file_of_fields_is_reported_with_its_cure(filled: str) -> None:
    path = fields_file(filled)
    data = path.read_bytes()
    path.unlink()
    columns = {"age": -1}
    with pytest.raises(NotFoundError, match="the file of added fields is missing; restore it, or open another version"):
        list(shardkit.dataset(filled).decode(size=8, columns=columns).batch(4))
    assert [finding.kind for finding in shardkit.verify(filled).findings] == ["fields-missing"]
    path.write_bytes(data[:60] + b"x" + data[61:])
    with pytest.raises(ManifestError, match="the file of added fields is not the one that its manifest names"):
        list(shardkit.dataset(filled).decode(size=8, columns=columns).batch(4))
    assert [finding.kind for finding in shardkit.verify(filled).findings] == ["fields-damaged"]
    assert len(list(shardkit.dataset(f"{filled}@1").decode(size=8).batch(12))) == 1
    with pytest.raises(shardkit.DatasetError):
        shardkit.unpack(filled, f"{filled}-out", metadata=True)
    path.write_bytes(data)
    assert shardkit.verify(filled).findings == ()


def test_a_store_that_has_another_file_of_fields_is_reported_without_reading_it(packed_once: Path) -> None:
    train = "memory://changed-fields/train"
    shardkit.pack(packed_once / "tree", train, max_count=2, workers=1, overwrite=True)
    done = shardkit.add_fields(train, {"cat/0001": {"age": 41}})
    assert done.manifest.corrections is not None
    [entry] = done.manifest.corrections.fields
    store = open_patient(locate("memory://changed-fields"))
    store.put(entry.name, io.BytesIO(b"another file"), crc32c="00000000")
    assert [finding.kind for finding in shardkit.verify(train).findings] == ["fields-crc"]
    store.delete(entry.name)
    assert [finding.kind for finding in shardkit.verify(train).findings] == ["fields-missing"]


def opened(data: bytes, entry: FieldsEntry, samples: list[int]) -> fields.FieldsFile:
    import pyarrow as pa

    return fields.FieldsFile(pa.BufferReader(data), entry, samples, place="x.parquet")


def encoded(places: list[int], types: dict[str, str] | None = None) -> tuple[bytes, FieldsEntry]:
    import pyarrow as pa

    at = np.array(places, np.int64)
    keys, values = pa.array([str(place) for place in places]), pa.table({"age": pa.array(range(len(places)))})
    data = fields.encode_fields(at, keys, values, {"age": "int64"})
    return data, FieldsEntry("x.parquet", types or {"age": "int64"}, len(places), len(data), "00000000")


def test_a_file_of_fields_of_a_later_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fields, "VERSION", b"2")
        data, entry = encoded([0, 1])
    with pytest.raises(ManifestError, match=r"added fields has version 2, .* install a newer shardkit"):
        opened(data, entry, [2])


@pytest.mark.parametrize(
    ("places", "samples", "types", "text"),
    [
        ([0, 5], [2], None, "values for samples that the shards do not have"),
        ([0, 1 << 32], [2], None, "values for shards that the dataset does not have"),
        ([1, 0], [2], None, "its rows are not in order"),
        ([0, 1], [2], {"age": "string"}, "no column 'meta.age' of the type string"),
        ([0, 1], [2], {"city": "int64"}, "no column 'meta.city' of the type int64"),
    ],
    ids=["row", "shard", "order", "type", "column"],
)
def test_a_file_of_fields_that_does_not_fit_is_refused(
    places: list[int], samples: list[int], types: dict[str, str] | None, text: str
) -> None:
    data, entry = encoded(places, types)
    with pytest.raises(ManifestError, match=text):
        opened(data, entry, samples).group(0, ["meta.age"])


def test_any_damage_of_a_file_of_fields_is_an_error_or_changes_nothing() -> None:
    data, entry = encoded([0, 1, 1 << 32, (1 << 32) + 1])
    wanted = opened(data, entry, [2, 2]).group(0, ["meta.age"])[1]
    for at in range(0, len(data), 3):
        damaged = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        try:
            found = opened(damaged, entry, [2, 2]).group(0, ["meta.age"])[1]
        except ManifestError:
            continue
        assert found.equals(wanted) or found.column_names == wanted.column_names


def test_the_manifest_names_only_files_of_fields_that_a_version_wrote(filled: str) -> None:
    import json

    path = Path(f"{filled}.json")
    whole = path.read_text()
    for change, text in (
        ({"name": "../x"}, "is not a plain file name|none of its versions wrote"),
        ({"rows": 99}, "more rows than there are samples"),
        ({"crc32c": "x"}, "none of its versions wrote"),
        ({"columns": 5}, "is damaged"),
    ):
        manifest = json.loads(whole)
        manifest["options"]["corrections"]["fields"][0].update(change)
        path.write_text(json.dumps(manifest))
        with pytest.raises(ManifestError, match=text):
            shardkit.dataset(filled).classes  # noqa: B018


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_fields_are_not_added_in_a_read_only_folder(filled: str) -> None:
    folder = Path(filled).parent
    folder.chmod(0o555)
    try:
        with pytest.raises(DestinationError, match="not writable"):
            shardkit.add_fields(filled, {"cat/0000": {"age": 1}})
    finally:
        folder.chmod(0o755)
    assert len(shardkit.log(filled)) == 2
