"""Pickled datasets: small ones hold their manifest, large ones say where it is."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from reading.far import uploaded

import shardkit
from shardkit.errors import ReplacedError
from shardkit.reading.blocks import catalog
from shardkit.shards.find import reference
from shardkit.system import POSIX

LIMIT = 10_000


@pytest.fixture(autouse=True)
def _no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))


def without_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another machine."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: os.path.join(os.sep, "nowhere"))


@pytest.fixture
def wide(tmp_path: Path, draw_tree: Any) -> str:
    """A dataset whose manifest is larger than what is pickled."""
    tree = draw_tree(tmp_path / "tree", {f"class{number:03}": 2 for number in range(100)}, size=(8, 8))
    shardkit.pack(tree, tmp_path / "wide", max_count=1, workers=1)
    assert (tmp_path / "wide.json").stat().st_size > LIMIT
    return str(tmp_path / "wide")


def views(prefix: str) -> dict[str, Any]:
    whole = shardkit.dataset(prefix, shuffle=50)
    return {
        "whole": whole,
        "chosen shards": shardkit.dataset(f"{prefix}-0000[0-4]*.tar"),
        "select": whole.select([3, 5]),
        "where": whole.where(pc.field("label") < 9).decode(size=8).batch(4),
        "split": whole.split({"train": 0.5, "rest": 0.5})["train"].balance(),
        "concat": shardkit.concat([whole, whole.select([1])]),
    }


@pytest.mark.parametrize("name", ["whole", "chosen shards", "select", "where", "split", "concat"])
def test_a_dataset_is_pickled_in_few_bytes_however_large_it_is(wide: str, name: str) -> None:
    data = views(wide)[name]
    expected = len(data), data.fingerprint
    sent = pickle.dumps(data)
    assert len(sent) < LIMIT
    again = pickle.loads(sent)
    assert again.content.resolved
    assert (len(again), again.fingerprint) == expected
    assert len(pickle.dumps(again)) == len(sent)  # not opened, or opened


def test_a_dataset_in_a_store_too(wide: str) -> None:
    data = shardkit.dataset(uploaded(wide))
    length = len(data)
    assert len(pickle.dumps(data)) < LIMIT
    assert len(pickle.loads(pickle.dumps(data))) == length


def test_on_another_machine_the_manifest_is_read_at_its_place(wide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shardkit.dataset(wide)
    length, without = len(data), without_copies(monkeypatch)
    assert without is None
    assert len(pickle.loads(pickle.dumps(data))) == length


@pytest.mark.parametrize("change", ["other", "damaged", "gone"])
def test_a_manifest_that_was_replaced_is_an_error_on_another_machine(
    wide: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, path = shardkit.dataset(wide), Path(f"{wide}.json")
    assert len(data) == 200
    sent = pickle.dumps(data)
    if change == "gone":
        path.unlink()
    elif change == "damaged":
        path.write_bytes(b"{")
    else:
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"plan": "0"}))
    without_copies(monkeypatch)
    with pytest.raises(ReplacedError, match="was replaced by another one since it was opened"):
        len(pickle.loads(sent))


@pytest.mark.skipif(not POSIX, reason="copies are kept only there")
def test_processes_of_this_machine_go_on_with_the_manifest_that_was_opened(wide: str, tmp_path: Path) -> None:
    data = shardkit.dataset(wide)
    assert len(data) == 200
    sent = pickle.dumps(data)
    (tmp_path / "tree" / "new").mkdir()
    (tmp_path / "tree" / "new" / "a.jpg").write_bytes((tmp_path / "tree" / "class000" / "0000.jpg").read_bytes())
    shardkit.pack(tmp_path / "tree", wide, max_count=1, workers=1, append=True)
    again = pickle.loads(sent)
    assert len(again) == 200
    again.forget()
    assert len(again) == len(shardkit.dataset(wide)) == 201


def test_a_small_manifest_is_pickled_itself(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "INLINE_BYTES", 1 << 20)
    data = shardkit.dataset(cars)
    _ = len(data)
    again = pickle.loads(pickle.dumps(data))
    monkeypatch.setattr(reference.FoundReference, "found", None)
    assert len(again) == len(data)


@pytest.mark.skipif(not POSIX, reason="each process has its own there")
def test_labels_and_key_sums_of_a_large_dataset_are_mapped_and_those_of_its_parts_are_others(
    wide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = shardkit.dataset(wide).labels.tolist()
    monkeypatch.setattr(catalog, "SHARED_BYTES", 1)
    for _ in range(2):
        data = shardkit.dataset(wide)
        assert data.labels.tolist() == expected
        assert data["class007/0001"]["cls"] == 7
        assert not data.content.catalog.labels().flags.writeable
        part = shardkit.dataset(f"{wide}-00000[0-4].tar")
        assert part.labels.tolist() == expected[:5]
        assert shardkit.dataset(wide, verify=True).labels.tolist() == expected
    folder = tmp_path / "temporary" / f"shardkit-{os.getuid()}"
    assert sorted(path.name.split("-")[0] for path in folder.iterdir()) == ["keys", "labels", "labels"]
