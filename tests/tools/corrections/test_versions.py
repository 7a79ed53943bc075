"""Versions of a dataset: named with @N, listed, compared, gone back to; and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import shardkit
from shardkit.checksums import crc32c
from shardkit.errors import (
    DatasetError,
    DestinationError,
    ManifestError,
    NotFoundError,
    StateError,
    UsageError,
)
from shardkit.shards.corrections import overlay
from shardkit.shards.corrections.block import OverlayEntry
from shardkit.shards.manifest import CORRECTED_VERSION

Labels = Callable[[str], dict[str, str]]


@pytest.fixture
def corrected(train: str) -> str:
    """A dataset of three versions: one with two other labels, then one without two samples."""
    shardkit.relabel(train, {"cat/0001": "dog", "cat/0002": "fox"}, message="second look")
    shardkit.delete(train, ["cat/0002", "dog/0003"])
    return train


def shards_of(prefix: str) -> dict[str, bytes]:
    folder = Path(prefix).parent
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".tar"}


def test_no_byte_of_shards_and_index_changes(train: str) -> None:
    before = shards_of(train) | {"index": Path(f"{train}.parquet").read_bytes()}
    shardkit.relabel(train, {"cat/0001": "dog"})
    shardkit.delete(train, ["cat/0001"])
    assert shards_of(train) | {"index": Path(f"{train}.parquet").read_bytes()} == before


def test_each_version_is_opened_by_its_number(corrected: str, labels_of: Labels) -> None:
    first = labels_of(f"{corrected}@1")
    second = labels_of(f"{corrected}@2")
    assert len(first) == 12
    assert second == first | {"cat/0001": "dog", "cat/0002": "fox"}
    left = {key: name for key, name in second.items() if key not in ("cat/0002", "dog/0003")}
    assert labels_of(f"{corrected}@3") == labels_of(corrected) == left
    folder = os.path.dirname(corrected)
    assert labels_of(f"{folder}@2") == second
    assert labels_of(f"{corrected}.json@2") == second
    assert labels_of(f"{corrected}.v1.json") == first


def test_a_dataset_whose_name_ends_like_a_version_is_opened_by_its_name(
    tmp_path: Path, packed_once: Path, labels_of: Labels
) -> None:
    shardkit.pack(packed_once / "tree", tmp_path / "train@1", workers=1)
    assert len(labels_of(str(tmp_path / "train@1"))) == 12


def test_a_version_that_does_not_exist_is_refused(corrected: str, packed_once: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no version 4: it has versions 1 to 3"):
        shardkit.dataset(f"{corrected}@4").classes  # noqa: B018
    with pytest.raises(NotFoundError, match="there is no version 2: it has version 1 alone"):
        shardkit.dataset(f"{packed_once / 'shards' / 'train'}@2").classes  # noqa: B018
    with pytest.raises(NotFoundError, match="no version 0"):
        shardkit.revert(corrected, 0)
    with pytest.raises(NotFoundError, match="there is no version 9"):
        shardkit.revert(corrected, 9)


def test_the_log_tells_what_made_each_version(corrected: str) -> None:
    shardkit.revert(corrected, 2, message="after all")
    told = [(e.version, e.kind, e.samples, e.relabelled, e.deleted, e.of, e.message) for e in shardkit.log(corrected)]
    assert told == [
        (1, "pack", 12, 0, 0, None, ""),
        (2, "relabel", 12, 2, 0, None, "second look"),
        (3, "delete", 10, 0, 2, None, ""),
        (4, "revert", 12, 0, 0, 2, "after all"),
    ]
    assert [each.version for each in shardkit.log(f"{corrected}@2")] == [1, 2]


def test_going_back_makes_a_version_that_equals_the_older_one(corrected: str, labels_of: Labels) -> None:
    assert shardkit.revert(corrected, 1).version == 4
    assert labels_of(corrected) == labels_of(f"{corrected}@1")
    assert shardkit.dataset(corrected).fingerprint == shardkit.dataset(f"{corrected}@1").fingerprint
    assert shardkit.revert(corrected, 3).version == 5
    assert labels_of(corrected) == labels_of(f"{corrected}@3")
    again = shardkit.revert(corrected, 3)
    assert (again.version, again.bytes) == (5, 0)


def test_two_versions_are_compared(corrected: str) -> None:
    found = shardkit.diff(f"{corrected}@1", corrected)
    assert (found.before, found.after, found.deleted, found.restored, found.relabelled) == (1, 3, 2, 0, 1)
    rows = {row["key"]: (row["change"], row["before"], row["after"]) for row in found.table.to_pylist()}
    assert rows == {
        "cat/0001": ("relabelled", "cat", "dog"),
        "cat/0002": ("deleted", "cat", None),
        "dog/0003": ("deleted", "dog", None),
    }
    back = shardkit.diff(corrected, f"{corrected}@2")
    assert (back.deleted, back.restored, back.relabelled) == (0, 2, 0)
    assert {row["key"]: row["after"] for row in back.table.to_pylist()} == {"cat/0002": "fox", "dog/0003": "dog"}
    assert shardkit.diff(corrected, corrected).equal
    assert shardkit.diff(f"{corrected}@1", f"{corrected}@1").table.num_rows == 0


def test_different_datasets_are_not_compared(corrected: str, tmp_path: Path, draw_tree: Callable[..., Path]) -> None:
    shardkit.pack(draw_tree(tmp_path / "tree", {"a": 2}), tmp_path / "other", workers=1)
    with pytest.raises(UsageError, match="is not a version of"):
        shardkit.diff(corrected, tmp_path / "other")


def test_a_state_of_another_version_is_refused_with_both_numbers_and_the_cure(train: str) -> None:
    def state_of(source: str) -> dict[str, object]:
        data = shardkit.dataset(source, shuffle=10)
        items = iter(data)
        next(items)
        return data.state_dict()

    states = {1: state_of(train)}
    assert "dataset_versions" not in states[1]
    shardkit.delete(train, ["cat/0001"])
    states[2] = state_of(train)
    shardkit.relabel(train, {"cat/0002": "dog"})
    for number, state in states.items():
        with pytest.raises(StateError, match=f"belongs to version {number} of the dataset, and this is version 3") as e:
            shardkit.dataset(train, shuffle=10).load_state_dict(state)
        assert f"NAME@{number}" in str(e.value)
        shardkit.dataset(f"{train}@{number}", shuffle=10).load_state_dict(state)


def test_a_resumed_epoch_of_a_corrected_dataset_has_all_samples_once(corrected: str) -> None:
    data = shardkit.dataset(corrected, shuffle=10, seed=3)
    items = iter(data)
    first = [next(items)["__key__"] for _ in range(4)]
    state = json.loads(json.dumps(data.state_dict()))
    assert state["dataset_versions"] == [3]
    other = shardkit.dataset(corrected, shuffle=10, seed=3)
    other.load_state_dict(state)
    assert sorted([*first, *(sample["__key__"] for sample in other)]) == sorted(data.keys.tolist())


def test_views_and_expressions_see_the_corrected_labels(corrected: str) -> None:
    import pyarrow.compute as pc

    data = shardkit.dataset(corrected)
    assert sorted(data.select("dog").keys) == ["cat/0001", "dog/0000", "dog/0001", "dog/0002"]
    assert sorted(data.where(pc.field("label") == 1).keys) == sorted(data.select("dog").keys)
    assert data.class_counts == {"cat": 2, "dog": 4, "fox": 4}
    with pytest.raises(NotFoundError, match="no sample 'cat/0002'"):
        data["cat/0002"]


def test_a_shard_may_lose_all_of_its_samples(train: str, tmp_path: Path, labels_of: Labels) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(f"{train}.parquet", columns=["shard", "key"]).to_pylist()
    keys = [row["key"] for row in table if row["shard"] == "train-000001.tar"]
    shardkit.delete(train, keys)
    for shuffle in (0, 5, 100):
        assert len(list(shardkit.dataset(train, shuffle=shuffle))) == 10
    shardkit.convert(train, tmp_path / "out" / "train", workers=1)
    assert labels_of(str(tmp_path / "out" / "train")) == labels_of(train)
    shardkit.delete(train, sorted(labels_of(train)))
    assert list(shardkit.dataset(train)) == []


def test_versions_are_not_mixed_in_a_list(corrected: str) -> None:
    for names in ([f"{corrected}@1", f"{corrected}@2"], [corrected, f"{corrected}@1"], [f"{corrected}.v1.json"]):
        with pytest.raises(UsageError, match="versions can't be mixed"):
            shardkit.dataset(names).classes  # noqa: B018
    both = shardkit.concat([shardkit.dataset(f"{corrected}@1"), shardkit.dataset(corrected)])
    assert len(both) == 22


def test_an_older_version_is_not_corrected(corrected: str) -> None:
    for name in (f"{corrected}@1", f"{corrected}.v2.json", f"{corrected}.v2"):
        with pytest.raises(UsageError, match="only the current one can be corrected"):
            shardkit.delete(name, ["cat/0000"])


def test_some_shards_of_a_dataset_are_not_corrected(train: str) -> None:
    with pytest.raises(UsageError, match="name the dataset"):
        shardkit.delete(f"{train}-000001.tar", ["cat/0000"])


def overlay_of(prefix: str) -> Path:
    manifest = shardkit.dataset(prefix).content.catalog.manifest
    assert manifest is not None and manifest.corrections is not None and manifest.corrections.overlay is not None
    return Path(prefix).parent / manifest.corrections.overlay.name


def test_a_missing_or_damaged_overlay_is_reported(corrected: str) -> None:
    path = overlay_of(corrected)
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(NotFoundError, match=r"the overlay is missing; restore it, or open another version"):
        list(shardkit.dataset(corrected))
    assert {finding.kind for finding in shardkit.verify(corrected).findings} >= {"overlay-missing"}
    path.write_bytes(data[:100] + b"x" + data[101:])
    with pytest.raises(ManifestError, match="the overlay is not the one that its manifest names"):
        list(shardkit.dataset(corrected))
    assert {finding.kind for finding in shardkit.verify(corrected).findings} >= {"overlay-damaged"}
    assert len(list(shardkit.dataset(f"{corrected}@1"))) == 12
    with pytest.raises(DatasetError):
        shardkit.delete(corrected, ["cat/0000"])


def test_a_missing_or_damaged_manifest_of_an_older_version_is_reported(corrected: str) -> None:
    path = Path(f"{corrected}.v2.json")
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ManifestError, match="not the manifest that was kept of this version"):
        shardkit.dataset(f"{corrected}@2").classes  # noqa: B018
    assert [finding.kind for finding in shardkit.verify(corrected).findings] == ["version-crc"]
    path.unlink()
    with pytest.raises(NotFoundError, match="the manifest of this version is missing"):
        shardkit.dataset(f"{corrected}@2").classes  # noqa: B018
    assert [finding.kind for finding in shardkit.verify(corrected).findings] == ["version-missing"]


def test_an_overlay_of_a_later_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(overlay, "VERSION", b"2")
        found = overlay.encode_overlay(overlay.no_corrections())
    entry = OverlayEntry("x.parquet", 0, len(found), f"{crc32c(found):08x}")
    with pytest.raises(ManifestError, match=r"the overlay has version 2, .* install a newer shardkit"):
        overlay.decode_overlay(pa.BufferReader(found), entry, "x.parquet")


def test_a_reader_of_the_earlier_format_refuses_a_corrected_dataset(corrected: str) -> None:
    assert json.loads(Path(f"{corrected}.json").read_text())["version"] == CORRECTED_VERSION == 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda block: block.update(deleted=[[0, 99]]), "more samples are deleted than there are"),
        (lambda block: block.update(deleted=[[99, 1]]), "more samples are deleted than there are"),
        (lambda block: block.update(version=7), "its versions are not numbered from 1 on"),
        (lambda block: block.update(overlay=None), "its overlay is not that of its last version"),
        (lambda block: block["log"][0].update(manifest=None), "does not name the manifest of each older version"),
        (lambda block: block["log"][0]["manifest"].update(name="../x"), "is not a plain file name"),
        (lambda block: block.update(log=5), "is damaged"),
    ],
    ids=["count", "shard", "number", "overlay", "manifest", "name", "type"],
)
def test_a_damaged_block_of_corrections_is_refused(
    change: Callable[[dict[str, object]], None], text: str, corrected: str
) -> None:
    path = Path(f"{corrected}.json")
    manifest = json.loads(path.read_text())
    change(manifest["options"]["corrections"])
    path.write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=text):
        shardkit.dataset(corrected).classes  # noqa: B018


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_reported_and_nothing_is_lost(corrected: str) -> None:
    folder = Path(corrected).parent
    folder.chmod(0o555)
    try:
        with pytest.raises(DestinationError, match="not writable"):
            shardkit.delete(corrected, ["cat/0000"])
    finally:
        folder.chmod(0o755)
    assert len(shardkit.log(corrected)) == 3


def test_a_file_in_the_way_of_an_older_manifest_is_not_overwritten(train: str) -> None:
    Path(f"{train}.v1.json").write_text("mine")
    with pytest.raises(DestinationError, match="this file is in the way"):
        shardkit.delete(train, ["cat/0000"])
    assert Path(f"{train}.v1.json").read_text() == "mine"
    assert len(shardkit.log(train)) == 1
