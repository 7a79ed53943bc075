"""Lists of files: what their columns mean, and what is wrong with a row."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.errors import BadFileError, SourceError, UsageError
from shardkit.sources.lists import limits
from shardkit.sources.lists import text as text_lists
from shardkit.sources.lists.imagefolder import image_folders
from shardkit.sources.lists.limits import MAX_COLUMNS, MAX_NESTING, MAX_ROW_BYTES
from shardkit.sources.lists.rows import open_list, scan_lists
from shardkit.sources.lists.tables import read_table
from shardkit.sources.lists.text import SEPARATORS
from shardkit.sources.options import TableColumns
from shardkit.sources.source import Source, scan_tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with small files cat/1.jpg … dog/3.jpg."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for n in range(1, 4):
            (tmp_path / name / f"{n}.jpg").write_bytes(b"x" * n)
    return tmp_path


def scan(path: Path, options: TableColumns | None = None, **more: Any) -> Source:
    given: dict[str, Any] = {"classes": None, "extensions": ("jpg", "png"), "skip_bad": False, "in_order": False}
    return scan_lists({"": open_list(str(path), options or TableColumns())}, **given | more)[""]


def listed(folder: Path, text: str | bytes, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def paths(source: Source) -> list[str]:
    return [path.decode() for path in source.paths]


def test_rows_come_in_the_order_of_a_scan_or_in_their_own(folder: Path) -> None:
    path = listed(folder, "file,label\ndog/1.jpg,dog\ncat/2.jpg,cat\ncat/1.jpg,cat\n")
    source = scan(path)
    assert (paths(source), source.labels.tolist()) == (["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"], [0, 0, 1])
    assert (source.classes, source.sizes.tolist(), source.elsewhere) == (("cat", "dog"), [1, 2, 1], None)
    assert paths(scan(path, in_order=True)) == ["dog/1.jpg", "cat/2.jpg", "cat/1.jpg"]


def test_a_list_of_a_tree_is_the_source_that_a_scan_gives(folder: Path) -> None:
    files = sorted(folder.rglob("*.jpg"), reverse=True)
    rows = "\n".join(f"{file.relative_to(folder)},{file.parent.name}" for file in files)
    source, tree = scan(listed(folder, f"path,class\n{rows}\n")), scan_tree(folder, extensions=("jpg",))
    assert (source.classes, list(source.paths), source.keys(range(6))) == (
        tree.classes,
        list(tree.paths),
        tree.keys(range(6)),
    )
    assert source.labels.tolist() == tree.labels.tolist()


@pytest.mark.parametrize(
    ("header", "path_column", "label_column"),
    [
        ("Filename,Label,x", None, None),
        ("image,category,x", None, None),
        ("x,filepath,target", None, None),
        ("photo,breed,x", "photo", "breed"),
    ],
)
def test_the_usual_names_of_columns_are_known(
    header: str, path_column: str | None, label_column: str | None, folder: Path
) -> None:
    row = {"filename": "cat/1.jpg", "image": "cat/1.jpg", "filepath": "cat/1.jpg", "photo": "cat/1.jpg", "x": "7"}
    values = ",".join(row.get(name.lower(), "cat") for name in header.split(","))
    source = scan(listed(folder, f"{header}\n{values}\n"), TableColumns(path_column, label_column))
    assert source.inline is not None
    assert [json.loads(text) for text in source.inline.fields["json"]] == [{"x": 7}]


def test_numbers_as_labels_keep_their_numbers(folder: Path) -> None:
    path = listed(folder, "file,label\ncat/1.jpg,2\ndog/1.jpg,0\n")
    assert scan(path).classes == ("0", "1", "2")
    assert scan(path, classes=["a", "b", "c"]).labels.tolist() == [0, 2]
    with pytest.raises(BadFileError, match=r"list\.csv: row 1: its label '2' is not one of the 2 classes"):
        scan(path, classes=["a", "b"])


def test_names_as_labels_follow_the_classes_given(folder: Path) -> None:
    path = listed(folder, "file,label\ncat/1.jpg,cat\ndog/1.jpg,dog\n")
    assert scan(path, classes=["dog", "cat"]).classes == ("dog", "cat")
    with pytest.raises(BadFileError, match=r"list\.csv: row 2: its label 'dog' is not one of the 1 classes"):
        scan(path, classes=["cat"])


def test_identities_are_no_class_numbers(folder: Path) -> None:
    path = listed(folder, "file,label\ncat/1.jpg,1000000007\n")
    with pytest.raises(SourceError, match="class numbers go up to 1000000007, but there are only 1 of them"):
        scan(path)


def test_true_and_false_are_two_classes(folder: Path) -> None:
    assert scan(listed(folder, "file,label\ncat/1.jpg,true\ndog/1.jpg,false\n")).classes == ("false", "true")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("cat/9.jpg,cat", r"row 2: there is no file .*cat/9\.jpg; fix the path, name the folder .* with `root`"),
        ("cat/1.jpg,cat", r"row 2: the file is in row 1 too; "),
        ("cat/1.jpg,dog", r"row 2: the file is in row 1 too, with another label"),
        ("cat/../cat/1.jpg,cat", r"row 2: the file is in row 1 too"),
        (",cat", r"row 2: it names no file"),
        ("cat/2.jpg,", r"row 2: its label is empty"),
        ("cat/2.txt,cat", r"row 2: 2\.txt has none of the accepted extensions"),
        ("cat,cat", r"row 2: cat has none of the accepted extensions"),
        ("folder.jpg,cat", r"row 2: .*folder\.jpg is not a file"),
    ],
)
def test_a_bad_row_is_named_or_left_out(rows: str, message: str, folder: Path) -> None:
    (folder / "folder.jpg").mkdir()
    path = listed(folder, f"file,label\ncat/1.jpg,cat\n{rows}\n")
    with pytest.raises(BadFileError, match=message):
        scan(path)
    source = scan(path, skip_bad=True)
    assert (paths(source), len(source.incomplete)) == (["cat/1.jpg"], 1)


def test_a_list_of_bad_rows_alone_is_an_error(folder: Path) -> None:
    with pytest.raises(SourceError, match="none of its rows can be packed"):
        scan(listed(folder, "file,label\nx.jpg,cat\n"), skip_bad=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the list is empty"),
        (b"file,label\n", r"the list has no rows below its header \(file, label\)"),
        (
            "file,label\ncat/1.jpg,Käse\n".encode("cp1252"),
            r"at byte 22: line 2 is not UTF-8 \(the byte 0xe4\); .* iconv",
        ),
        ("file,label\ncat/1.jpg,cat\n".encode("utf-16"), "the list is UTF-16"),
        (b"file,file\na,b\n", "two columns have the name 'file'"),
        (b"a,b\n1,2\n", "it has no column of paths; its columns are a, b; name one with `path_column`"),
        (b"file,b\n1,2\n", "it has no column of labels; its columns are file, b; name one with `label_column`"),
        (b"file,label\na,b,c\n", "can't be read as a list"),
    ],
)
def test_a_list_that_can_not_be_read_is_said(text: bytes, message: str, folder: Path) -> None:
    with pytest.raises(SourceError, match=rf"list\.csv: {message}"):
        scan(listed(folder, text))


def test_a_column_that_is_not_there_is_said_with_those_that_are(folder: Path) -> None:
    path = listed(folder, "file,label\ncat/1.jpg,cat\n")
    with pytest.raises(SourceError, match="no column of paths named 'photo'; its columns are file, label"):
        scan(path, TableColumns(path_column="photo"))
    with pytest.raises(SourceError, match="no column of labels named 'breed'; its columns are file, label"):
        scan(path, TableColumns(label_column="breed"))


def test_a_row_that_is_not_utf8_far_behind_is_found(folder: Path) -> None:
    text = b"file,label\n" + b"cat/1.jpg,cat\n" * 100_000 + b"cat/1.jpg,K\xe4se\n"
    with pytest.raises(SourceError, match=r"at byte 1400022: line 100002 is not UTF-8"):
        scan(listed(folder, text))


def test_a_mark_at_the_beginning_and_line_ends_of_windows_are_passed_over(folder: Path) -> None:
    source = scan(listed(folder, b"\xef\xbb\xbffile,label\r\ncat/1.jpg,cat\r\n"))
    assert paths(source) == ["cat/1.jpg"]


def test_texts_stay_as_they_are_written(folder: Path) -> None:
    rows = [{"file": "cat/1.jpg", "label": "cat", "when": "2020-01-02", "at": "2020-01-02T03:04:05", "n": None}]
    table = read_table(str(listed(folder, "\n".join(map(json.dumps, rows)), "list.jsonl")))
    assert table.to_pylist() == rows
    csv = read_table(str(listed(folder, "file,when\n001,2020-01-02\n")), text_columns=("file",))
    assert csv.to_pylist() == [{"file": "001", "when": "2020-01-02"}]


def test_a_broken_line_of_json_is_said(folder: Path) -> None:
    path = listed(folder, '{"file": "cat/1.jpg", "label": "cat"}\n{"file": \n', "list.jsonl")
    with pytest.raises(SourceError, match=r"list\.jsonl: can't be read as a list \(JSON parse error"):
        scan(path)


def test_a_parquet_file_that_is_none_is_said(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"list\.parquet: can't be read as a list"):
        scan(listed(folder, b"no parquet", "list.parquet"))


def test_dictionaries_and_large_texts_of_parquet_are_names(folder: Path) -> None:
    table = pa.table({"file": ["cat/1.jpg", "dog/1.jpg"], "label": pa.array(["cat", "dog"]).dictionary_encode()})
    pq.write_table(table, folder / "list.parquet")
    assert scan(folder / "list.parquet").classes == ("cat", "dog")


def test_a_label_of_another_kind_is_said(folder: Path) -> None:
    pq.write_table(pa.table({"file": ["cat/1.jpg"], "label": [{"a": 1}]}), folder / "list.parquet")
    with pytest.raises(SourceError, match=r"the label column 'label' is struct<a: int64>; give names, numbers"):
        scan(folder / "list.parquet")


def test_numbers_have_no_classes(folder: Path) -> None:
    path = listed(folder, "file,label\ncat/1.jpg,0.5\ncat/2.jpg,\n")
    with pytest.raises(BadFileError, match="row 2: its label is empty, or not a number"):
        scan(path)
    with pytest.raises(UsageError, match="are not classes; omit `classes`"):
        scan(path, classes=["a"])


def test_the_root_is_what_paths_are_relative_to(folder: Path) -> None:
    (folder / "lists").mkdir()
    path = listed(folder / "lists", "file,label\ncat/1.jpg,cat\n")
    with pytest.raises(BadFileError, match="there is no file"):
        scan(path)
    assert paths(scan(path, TableColumns(root=str(folder)))) == ["cat/1.jpg"]


def test_keys_that_would_meet_are_made_unique(folder: Path, draw_image: Callable[..., bytes]) -> None:
    (folder / "cat" / "1.png").write_bytes(draw_image(1, format="PNG"))
    source = scan(listed(folder, "file,label\ncat/1.jpg,cat\ncat/1.png,cat\n"))
    assert source.keys(range(2)) == ["cat/1", "cat/1-2"]


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(UsageError, match="label_separator: it is empty"):
        TableColumns(label_separator="")


def test_a_folder_with_metadata_is_told_from_a_tree(folder: Path) -> None:
    assert image_folders(str(folder)) is None
    for split in ("train", "test"):
        (folder / "splits" / split).mkdir(parents=True)
        listed(folder / "splits" / split, "file_name\n", "metadata.csv")
    assert image_folders(str(folder / "splits")) == {
        split: str(folder / "splits" / split / "metadata.csv") for split in ("test", "train")
    }
    (folder / "splits" / "other").mkdir()
    assert image_folders(str(folder / "splits")) is None
    listed(folder, "file_name\n", "metadata.csv")
    listed(folder, "", "metadata.jsonl")
    with pytest.raises(SourceError, match=r"it has metadata\.csv and metadata\.jsonl; keep one of them"):
        image_folders(str(folder))


# ---- labels as they are written


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        (["007", "012", "120"], ("007", "012", "120")),
        (["00", "1"], ("00", "1")),
        (["0", "2", "1"], ("0", "1", "2")),
        (["1e400x", "2"], ("1e400x", "2")),
        (["True", "false"], ("false", "true")),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_only_numbers_as_programs_write_them_are_class_numbers(
    written: list[str], classes: tuple[str, ...], ending: str, folder: Path
) -> None:
    between = "," if ending == "csv" else "\t"
    rows = [f"cat/{n}.jpg{between}{text}\n" for n, text in enumerate(written, 1)]
    assert scan(listed(folder, f"path{between}label\n" + "".join(rows), f"list.{ending}")).classes == classes


@pytest.mark.parametrize("once", [True, False])
def test_texts_that_a_parquet_file_stores_once_are_read_as_all_others(folder: Path, *, once: bool) -> None:
    names = ["dog/3.jpg", "cat/1.jpg", "dog/1.jpg", "cat/2.jpg"]
    columns = {"file": names, "label": [name[:3] for name in names], "note": ["x", None, "x", "y"]}
    pq.write_table(pa.table(columns), folder / "list.parquet", use_dictionary=once, row_group_size=3)
    source = scan(folder / "list.parquet")
    assert (paths(source), source.labels.tolist()) == (sorted(names), [0, 0, 1, 1])
    assert source.columns is not None and source.inline is not None
    assert (source.columns["note"].type, source.columns["note"].to_pylist()) == (pa.string(), [None, "y", "x", "x"])
    assert [json.loads(text)["note"] for text in source.inline.fields["json"]] == [None, "y", "x", "x"]
    columns["label"][2] = None  # type: ignore[call-overload]
    pq.write_table(pa.table(columns), folder / "list.parquet", use_dictionary=once, row_group_size=3)
    with pytest.raises(BadFileError, match=r"list\.parquet: row 3: its label is empty"):
        scan(folder / "list.parquet")


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("name", ["file", "label"])
def test_texts_of_a_parquet_file_that_are_not_utf8_are_told(folder: Path, name: str, *, once: bool) -> None:
    columns = {"file": pa.array(["cat/1.jpg"]), "label": pa.array(["cat"])}
    columns[name] = pa.array([b"cat/\xff.jpg"]).view(pa.string())
    pq.write_table(pa.table(columns), folder / "list.parquet", use_dictionary=once)
    with pytest.raises(SourceError, match=rf"list\.parquet: the \w+ column '{name}' holds bytes that are not UTF-8"):
        scan(folder / "list.parquet")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_whole_numbers_with_a_decimal_point_are_class_numbers_and_are_said(
    kind: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"path": f"cat/{n}.jpg", "label": float(n - 1)} for n in (1, 2, 3)]
    path = folder / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        listed(folder, "\n".join(map(json.dumps, rows)), path.name)
    else:
        listed(folder, "path,label\n" + "".join(f"{row['path']},{row['label']}\n" for row in rows))
    source = scan(path)
    assert (source.classes, source.labels.tolist()) == (("0", "1", "2"), [0, 1, 2])
    assert "they are taken as class numbers" in caplog.text


def test_another_column_with_the_name_of_a_label_keeps_its_type(folder: Path) -> None:
    source = scan(listed(folder, "path,label,category\ncat/1.jpg,cat,7\n"))
    assert source.inline is not None
    assert json.loads(source.inline.fields["json"][0]) == {"category": 7}


@pytest.mark.parametrize("between", SEPARATORS[1:])
def test_another_separator_is_found_and_said(between: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = scan(listed(folder, f"path{between}label\ncat/1.jpg{between}cat\n"))
    assert (paths(source), source.classes) == (["cat/1.jpg"], ("cat",))
    assert f"separated by {between!r}" in caplog.text


def test_a_list_without_a_header_is_an_error_with_any_options(folder: Path) -> None:
    path = listed(folder, "cat/1.jpg,cat\ndog/1.jpg,dog\n")
    for options in (TableColumns(), TableColumns(path_column="cat/1.jpg", label_column="cat")):
        with pytest.raises(
            SourceError, match=r"its first row does not have column names \(cat/1\.jpg, cat\): the header is missing"
        ):
            scan(path, options)


def test_names_without_an_extension_are_those_of_the_files(folder: Path) -> None:
    assert paths(scan(listed(folder, "path,label\ncat/1,cat\ndog/2,dog\n"))) == ["cat/1.jpg", "dog/2.jpg"]
    (folder / "cat" / "1.png").write_bytes(b"x")
    with pytest.raises(BadFileError, match="row 1: 1 is the name of 2 files"):
        scan(listed(folder, "path,label\ncat/1,cat\n"))
    with pytest.raises(BadFileError, match="row 2: the file is in row 1 too"):
        scan(listed(folder, "path,label\ndog/1.jpg,dog\ndog/1,dog\n"))


@pytest.mark.parametrize("columns", [20_000, MAX_COLUMNS + 1])
def test_a_list_of_very_many_columns_is_read_or_refused(columns: int, folder: Path) -> None:
    header = ",".join(["path", "label", *(f"c{n}" for n in range(columns - 2))])
    path = listed(folder, f"{header}\ncat/1.jpg,cat{',1' * (columns - 2)}\n")
    if columns > MAX_COLUMNS:
        with pytest.raises(SourceError, match=f"over {MAX_COLUMNS} columns"):
            read_table(str(path))
    else:
        assert read_table(str(path)).num_columns == columns


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_row_of_far_too_deep_json_is_an_error(opening: str, folder: Path) -> None:
    closing = {"[": "]"}.get(opening, "}")
    row = '{"path": "cat/1.jpg", "label": "cat", "x": %s1%s}\n'
    deep = row % (opening * 100_000, closing * 100_000)
    with pytest.raises(SourceError, match=f"line 2 has over {MAX_NESTING} nested lists and objects"):
        scan(listed(folder, row % ("", "") + deep, "list.jsonl"))
    wide = row.replace(
        "%s1%s", json.dumps(["[" * MAX_NESTING, *([1] for _ in range(2 * MAX_NESTING))]).replace("%", "")
    )
    assert paths(scan(listed(folder, wide.replace('["' + "[" * MAX_NESTING + '", ', "["), "list.jsonl"))) == [
        "cat/1.jpg"
    ]


# ---- small files that stand for much


def test_a_cell_that_does_not_end_is_named_by_the_line_where_its_row_begins(folder: Path) -> None:
    text = "file,label\ncat/1.jpg,cat\ncat/2.jpg,"
    for long in ("x" * MAX_ROW_BYTES, '"' + ("x" * 99 + "\n") * (2 * MAX_ROW_BYTES // 100)):
        with pytest.raises(SourceError, match=rf"the row at line 3 is longer than {MAX_ROW_BYTES >> 20} MiB; .* quote"):
            scan(listed(folder, text + long))
    with pytest.raises(SourceError, match="the row at line 1 is longer"):
        scan(listed(folder, '{"file":"' + "x" * MAX_ROW_BYTES + '"}\n', "list.jsonl"))
    assert paths(scan(listed(folder, text + "x" * (MAX_ROW_BYTES // 2) + "\n"))) == ["cat/1.jpg", "cat/2.jpg"]


def test_the_length_of_a_row_is_counted_from_its_own_beginning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lists, "_PIECE", 9)
    row = "cat/1.jpg"
    monkeypatch.setattr(text_lists, "MAX_ROW_BYTES", len(row))
    for text in (f"{row}\n{row}\n", f"path\n{row}\n\n{row}", f"path\n\n{row}\n"):
        text_lists._look_through(str(listed(folder, text)), "list.csv")
        longer = text.replace(row, row + "x")
        with pytest.raises(SourceError, match="is longer than"):
            text_lists._look_through(str(listed(folder, longer)), "list.csv")


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl"])
def test_a_nul_byte_is_named_with_its_line(name: str, folder: Path) -> None:
    with pytest.raises(SourceError, match=r"at byte 15: line 2 has a NUL byte; remove it"):
        scan(listed(folder, b"file,label\ncat/\0.jpg,cat\n", name))


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_character_on_the_border_of_two_pieces_is_no_error_and_a_cut_one_is(before: int, folder: Path) -> None:
    start = b"file,label\ncat/1.jpg,"
    filler = b"x" * (text_lists._PIECE - len(start) - before)
    assert scan(listed(folder, start + filler + "猫é\n".encode())).classes == (filler.decode() + "猫é",)
    cut = start + filler + "猫".encode()[:2]
    at = len(cut) - 2
    for data in (cut, cut + b"\n"):
        with pytest.raises(SourceError, match=rf"at byte {at}: line 2 is not UTF-8 \(the byte 0xe7\)"):
            scan(listed(folder, data))


def text_of_rows(kind: str, text: str, rows: int) -> pa.Table:
    """A table whose column `label` has a text once in the file, and `rows` times in memory."""
    one = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    labels = {
        "text": one,
        "delta": pa.array([text] * rows if kind == "delta" else [], pa.string()),
        "list": pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), one),
        "struct": pa.StructArray.from_arrays([one], ["a"]),
    }
    return pa.table({"file": ["cat/1.jpg"] * rows, "label": labels[kind]})


@pytest.mark.parametrize("kind", ["text", "delta", "list", "struct"])
def test_a_parquet_text_that_many_rows_refer_to_is_summed_before_it_is_expanded(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEAST_ROOM", 1 << 20)
    path = folder / "list.parquet"
    encoding: dict[str, Any] = {"compression": "zstd", "store_schema": False}
    if kind == "delta":
        encoding |= {"use_dictionary": False, "column_encoding": {"label": "DELTA_BYTE_ARRAY", "file": "PLAIN"}}
    pq.write_table(text_of_rows(kind, "x" * 10_000, 200), path, **encoding)
    assert path.stat().st_size * limits.ROOM_FACTOR < 1 << 20
    with pytest.raises(SourceError, match=r"its rows up to 200 take [12] MiB in memory; the limit is 1 MiB; remove"):
        read_table(str(path))
    pq.write_table(text_of_rows(kind, "x" * 10_000, 90), path, **encoding)
    expected = text_of_rows(kind, "x" * 10_000, 90).to_pylist()
    assert read_table(str(path)).to_pylist() == expected


def test_what_a_parquet_file_says_of_itself_is_enough_to_refuse_it(folder: Path) -> None:
    path, room = folder / "list.parquet", limits.LEAST_ROOM
    rows = room // limits.ROW_COST + 1
    numbers = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([7]))
    pq.write_table(pa.table({"file": numbers}), path)
    with pytest.raises(SourceError, match="its rows take "):
        read_table(str(path))
    pq.write_table(pa.table({"file": ["a"] * 2, "zeros": [b"\0" * (room // 2)] * 2}), path, use_dictionary=False)
    with pytest.raises(SourceError, match="its columns up to 'zeros' take 256 MiB"):
        read_table(str(path))
    many = pa.ListArray.from_arrays(pa.array([0, room // 8], pa.int32()), pa.array(np.zeros(room // 8, np.int8)))
    pq.write_table(pa.table({"file": ["a"], "many": many}), path)
    with pytest.raises(SourceError, match=r"its columns up to 'many\.list\.element' take 256 MiB"):
        read_table(str(path))


def test_rows_of_json_with_ever_new_names_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAST_ROOM", 1 << 20)
    for form in ('{"file": "cat/1.jpg", "x%d": 1}\n', '{"file": "cat/1.jpg", "x": [{"y%d": NaN}]}\n'):
        path = listed(folder, "".join(form % n for n in range(100)), "list.jsonl")
        assert read_table(str(path)).num_rows == 100
        path = listed(folder, "".join(form % n for n in range(1000)), "list.jsonl")
        with pytest.raises(SourceError, match=r"its 3\d\d columns up to line 3\d\d take 1 MiB in memory"):
            read_table(str(path))


def test_rows_of_nothing_are_refused_where_they_are_too_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEAST_ROOM", 1 << 20)
    path = listed(folder, "file,label\n" + ",\n" * 200_000)
    with pytest.raises(SourceError, match="its 200000 rows take 12 MiB in memory; the limit is 6 MiB"):
        read_table(str(path))


def test_a_list_that_the_disk_does_not_give_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(text_lists, "open", fail, raising=False)
    with pytest.raises(SourceError, match=r"list\.csv: can't be read \(Input/output error\); check the disk"):
        read_table(str(listed(folder, "file,label\n")))
