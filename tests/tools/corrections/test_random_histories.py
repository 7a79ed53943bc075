"""Random histories of corrections, held against a plain model and a plain rewrite after each step."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.shards.manifest import Manifest

Samples = dict[str, tuple[str, bytes, dict[str, Any]]]
"""Key -> (class, image, fields that are not null)."""

VALUES: dict[str, Callable[[random.Random], Any]] = {
    "age": lambda chance: chance.randrange(100),
    "score": lambda chance: chance.random(),
    "note": lambda chance: chance.choice(["", "ü\\", "a longer note"]),
    "box": lambda chance: [chance.random(), chance.random()],
}
"""Fields with what draws a value of each."""


def fields_of(source: Path | str) -> dict[str, dict[str, Any]]:
    """Key -> the fields that are not null."""
    catalog = shardkit.dataset(source).content.catalog
    assert catalog.manifest is not None
    names = list(catalog.manifest.columns)
    rows = [row for table in catalog.index_tables(["key", *(f"meta.{name}" for name in names)])
            for row in table.to_pylist()]  # fmt: skip
    return {
        row["key"]: {name: row[f"meta.{name}"] for name in names if row[f"meta.{name}"] is not None} for row in rows
    }


def samples_of(source: Path | str) -> Samples:
    data = shardkit.dataset(source)
    names, fields = data.classes, fields_of(source)
    return {s["__key__"]: (names[s["cls"]], s["jpg"], fields[s["__key__"]]) for s in data}


def require_same_in_batches(source: str, model: Samples) -> None:
    """The fields that batches bring are those of the model."""
    types = shardkit.info(source).columns
    nothing: dict[str, Any] = {"age": -1, "score": None, "note": None, "box": None}
    wanted = {name: nothing[name] for name in types}
    for batch in shardkit.dataset(source, shuffle=50, seed=1).decode(size=8, columns=wanted).batch(4) if wanted else ():
        for at, key in enumerate(batch.keys):
            for name in wanted:
                value = np.asarray(batch[name][at]).tolist()
                expected = model[key][2].get(name, -1 if name == "age" else None)
                assert value == expected or (expected is None and np.isnan(value).all()), (key, name)


def require_equal(source: str, model: Samples, out: Path) -> None:
    """The dataset, looked at in each way there is, has the samples of the model."""
    data = shardkit.dataset(source)
    assert len(data) == len(model)
    assert samples_of(source) == model
    counts = dict.fromkeys(data.classes, 0)
    for name, _, _ in model.values():
        counts[name] += 1
    assert data.class_counts == counts
    assert dict(zip(data.keys.tolist(), [data.classes[n] for n in data.labels], strict=True)) == {
        key: name for key, (name, _, _) in model.items()
    }
    if model:
        key = max(model)
        assert data.classes[data[key]["cls"]] == model[key][0]
        shuffled = shardkit.dataset(source, shuffle=50, seed=1).decode(size=8).batch(4)
        assert sorted(np.concatenate([labels for _, labels in shuffled]).tolist()) == sorted(data.labels.tolist())
        ranks = [shardkit.dataset(source, rank=rank, world_size=2, remainder="pad") for rank in (0, 1)]
        assert {sample["__key__"] for part in ranks for sample in part} == set(model)
        require_same_in_batches(source, model)
        shutil.rmtree(out, ignore_errors=True)
        shardkit.convert(source, out / "again", workers=1)
        assert samples_of(out / "again") == model
        assert shardkit.verify(out / "again").sound


class History:
    """A dataset that is corrected at random, and what each of its versions should be."""

    def __init__(self, folder: Path, form: str, seed: int, draw_image: Callable[..., bytes]) -> None:
        self.random = random.Random(seed)
        self.tree, self.dest, self.form = folder / "tree", folder / "shards" / "train", form
        self.draw, self.drawn = draw_image, 0
        self.classes = ["cat", "dog", "fox"]
        for number in range(12):
            self.add_file(self.classes[number % 3])
        self.pack(append=False)
        self.model = samples_of(self.dest)
        self.versions = {1: dict(self.model)}

    def add_file(self, name: str) -> Path:
        path = self.tree / name / f"{self.drawn:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.drawn += 1
        path.write_bytes(self.draw(self.drawn, size=(10, 8)))
        return path

    def pack(self, *, append: bool) -> Manifest:
        options = {"workers": 1, "max_count": 5, "format": self.form, "append": append}
        return shardkit.pack(self.tree, self.dest, **options).manifest

    def relabel(self) -> int:
        keys = self.random.sample(sorted(self.model), min(3, len(self.model)))
        new = f"new{len(self.versions)}"
        labels = {key: self.random.choice([*self.classes, new]) for key in keys}
        for key, name in labels.items():
            self.model[key] = (name, *self.model[key][1:])
        return shardkit.relabel(self.dest, labels, new_classes=True).version

    def add_fields(self) -> int:
        keys = self.random.sample(sorted(self.model), self.random.choice([1, len(self.model)]))
        names = self.random.sample(sorted(VALUES), self.random.choice([1, 2]))
        rows = {key: {name: VALUES[name](self.random) for name in names if self.random.random() < 0.8 or key == keys[0]}
                for key in keys}  # fmt: skip
        for key, values in rows.items():
            label, image, before = self.model[key]
            self.model[key] = (label, image, before | values)
        return shardkit.add_fields(self.dest, rows, overwrite=True).version

    def delete(self) -> int:
        keys = self.random.sample(sorted(self.model), min(self.random.choice([1, 2, 5]), len(self.model)))
        for key in keys:
            del self.model[key]
        return shardkit.delete(self.dest, keys).version

    def append(self) -> int:
        for name in self.random.choices(self.classes, k=2):
            path = self.add_file(name)
            self.model[f"{name}/{path.stem}"] = (name, path.read_bytes(), {})
        manifest = self.pack(append=True)
        if manifest.number == 1:
            self.versions[1] = dict(self.model)
        return manifest.number

    def revert(self) -> int:
        version = self.random.choice(sorted(self.versions))
        self.model = dict(self.versions[version])
        made = shardkit.revert(self.dest, version).version
        self.gone_from_tree(version)
        return made

    def gone_from_tree(self, version: int) -> None:
        """A file that was added after the version would be added again: it leaves the tree."""
        known = set(shardkit.dataset(f"{self.dest}@{version}").paths) | self.deleted_paths(version)
        for path in self.tree.rglob("*.jpg"):
            if str(path.relative_to(self.tree)) not in known:
                path.unlink()

    def deleted_paths(self, version: int) -> set[str]:
        import pyarrow.parquet as pq

        found = shardkit.dataset(f"{self.dest}@{version}").content.catalog.manifest
        assert found is not None
        return {p for e in found.index for p in pq.read_table(self.dest.parent / e.name)["path"].to_pylist()}


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
@pytest.mark.parametrize("seed", range(4))
def test_after_each_step_of_a_random_history_all_versions_equal_a_plain_rewrite(
    form: str, seed: int, tmp_path: Path, draw_image: Callable[..., bytes]
) -> None:
    history = History(tmp_path, form, seed, draw_image)
    for _ in range(8):
        steps = [history.relabel, history.delete, history.add_fields, history.append, history.revert]
        step = history.random.choice(steps)
        if not history.model and step in steps[:3]:
            continue
        number = step()
        history.versions[number] = dict(history.model)
        require_equal(str(history.dest), history.model, tmp_path / "out")
        assert shardkit.verify(history.dest).findings == ()
        for version, model in history.versions.items():
            assert samples_of(f"{history.dest}@{version}") == model
    assert [each.version for each in shardkit.log(history.dest)] == sorted(history.versions)
