"""Several datasets of one folder become one, without a copy; and what they share is not removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storage.in_memory import files, objects, refused

import shardkit
from shardkit.cli.main import run
from shardkit.errors import BusyError, DatasetError, DestinationError, NotFoundError, UsageError
from shardkit.location import locate
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.shards import seek
from shardkit.shards.manifest import decode_manifest
from shardkit.storage.patient import open_patient


class Place:
    """A folder, on a disk or in a bucket, and class trees with different keys."""

    def __init__(self, kind: str, tmp: Path, draw_tree: Callable[..., Path]) -> None:
        self.kind, self.tmp, self.draw_tree = kind, tmp, draw_tree
        self.folder = str(tmp / "out") if kind == "disk" else "memory://b"

    def at(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def pack(self, name: str, counts: dict[str, int] | None = None, *, prefix: str = "", **options: Any) -> Any:
        """A dataset whose files are called after it."""
        tree = self.tmp / "trees" / name
        if not tree.exists():
            self.draw_tree(tree, counts or {"blue": 4, "red": 3})
            for path in list(tree.rglob("*.jpg")):
                path.rename(path.with_name(f"{prefix or name}-{path.name}"))
        return shardkit.pack(tree, self.at(name), **{"max_count": 2, "workers": 1} | options)

    def files(self) -> dict[str, bytes]:
        return files(Path(self.folder)) if self.kind == "disk" else objects("b")

    def write(self, name: str, data: bytes) -> None:
        DatasetFiles(open_patient(locate(self.folder)), "x").write(name, data)

    def remove(self, name: str) -> None:
        open_patient(locate(self.folder)).delete(name)

    def merge(self, *names: str, dest: str = "all", **options: Any) -> Any:
        return shardkit.merge([self.at(name) for name in names], self.at(dest), **options)


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, draw_tree: Any, no_objects: None,
          monkeypatch: pytest.MonkeyPatch) -> Place:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Place(request.param, tmp_path, draw_tree)


def keys(location: str) -> list[str]:
    return [sample["__key__"] for sample in shardkit.dataset(location)]


def test_the_samples_are_those_of_all_in_their_order(place: Place) -> None:
    a, b = place.pack("a"), place.pack("b", {"blue": 1, "red": 2, "teal": 2})
    before = place.files()
    merged = place.merge("a", "b")
    after = place.files()
    assert after.keys() - before.keys() == {"all.json"}
    assert {name: after[name] for name in before} == before
    assert keys(place.at("all")) == keys(place.at("a")) + keys(place.at("b"))
    assert merged.manifest == decode_manifest(after["all.json"], place="all.json")
    assert merged.location == place.at("all")
    assert [(each.name, each.count) for each in merged.classes] == [("blue", 5), ("red", 5), ("teal", 2)]
    assert merged.shards == (*a.shards, *b.shards)
    assert merged.manifest.merged == [
        {"name": name, "plan": each.plan, "shards": len(each.shards), "samples": each.samples}
        for name, each in (("a", a), ("b", b))
    ]
    assert shardkit.verify(place.at("all")).sound
    assert len(shardkit.dataset(place.at("all")).select(classes=["teal"])) == 2


def test_a_second_merge_writes_nothing_and_another_replaces_only_when_asked(place: Place) -> None:
    for name in "abc":
        place.pack(name)
    first = place.merge("a", "b")
    before = place.files()
    assert place.merge("a", "b") == first
    assert place.files() == before
    assert "another dataset is there" in refused(DestinationError, lambda: place.merge("a", "b", "c"))
    assert place.files() == before
    assert place.merge("a", "b", "c", overwrite=True).samples == 21
    assert place.files().keys() == before.keys()


def test_a_member_that_is_overwritten_keeps_its_files_while_the_merged_dataset_names_them(place: Place) -> None:
    place.pack("a")
    place.pack("b")
    place.merge("a", "b")
    old = keys(place.at("all"))
    place.pack("a", max_count=3, overwrite=True)
    assert {"a-000000.tar", "a-g2-000000.tar"} <= place.files().keys()
    assert keys(place.at("all")) == old
    assert shardkit.verify(place.at("all")).sound
    assert shardkit.verify(place.at("a")).sound
    place.merge("a", "b", overwrite=True)
    there = place.files()
    assert "a-000000.tar" not in there and "a.parquet" not in there
    assert shardkit.verify(place.at("all")).sound


def test_a_member_is_overwritten_again_and_again(place: Place) -> None:
    place.pack("a")
    place.pack("b")
    place.merge("a", "b")
    for count in (3, 4, 5):
        place.pack("a", max_count=count, overwrite=True)
    assert {"a-000000.tar", "a-g4-000000.tar"} <= place.files().keys()
    assert not any(name.startswith(("a-g2", "a-g3")) for name in place.files())
    for name in ("a", "all"):
        assert shardkit.verify(place.at(name)).sound
    place.remove("a.json")  # what the merged dataset names is of the first generation, what is left over of the fourth
    assert "this file belongs to the dataset all" in refused(DestinationError, lambda: place.pack("a", overwrite=True))


def test_names_of_a_later_generation_that_a_merged_dataset_names_are_left_out(place: Place) -> None:
    place.pack("a")
    first = place.files()
    place.pack("a", max_count=3, overwrite=True)
    place.pack("b")
    place.merge("a", "b")
    for name, data in first.items():  # an older copy is restored
        place.write(name, data)
    place.pack("a", max_count=4, overwrite=True)
    assert {"a-g2-000000.tar", "a-g3-000000.tar"} <= place.files().keys()
    for name in ("a", "all"):
        assert shardkit.verify(place.at(name)).sound


def test_no_member_is_replaced_while_it_is_merged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its overwrite removes would be named by the new manifest."""
    place.pack("a")
    place.pack("b")
    finish = DatasetFiles.finish

    def meanwhile(self: DatasetFiles, *arguments: Any, **options: Any) -> None:
        if self.stem == "all":
            assert "another run" in refused(BusyError, lambda: place.pack("a", max_count=3, overwrite=True))
        finish(self, *arguments, **options)

    monkeypatch.setattr(DatasetFiles, "finish", meanwhile)
    place.merge("a", "b")
    assert shardkit.verify(place.at("all")).sound
    place.pack("a", max_count=3, overwrite=True)


def test_datasets_without_classes_are_merged(place: Place) -> None:
    for name in "ab":
        place.pack(name)
        paths = sorted((place.tmp / "trees" / name).rglob("*.jpg"))
        table = {"path": [str(path) for path in paths], "label": [0.5 * number for number in range(len(paths))]}
        shardkit.pack(table, place.at(f"numbers-{name}"), workers=1)
    assert place.merge("numbers-a", "numbers-b").classes == ()
    assert len(keys(place.at("all"))) == 14


@pytest.mark.parametrize("name", ["all.json", ".all", "all.skipped", "a*"])
def test_a_name_whose_manifest_would_not_be_found_is_refused(place: Place, name: str) -> None:
    place.pack("a")
    place.pack("b")
    before = place.files()
    assert "can't be the " in refused((UsageError, DestinationError), lambda: place.merge("a", "b", dest=name))
    assert place.files() == before


def test_an_index_that_a_merged_dataset_names_is_not_written_over(place: Place) -> None:
    if place.kind == "bucket":
        pytest.skip("shards on a disk are indexed")
    place.pack("a")
    place.pack("b")
    place.merge("a", "b")
    place.remove("a.json")
    assert shardkit.index_shards(place.at("a-*.tar")).index[0].name == "a.parquet"  # the same bytes
    if seek.available():
        place.remove("a.json")
        made = shardkit.index_shards(place.at("a-*.tar"), seek_points=True)
        assert made.index[0].name == "a-g2.parquet"
    for name in ("a", "all"):
        assert shardkit.verify(place.at(name)).sound


def test_a_merged_dataset_alone_in_a_folder_is_found_by_it(place: Place, tmp_path: Path) -> None:
    if place.kind == "bucket":
        pytest.skip("it is the source on a disk")
    place.pack("a")
    place.pack("b")
    place.merge("a", "b")
    for folder in (f"{tmp_path}/up/", "memory://up/x/"):
        shardkit.upload(place.at("all"), folder)
        assert shardkit.info(folder).samples == 14
        assert keys(folder.rstrip("/")) == keys(place.at("all"))
        DatasetFiles(open_patient(locate(folder.rstrip("/"))), "x").write("other.json", b'{"a": 1}')
        assert shardkit.info(folder).samples == 14


def test_a_merged_dataset_that_is_overwritten_leaves_its_members(place: Place) -> None:
    place.pack("a")
    place.pack("b")
    before = place.files()
    place.merge("a", "b")
    place.pack("all", overwrite=True)
    there = place.files()
    assert {name: there[name] for name in before} == before
    assert len(keys(place.at("all"))) == 7
    assert shardkit.verify(place.at("a")).sound


def test_a_member_may_grow_and_lose_its_manifest(place: Place) -> None:
    place.pack("a")
    place.pack("b")
    place.merge("a", "b")
    place.draw_tree(place.tmp / "trees" / "a", {"red": 9}, seed=50)
    place.pack("a", append=True)
    assert len(keys(place.at("all"))) == 14
    place.remove("b.json")
    assert len(keys(place.at("all"))) == 14
    text = refused(DestinationError, lambda: place.pack("b", overwrite=True))
    assert "this file belongs to the dataset all" in text
    assert shardkit.verify(place.at("all")).sound


def test_a_manifest_that_can_not_be_read_protects_everything(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.pack("a")
    place.write("later.json", b'{"format": "shardkit", "version": 99}')
    place.write("other.json", b'{"a": 1}')
    place.pack("a", max_count=3, overwrite=True)
    assert "a-000000.tar" in place.files()
    assert "later.json: its files are not known" in caplog.text
    assert "other.json" not in caplog.text


def test_nothing_is_added_to_a_merged_dataset(place: Place) -> None:
    place.pack("a")
    place.pack("b")
    place.merge("a", "b")
    text = refused(DestinationError, lambda: shardkit.pack(place.tmp / "trees" / "a", place.at("all"), append=True))
    assert "this dataset was merged from a, b; add to one of them" in text


def test_lists_of_skipped_files_are_joined(place: Place) -> None:
    for name in "ab":
        place.draw_tree(place.tmp / "trees" / name, {"blue": 2, "red": 1})
        for path in list((place.tmp / "trees" / name).rglob("*.jpg")):
            path.rename(path.with_name(f"{name}-{path.name}"))
        (place.tmp / "trees" / name / "red" / f"{name}-bad.jpg").write_bytes(b"no image")
        place.pack(name, on_error="skip")
    assert place.merge("a", "b").skipped == 2
    listed = json.loads(place.files()["all.skipped.json"])
    assert [item["path"] for item in listed] == ["red/a-bad.jpg", "red/b-bad.jpg"]


def test_a_merged_dataset_is_uploaded_and_converted(place: Place, tmp_path: Path) -> None:
    if place.kind == "bucket":
        pytest.skip("it is the source on a disk")
    place.pack("a")
    place.pack("b")
    place.merge("a", "b")
    shardkit.upload(place.at("all"), "memory://up/all")
    assert objects("up").keys() == {"all.json", "a.parquet", "b.parquet", *(
        name for name in place.files() if name.endswith(".tar"))}  # fmt: skip
    assert shardkit.verify("memory://up/all").sound
    converted = shardkit.convert(place.at("all"), tmp_path / "new" / "train", workers=1)
    assert converted.samples == 14
    assert not converted.merged
    shardkit.unpack(place.at("all"), tmp_path / "again")
    assert len(list((tmp_path / "again").rglob("*.jpg"))) == 14


def test_shards_that_a_merged_dataset_names_are_not_replaced_by_an_upload(place: Place, tmp_path: Path) -> None:
    if place.kind == "disk":
        pytest.skip("uploads go to the bucket")
    place.pack("a")
    place.pack("b")
    place.merge("a", "b")
    place.remove("a.json")
    shardkit.pack(place.tmp / "trees" / "a", tmp_path / "here" / "a", max_count=3, workers=1)
    before = place.files()
    text = refused(DestinationError, lambda: shardkit.upload(tmp_path / "here" / "a", place.at("a"), overwrite=True))
    assert "belongs to the dataset all" in text
    assert place.files() == before


@pytest.mark.parametrize(
    ("counts", "options", "fact"),
    [
        ({"cyan": 2, "red": 3}, {}, "label 0 is 'cyan' in "),
        ({"blue": 2, "cyan": 1, "red": 3}, {}, "labels are stored in the shards"),
        (None, {"format": "tfrecord"}, "has shards of the format 'tfrecord', and "),
        (None, {"labels": shardkit.LabelOptions(no_labels=True)}, "has labels of the kind 'none', and "),
    ],
)
def test_datasets_that_do_not_fit_are_refused(counts: Any, options: dict[str, Any], fact: str, place: Place) -> None:
    place.pack("a")
    place.pack("b", counts, **options)
    before = place.files()
    assert fact in refused(UsageError, lambda: place.merge("a", "b"))
    assert place.files() == before


def test_classes_are_reconciled_by_classes_from(place: Place) -> None:
    place.pack("a", {"blue": 2, "cyan": 1, "red": 3})
    place.pack("b", {"blue": 2, "red": 3}, classes=["blue", "cyan", "red"])
    merged = place.merge("a", "b")
    assert [(each.name, each.count) for each in merged.classes] == [("blue", 4), ("cyan", 1), ("red", 6)]


def test_double_keys_are_told(place: Place) -> None:
    place.pack("a")
    place.pack("b", prefix="a")
    before = place.files()
    text = refused(DatasetError, lambda: place.merge("a", "b"))
    assert "7 of its keys are also in other datasets (blue/a-0000, " in text
    assert place.files() == before


def test_what_makes_no_sense_is_refused(place: Place, tmp_path: Path) -> None:
    place.pack("a")
    place.pack("b")
    place.merge("a", "b")
    shardkit.pack(tmp_path / "trees" / "a", tmp_path / "elsewhere" / "c", workers=1)
    before = place.files()
    elsewhere = [place.at("a"), tmp_path / "elsewhere" / "c"]
    assert "is not in the folder of" in refused(UsageError, lambda: shardkit.merge(elsewhere, place.at("d")))
    assert "one dataset is not several" in refused(UsageError, lambda: place.merge("a"))
    assert "a is given twice" in refused(UsageError, lambda: place.merge("a", "a", dest="d"))
    assert "is one of the datasets to merge" in refused(UsageError, lambda: place.merge("a", "b", dest="a"))
    assert "belongs to several" in refused(UsageError, lambda: place.merge("all", "a", dest="d"))
    refused(NotFoundError, lambda: place.merge("a", "none", dest="d"))
    assert "only some" in refused(
        UsageError, lambda: shardkit.merge([place.at("a-000000.tar"), place.at("b")], place.at("d"))
    )
    assert "have no parts" in refused(UsageError, lambda: place.merge("a", "b", discard=True))
    refused(UsageError, lambda: shardkit.merge([place.at("a"), place.at("b")]))
    assert "given for parts" in refused(UsageError, lambda: shardkit.merge(place.at("a"), overwrite=True))
    assert place.files() == before
    place.remove("b-000000.tar")
    assert "it is missing or has another size" in refused(NotFoundError, lambda: place.merge("a", "b", dest="d"))


def test_the_command_merges_datasets(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.pack("a")
    place.pack("b")
    assert run(["merge", place.at("a"), place.at("b"), place.at("all")]) == 0
    assert f"{place.at('all')}: 14 samples in 8 shards" in capsys.readouterr().out
    assert run(["merge", place.at("a"), place.at("all")]) == 2
