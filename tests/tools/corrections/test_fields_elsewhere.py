"""Added fields in all commands that know versions of a dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import shardkit
from shardkit.cli.main import cli
from shardkit.errors import UsageError

Rows = dict[str, dict[str, Any]]


def rows_of(source: str | Path) -> Rows:
    """Key -> the fields that are not null."""
    catalog = shardkit.dataset(source).content.catalog
    assert catalog.manifest is not None
    names = [f"meta.{name}" for name in catalog.manifest.columns]
    rows = [row for table in catalog.index_tables(["key", *names]) for row in table.to_pylist()]
    return {
        row.pop("key"): {name.removeprefix("meta."): value for name, value in row.items() if value is not None}
        for row in rows
    }


FIRST: Rows = {"cat/0001": {"age": 41, "city": "Bern"}, "dog/0002": {"age": 7}}


@pytest.fixture
def filled(train: str) -> str:
    """A dataset of three versions: with two fields, then with one sample less and another value."""
    shardkit.add_fields(train, FIRST, message="ages")
    shardkit.add_fields(train, {"dog/0002": {"age": 8}, "fox/0000": {"age": 1}}, overwrite=True)
    return train


def given(source: str | Path) -> Rows:
    return {key: values for key, values in rows_of(source).items() if values}


SECOND: Rows = FIRST | {"dog/0002": {"age": 8}, "fox/0000": {"age": 1}}


def test_log_diff_and_revert_know_fields(filled: str) -> None:
    told = [(e.version, e.kind, e.filled, e.columns, e.message) for e in shardkit.log(filled)]
    assert told[1:] == [(2, "add-fields", 2, ("age", "city"), "ages"), (3, "add-fields", 2, ("age",), "")]
    found = shardkit.diff(f"{filled}@2", filled)
    assert (found.other_fields, found.fields, found.relabelled, found.equal) == (2, ("age",), 0, False)
    rows = {row["key"]: (row["change"], row["before"], row["after"]) for row in found.table.to_pylist()}
    assert rows == {
        "dog/0002": ("other fields", '{"age":7}', '{"age":8}'), "fox/0000": ("other fields", None, '{"age":1}'),
    }  # fmt: skip
    back = shardkit.diff(filled, f"{filled}@1")
    assert (back.other_fields, back.fields) == (3, ("age", "city"))
    shardkit.relabel(filled, {"dog/0002": "fox"})
    shardkit.delete(filled, ["fox/0000"])
    both = shardkit.diff(f"{filled}@1", filled)
    assert (both.deleted, both.relabelled, both.other_fields) == (1, 1, 2)
    assert [row["change"] for row in both.table.to_pylist() if row["key"] == "dog/0002"] == [
        "relabelled",
        "other fields",
    ]
    done = shardkit.revert(filled, 2)
    assert (done.version, done.changed) == (6, 2)
    assert given(filled) == FIRST
    assert shardkit.revert(filled, 2).bytes == 0
    shardkit.revert(filled, 1)
    assert not shardkit.info(filled).columns
    shardkit.add_fields(filled, {"cat/0001": {"age": "a text now"}})
    assert shardkit.diff(f"{filled}@3", filled).other_fields == 3
    for version, wanted in ((2, FIRST), (3, SECOND), (6, FIRST), (7, {}), (8, {"cat/0001": {"age": "a text now"}})):
        assert given(f"{filled}@{version}") == wanted
    assert shardkit.verify(filled).findings == ()


def test_a_field_is_compared_under_a_list_of_numbers_and_nan(train: str) -> None:
    shardkit.add_fields(train, {"cat/0000": {"box": [1, 2]}, "cat/0001": {"x": float("nan")}})
    same = shardkit.add_fields(train, {"cat/0000": {"box": [1, 2]}, "cat/0001": {"x": float("nan")}})
    assert (same.version, same.unchanged) == (2, 2)
    shardkit.add_fields(train, {"cat/0000": {"box": [1, 3]}}, overwrite=True)
    assert shardkit.diff(f"{train}@2", train).table["after"].to_pylist() == ['{"box":[1,3]}']


def test_an_appended_dataset_keeps_fields_and_new_samples_have_none(packed_once: Path, tmp_path: Path) -> None:
    tree, train = tmp_path / "tree", str(tmp_path / "shards" / "train")
    shutil.copytree(packed_once / "tree", tree)
    shardkit.pack(tree, train, max_count=5, workers=1)
    shardkit.add_fields(train, FIRST)
    shutil.copy(tree / "cat" / "0000.jpg", tree / "cat" / "0009.jpg")
    shardkit.pack(tree, train, max_count=5, workers=1, append=True)
    assert given(train) == FIRST and rows_of(train)["cat/0009"] == {}
    shardkit.add_fields(train, {"cat/0009": {"age": 9}})
    assert given(train) == FIRST | {"cat/0009": {"age": 9}}
    assert shardkit.diff(f"{train}@1", train).added == 1
    assert shardkit.verify(train).findings == ()
    shardkit.pack(tree, train, max_count=6, workers=1, overwrite=True)
    assert not [path.name for path in (tmp_path / "shards").iterdir() if ".v" in path.name]


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
@pytest.mark.parametrize("limits", [{}, {"max_count": 4, "shuffle": True}], ids=["same shards", "others"])
def test_converted_shards_have_the_fields_in_their_index(
    form: Any, limits: dict[str, Any], filled: str, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    shardkit.delete(filled, ["dog/0002", "cat/0000"])
    out = tmp_path / "out" / "train"
    shardkit.convert(filled, out, format=form, workers=1, **limits)
    assert rows_of(out) == rows_of(filled) and shardkit.verify(out).findings == ()
    assert len(shardkit.log(out)) == 1
    assert {"meta.age", "meta.city"} <= set(pq.read_schema(f"{out}.parquet").names)
    shardkit.add_fields(filled, {"fox/0003": {"age": 3}})
    with pytest.raises(shardkit.DestinationError, match="another dataset is there"):
        shardkit.convert(filled, out, format=form, workers=1, **limits)


@pytest.mark.parametrize("emptied", [False, True], ids=["some of a shard", "a whole shard"])
def test_a_purge_removes_the_values_of_its_samples_and_keeps_all_others(emptied: bool, filled: str) -> None:
    import pyarrow.parquet as pq

    keys = ["dog/0002"]
    if emptied:
        rows = pq.read_table(f"{filled}.parquet", columns=["shard", "key"]).to_pylist()
        keys = [row["key"] for row in rows if row["shard"] == "train-000000.tar"]
    wanted = {key: values for key, values in rows_of(filled).items() if key not in keys}
    shardkit.delete(filled, keys, purge=True)
    assert rows_of(filled) == wanted
    assert shardkit.verify(filled).findings == ()
    folder = Path(filled).parent
    left = [row["key"] for path in folder.glob("*.fields.*.parquet") for row in pq.read_table(path).to_pylist()]
    assert set(left).isdisjoint(keys)
    assert {path.name for path in folder.glob("*.v*")} == {e.name for e in shardkit.log(filled)[-1].fields}
    shardkit.add_fields(filled, {"fox/0003": {"age": 3}})
    assert given(filled) == {k: v for k, v in wanted.items() if v} | (
        {} if "fox/0003" in keys else {"fox/0003": {"age": 3}}
    )


def test_unpacked_metadata_has_the_fields(filled: str, tmp_path: Path) -> None:
    shardkit.delete(filled, ["dog/0002"])
    shardkit.unpack(filled, tmp_path / "out", metadata=True)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    found = {row["file_name"]: (row["age"], row["city"]) for row in rows if row["age"] is not None}
    assert found == {"cat/0001.jpg": (41, "Bern"), "fox/0000.jpg": (1, None)}


@pytest.mark.parametrize("overwriting", [False, True])
def test_fields_are_uploaded_and_downloaded(overwriting: bool, filled: str, tmp_path: Path, packed_once: Path) -> None:
    if overwriting:
        shardkit.pack(packed_once / "tree", tmp_path / "copy" / "train", max_count=2, seed=5, workers=1)
    shardkit.upload(filled, tmp_path / "copy" / "train", overwrite=overwriting)
    copy = str(tmp_path / "copy" / "train")
    assert shardkit.verify(copy).findings == ()
    for version, wanted in ((2, FIRST), (3, SECOND)):
        assert given(f"{copy}@{version}") == wanted
    assert shardkit.add_fields(copy, {"fox/0001": {"age": 5}}).version == 4


@pytest.mark.parametrize("small", [True, False], ids=["fetched whole", "in parts"])
def test_fields_are_read_from_a_bucket(small: bool, packed_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shardkit.shards.corrections import fields
    from shardkit.shards.parquet import sources

    if not small:
        monkeypatch.setattr(sources, "FETCHED_WHOLE_BYTES", 10)
        monkeypatch.setattr(fields, "GROUP_ROWS", 1)
    train = "memory://fields/train"
    shardkit.pack(packed_once / "tree", train, max_count=2, workers=1, overwrite=True)
    shardkit.add_fields(train, FIRST)
    assert given(train) == FIRST
    batches = shardkit.dataset(train).decode(size=8, columns={"age": -1}).batch(4)
    assert sorted(age for batch in batches for age in batch["age"].tolist()) == [-1] * 10 + [7, 41]
    assert shardkit.verify(train).findings == shardkit.verify(train, read=True).findings == ()
    assert shardkit.delete(train, ["dog/0002"], purge=True).kind == "purge"
    assert given(train) == {"cat/0001": FIRST["cat/0001"]}


def test_info_and_report_show_fields(filled: str, tmp_path: Path) -> None:
    assert shardkit.info(filled).columns == {"age": "int64", "city": "string"}
    shardkit.report(filled, tmp_path / "report.html")
    assert "city" in (tmp_path / "report.html").read_text()


def test_what_would_lose_fields_is_refused(filled: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"was corrected \(version 3\)"):
        shardkit.repair(filled, tmp_path / "out")
    shardkit.export(filled, "timm")


def test_the_commands_say_what_they_did(train: str, tmp_path: Path) -> None:
    (tmp_path / "ages.csv").write_text("key,age,city\ncat/0001,41,Bern\ndog/0002,7,\n")

    def said(*words: str) -> str:
        found = CliRunner().invoke(cli, list(words), catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return found.output

    text = said("add-fields", train, str(tmp_path / "ages.csv"))
    assert "2 samples given age (int64), city (string); this is version 2" in text
    assert "pandas, DuckDB" in text
    assert "nothing to change; this is still version 2" in said("add-fields", train, str(tmp_path / "ages.csv"))
    assert "age, city of 2" in said("log", train)
    assert "2 with other fields (age, city)" in said("diff", f"{train}@1", train)
    assert "age (int64), city (string)" in said("info", train)
    found = json.loads(said("add-fields", train, str(tmp_path / "ages.csv"), "--json"))
    assert (found["kind"], found["unchanged"]) == ("add-fields", 2)


@pytest.mark.parametrize(("rows", "said"), [("cat/0001,41\n", "1 already was;"),
                                            ("cat/0001,41\ndog/0002,7\n", "2 already were;")])  # fmt: skip
def test_the_commands_count_the_samples_that_stay_as_they_were(
    train: str, tmp_path: Path, rows: str, said: str
) -> None:
    (tmp_path / "ages.csv").write_text(f"key,age\n{rows}")
    CliRunner().invoke(cli, ["add-fields", train, str(tmp_path / "ages.csv")], catch_exceptions=False)
    (tmp_path / "more.csv").write_text(f"key,age\n{rows}cat/0000,5\n")
    found = CliRunner().invoke(cli, ["add-fields", train, str(tmp_path / "more.csv")], catch_exceptions=False)
    assert found.exit_code == 0 and said in found.output


def test_fields_may_be_joined_to_the_index_by_pandas(filled: str) -> None:
    import pandas

    corrections = shardkit.dataset(filled).content.catalog.manifest.corrections  # type: ignore[union-attr]
    assert corrections is not None
    index = pandas.read_parquet(f"{filled}.parquet").set_index("key")
    for entry in corrections.fields:
        table = pandas.read_parquet(Path(filled).parent / entry.name).set_index("key")
        index = table.drop(columns=["shard", "row"]).combine_first(index)
    ages = {key: int(age) for key, age in index["meta.age"].items() if not pandas.isna(age)}
    assert ages == {key: values["age"] for key, values in given(filled).items()}
