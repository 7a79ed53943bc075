"""What `pack` takes and gives back: the new spelling of its arguments, the old one, and the result."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import Images, LabelOptions, Packed, PackPlan, Ray, TableColumns
from shardkit.errors import UsageError
from shardkit.packing.engine.options import EngineOptions, engine_options
from shardkit.packing.settings import PackSettings
from shardkit.shards.manifest import decode_manifest

pack: Any = shardkit.pack  # as programs of the last release call it
MOST_PARAMETERS = 28


@pytest.fixture
def packed(tree: Path, out: Path) -> Packed:
    return shardkit.pack(tree, out / "train", workers=1, max_count=5)


@pytest.fixture
def of_splits(splits: Path, out: Path) -> Packed:
    return shardkit.pack(splits, out / "parts", workers=1)


def test_pack_has_few_parameters_and_plan_pack_has_the_same() -> None:
    parameters = inspect.signature(shardkit.pack).parameters
    assert len(parameters) <= MOST_PARAMETERS
    assert parameters == inspect.signature(shardkit.plan_pack).parameters


def test_the_settings_have_the_names_and_defaults_of_pack() -> None:
    parameters = dict(list(inspect.signature(shardkit.pack).parameters.items())[2:-1])
    assert [field.name for field in fields(PackSettings)] == list(parameters)
    settings = PackSettings()
    for name, parameter in parameters.items():
        empty = {"images": Images(), "columns": TableColumns(), "labels": LabelOptions()}.get(name)
        assert getattr(settings, name) == (empty if parameter.default is None else parameter.default)


# The result


def test_the_result_of_one_dataset_has_its_name_its_place_and_what_its_manifest_has(packed: Packed, out: Path) -> None:
    manifest = decode_manifest((out / "train.json").read_bytes(), place="x")
    assert list(packed) == ["train"] and len(packed) == 1 and not packed.splits
    assert packed["train"].location == packed.location == str(out / "train")
    assert packed["train"].manifest == packed.manifest == manifest
    for name in (*manifest.__struct_fields__, "class_names"):
        if name not in ("format", "version"):
            assert getattr(packed, name) == getattr(packed["train"], name) == getattr(manifest, name)


def test_the_result_of_splits_is_a_mapping_of_their_names(of_splits: Packed, out: Path) -> None:
    assert isinstance(of_splits, Mapping) and of_splits.splits
    assert {name: each.samples for name, each in of_splits.items()} == {"test": 2, "train": 10, "validation": 4}
    assert of_splits["train"].location == str(out / "parts" / "train")
    assert of_splits.manifests["test"] == of_splits["test"].manifest
    assert "train" in of_splits and of_splits.get("other") is None
    assert repr(of_splits) == "Packed({})".format(
        ", ".join(f"{name}: {each.manifest.samples} samples in {each.location}" for name, each in of_splits.items())
    )
    assert repr(of_splits["test"]).startswith(f"PackedDataset('{out / 'parts' / 'test'}', samples=2, shards=1")


def test_what_one_dataset_has_is_refused_of_several(of_splits: Packed) -> None:
    with pytest.raises(UsageError, match=r"it has 3 datasets: test, train, validation; choose one, .*result\['test'\]"):
        _ = of_splits.samples


def test_a_location_is_as_relative_as_the_destination(
    tree: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shardkit.pack(tree, "here/train", workers=1).location == "here/train"
    Path("folder").mkdir()
    assert shardkit.pack(tree, "folder", workers=1).location == f"folder/{tree.name}"
    assert shardkit.pack(tree, "memory://packed/train", workers=1).location == "memory://packed/train"
    assert shardkit.pack(splits, "parts", workers=1)["test"].location == "parts/test"


def test_a_result_can_be_read(packed: Packed, of_splits: Packed) -> None:
    assert len(shardkit.dataset(packed)) == len(shardkit.dataset(packed["train"])) == packed.samples
    assert os.fspath(of_splits["test"]) == of_splits["test"].location
    assert shardkit.verify(of_splits["test"]).sound


def test_results_are_equal_where_the_manifests_are(packed: Packed, tree: Path, splits: Path, tmp_path: Path) -> None:
    elsewhere = shardkit.pack(tree, tmp_path / "more" / "train", workers=1, max_count=5)
    assert elsewhere == packed == packed.manifest == elsewhere["train"]
    assert elsewhere != shardkit.pack(tree, tmp_path / "less" / "train", workers=1, max_count=6)
    parts = shardkit.pack(splits, tmp_path / "parts", workers=1)
    assert parts == parts.manifests and parts != packed


def test_the_classes_of_a_result_can_be_used(packed: Packed, tree: Path, tmp_path: Path) -> None:
    for number, given in enumerate((packed, packed["train"], packed.manifest)):
        again = shardkit.pack(tree, tmp_path / str(number), workers=1, classes_from=given)
        assert again.class_names == packed.class_names


# The old spelling


def test_old_image_options_give_the_same_dataset_with_a_warning(tree: Path, out: Path) -> None:
    new = shardkit.pack(tree, out / "new" / "train", workers=1, images=Images(resize=20, strip=True))
    with pytest.warns(DeprecationWarning, match=r"write images=shardkit\.Images\(resize=20, strip=True\)") as caught:
        old = pack(tree, out / "old" / "train", workers=1, strip=True, resize=20)
    assert caught[0].filename == __file__
    assert old == new and old.options["resize"] == 20


def test_old_options_of_lists_work_with_a_warning(tree: Path, out: Path) -> None:
    (tree.parent / "list.csv").write_text("photo,breed\nred/0001.jpg,a\nblue/0001.jpg,b\n")
    new = r"write columns=shardkit\.TableColumns\(path_column='photo', label_column='breed', root="
    with pytest.warns(DeprecationWarning, match=new):
        old = pack(tree.parent / "list.csv", out / "x", workers=1, path_column="photo", label_column="breed", root=tree)
    assert old.class_names == ["a", "b"]


def test_a_dry_run_works_with_a_warning_and_gives_the_plan(tree: Path, out: Path) -> None:
    with pytest.warns(DeprecationWarning, match=r"dry_run=True .* write plan_pack\(\) in place of pack\(\)"):
        plan = pack(tree, out / "train", max_count=5, dry_run=True)
    assert isinstance(plan, PackPlan) and plan == shardkit.plan_pack(tree, out / "train", max_count=5)
    assert not out.exists()
    with pytest.warns(DeprecationWarning, match="dry_run=False is deprecated, write nothing in its place"):
        assert pack(tree, out / "train", workers=1, dry_run=False).samples == 12


@pytest.mark.parametrize(
    ("given", "new", "options"),
    [
        ({"engine": "ray"}, r"engine=shardkit\.Ray\(\)", EngineOptions("ray")),
        ({"engine": "ray", "address": "h:1"}, r"engine=shardkit\.Ray\('h:1'\)", EngineOptions("ray", None, "h:1")),
        ({"engine": "local", "address": None}, 'engine="local"', EngineOptions()),
        ({"address": None}, 'engine="local"', EngineOptions()),
    ],
)
def test_an_old_engine_works_with_a_warning(
    given: dict[str, Any], new: str, options: EngineOptions, tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []

    def taking(engine: Any, workers: int | None = None) -> EngineOptions:
        taken.append(engine_options(engine, workers))
        return taken[-1]

    plan_pack: Any = shardkit.plan_pack
    monkeypatch.setattr("shardkit.packing.pack.engine_options", taking)
    with pytest.warns(DeprecationWarning, match=f"write {new}"):
        plan_pack(tree, out / "train", **given)
    assert taken == [options]


@pytest.mark.parametrize("name", ["convert", "verify", "index_shards"])
def test_other_functions_take_an_old_engine_too(name: str, packed: Packed, tmp_path: Path) -> None:
    arguments = {
        "convert": (packed, tmp_path / "y"),
        "verify": (packed,),
        "index_shards": (f"{packed.location}-*.tar",),
    }
    function = getattr(shardkit, name)
    options = {"overwrite": True} if name == "index_shards" else {}
    with pytest.warns(DeprecationWarning, match=rf"{name}\(\): address=None is deprecated, write engine="):
        assert function(*arguments[name], workers=1, address=None, **options).samples == 12


def test_an_address_needs_a_cluster_and_is_given_once(tree: Path, out: Path) -> None:
    with pytest.raises(UsageError, match="only a cluster has an address, and the engine is local"):
        pack(tree, out / "train", address="h:1")
    with pytest.raises(UsageError, match=r"address: given together with engine=shardkit\.Ray"):
        pack(tree, out / "train", engine=Ray(), address="h:1")
    with pytest.raises(UsageError, match="engine: 'spark' is not one of local, ray"):
        pack(tree, out / "train", engine="spark")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Images(resize=0), "resize: 0 is out of range"),
        (lambda: Images(to="png", quality=3), "quality: makes no sense with to=png"),
        (lambda: TableColumns(label_separator=""), "label_separator: it is empty"),
    ],
)
def test_values_that_make_no_sense_are_refused_when_they_are_made(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
