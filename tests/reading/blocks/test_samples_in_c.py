"""Where the samples of a block are, and the dicts made of them: the same in C as in Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardkit
from shardkit.location import locate
from shardkit.native import load
from shardkit.reading.blocks import held, mapped
from shardkit.reading.blocks.held import COLUMNS, gather, split_rows
from shardkit.shards import buffers
from shardkit.shards.buffers import CELL_BYTES, GAP_CELLS, ReadAhead, ShardFile

needs_lookup = pytest.mark.skipif(load("lookup")[0] is None, reason="shardkit was built without its C parts")
needs_samples = pytest.mark.skipif(load("samples")[0] is None, reason="shardkit was built without its C parts")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it to go on without the C extensions."""

    def leave_out() -> None:
        monkeypatch.setattr(held, "extension", lambda: None)
        for module in (held, mapped):
            monkeypatch.setattr(module, "samples_extension", lambda: None)

    return leave_out


@needs_lookup
@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.data())
def test_rows_are_split_by_shard_as_in_numpy(counts: list[int], data: st.DataObject) -> None:
    firsts = np.cumsum([0, *counts, 1])
    rows = np.array(data.draw(st.lists(st.integers(0, int(firsts[-1]) - 1), max_size=20)), np.int64)
    used, slots, local = split_rows(firsts, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "extension", lambda: None)
        again = split_rows(firsts, rows)
    assert used == again[0]
    assert slots.tolist() == again[1].tolist()
    assert local.tolist() == again[2].tolist()
    assert (firsts[np.array(used, np.int64)[slots]] + local).tolist() == rows.tolist()


@needs_lookup
def test_columns_are_gathered_as_in_numpy(plain: Any) -> None:
    rng = np.random.default_rng(0)
    tables = [rng.integers(0, 1 << 60, (count, len(COLUMNS))) for count in (3, 1, 40)]
    slots = rng.integers(0, 3, 100)
    local = rng.integers(0, np.array([3, 1, 40])[slots])
    found = gather(tables, slots, local)
    plain()
    assert np.array_equal(found, gather(tables, slots, local))


@needs_lookup
@pytest.mark.parametrize("row", [-1, 7, 1 << 62, -(1 << 63)])
def test_a_row_that_is_not_there_is_an_error(row: int) -> None:
    with pytest.raises(ValueError, match="no such row"):
        split_rows(np.array([0, 3, 7]), np.array([0, row]))
    with pytest.raises(ValueError, match="no such row"):
        gather([np.zeros((7, len(COLUMNS)), np.int64)], np.zeros(1, np.int64), np.array([row]))


@needs_samples
@pytest.mark.parametrize("chain", ["in order", "shuffled", "rank", "weighted", "view"])
@pytest.mark.parametrize("form", ["tar", "tfrecord", "gzip", "fields-tar"])
def test_samples_made_in_c_are_those_made_in_python(pairs: Any, chain: str, form: str, plain: Any) -> None:
    def read() -> list[Any]:
        if chain == "rank":
            return list(shardkit.dataset(pairs[form][0], shuffle=20, rank=1, world_size=3, remainder="pad"))
        data = shardkit.dataset(pairs[form][0], shuffle=20 if chain == "shuffled" else 0)
        data = data.balance() if chain == "weighted" else data[5:60] if chain == "view" else data
        return [*data, *data]

    made = read()
    plain()
    again = read()
    assert made == again
    assert [[*sample] for sample in made] == [[*sample] for sample in again]
    assert [[type(value) for value in sample.values()] for sample in made] == [
        [type(value) for value in sample.values()] for sample in again
    ]


@needs_samples
def test_a_sample_of_another_type_has_its_own_field(small_tree: Path, tmp_path: Path, plain: Any) -> None:
    tree = tmp_path / "tree"
    for number, image in enumerate(sorted(small_tree.rglob("*.jpg"))[:20]):
        target = tree / image.parent.name / f"{number}.{'png' if number % 3 else 'jpg'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if number % 3:
            from PIL import Image

            Image.open(image).save(target)
        else:
            target.write_bytes(image.read_bytes())
    shardkit.pack(tree, tmp_path / "mixed", workers=1)
    made = list(shardkit.dataset(tmp_path / "mixed"))
    assert {name for sample in made for name in sample} == {"__key__", "__url__", "jpg", "png", "cls"}
    plain()
    assert made == list(shardkit.dataset(tmp_path / "mixed"))


@needs_samples
def test_a_position_is_that_of_the_sample_last_delivered(cars: str, plain: Any) -> None:
    def states() -> list[Any]:
        data = shardkit.dataset(cars, shuffle=30, seed=1)
        return [data.state_dict() for _ in data]

    made = states()
    assert [state["samples"] for state in made] == list(range(1, 98))
    plain()
    assert made == states()


def samples(**changes: Any) -> Any:
    """Samples of one buffer of 10 bytes, with some of the arguments replaced."""
    column = np.zeros(2, np.int64)
    given = {
        "buffers": [b"0123456789"], "slots": column, "starts": column, "ends": column + 4,
        "offsets": [np.array([0, 1, 2], np.int32)], "texts": [b"ab"], "rows": np.array([0, 1]), "labels": column,
        "urls": ["u"], "fields": ["jpg", "jpg"], "look": lambda: 0.0,
    } | changes  # fmt: skip
    return load("samples")[0].Samples(*given.values())


@needs_samples
def test_the_name_of_a_field_that_is_not_exact_text_is_refused() -> None:
    class Name(str):
        """Empties the list that holds it when it is compared."""

        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            fields.clear()
            return str.__eq__(self, other)

    fields: list[Any] = [Name("__key__"), "jpg"]
    with pytest.raises(TypeError, match="the name of a field is not text"):
        next(samples(fields=fields))
    assert len(fields) == 2


@needs_samples
def test_samples_are_dicts_of_key_shard_image_and_label() -> None:
    assert list(samples(labels=np.array([3, 400]))) == [
        {"__key__": "a", "__url__": "u", "jpg": b"0123", "cls": 3},
        {"__key__": "b", "__url__": "u", "jpg": b"0123", "cls": 400},
    ]


@needs_samples
@pytest.mark.parametrize(
    "changes",
    [
        {"starts": np.array([0, -1])}, {"ends": np.array([4, 11])}, {"starts": np.array([0, 5])},
        {"slots": np.array([0, 1])}, {"slots": np.array([0, -1])}, {"rows": np.array([0, 2])},
        {"rows": np.array([0, -1])}, {"offsets": [np.array([0, 1, 3], np.int32)]}, {"offsets": []}, {"texts": []},
        {"offsets": [np.array([0, 1, -1], np.int32)]}, {"urls": []},
    ],
    ids=[
        "start before", "end behind", "start behind the end", "slot too large", "slot negative", "row too large",
        "row negative", "offset too large", "no offsets", "no texts", "offset negative", "no shards",
    ],
)  # fmt: skip
def test_numbers_that_are_wrong_never_read_outside_the_buffers(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not within"):
        list(samples(**changes))


@needs_samples
def test_columns_that_are_too_short_are_refused() -> None:
    for name in ("slots", "starts", "ends", "rows", "labels"):
        with pytest.raises(ValueError, match=r"within the columns|shorter"):
            samples(**{name: np.zeros(1, np.int64)})


@needs_samples
def test_the_error_of_a_check_ends_the_samples() -> None:
    def look() -> float:
        raise OSError("the file became shorter")

    with pytest.raises(OSError, match="shorter"):
        next(samples(look=look))


def asked(read_ahead: ReadAhead) -> list[tuple[int, int, int]]:
    found = []
    while not read_ahead._jobs.empty():
        found += read_ahead._jobs.get() or []
    return found


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A ReadAhead of two files of 100 cells, whose requests stay in its queue."""
    files = []
    for name in "ab":
        path = tmp_path / name
        with open(path, "wb") as file:
            file.truncate(100 * CELL_BYTES)
        files.append(ShardFile(locate(path), 100 * CELL_BYTES, -1))
    monkeypatch.setattr(ReadAhead, "_serve", lambda self: None)
    monkeypatch.setattr(buffers, "is_cached", lambda *_: False)
    made = ReadAhead(files)
    yield made
    made.close()


def want(read_ahead: ReadAhead, *spans: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    read_ahead.want(*(np.array(column, np.int64) for column in zip(*spans, strict=True)))
    return asked(read_ahead)


def test_neighbours_are_read_ahead_in_one_run_and_each_part_once(ahead: ReadAhead) -> None:
    cell = CELL_BYTES
    assert want(ahead, (0, 3 * cell + 5, 4 * cell), (0, 10, 20)) == [(0, 0, 4 * cell)]
    assert want(ahead, (0, 2 * cell, 2 * cell + 9)) == []
    assert want(ahead, (0, 4 * cell - 1, 4 * cell + 1)) == [(0, 3 * cell, 5 * cell)]


def test_samples_far_apart_and_of_other_shards_are_runs_of_their_own(ahead: ReadAhead) -> None:
    cell, far = CELL_BYTES, GAP_CELLS + 2
    spans = [(1, 0, 1), (0, far * cell, far * cell + 1), (0, 0, 1), (0, 99 * cell, 100 * cell)]
    assert want(ahead, *spans) == [
        (0, 0, cell), (0, far * cell, (far + 1) * cell), (0, 99 * cell, 100 * cell), (1, 0, cell),
    ]  # fmt: skip


def test_two_lanes_of_one_shard_are_both_read_ahead(ahead: ReadAhead) -> None:
    cell = CELL_BYTES
    assert want(ahead, (0, 0, cell), (0, 50 * cell, 51 * cell)) == [(0, 0, cell), (0, 50 * cell, 51 * cell)]
    assert want(ahead, (0, cell, 2 * cell), (0, 51 * cell, 52 * cell)) == [
        (0, cell, 2 * cell), (0, 51 * cell, 52 * cell),
    ]  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system does not tell what is in the page cache")
def test_nothing_is_requested_that_is_in_the_page_cache(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(ReadAhead, "_serve", lambda self: started.append(self))
    data = shardkit.dataset(cars, shuffle=10)
    for file in data.content.catalog.files():
        Path(file.location.path).read_bytes()
    assert len(list(data)) == 97
    assert started == []
