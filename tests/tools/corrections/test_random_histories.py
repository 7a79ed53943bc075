"""Random histories of corrections, held against a plain model and a plain rewrite after each step."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import shardkit
from shardkit.shards.manifest import Manifest

Samples = dict[str, tuple[str, bytes]]
"""Key -> (class, image)."""


def samples_of(source: Path | str) -> Samples:
    data = shardkit.dataset(source)
    names = data.classes
    return {sample["__key__"]: (names[sample["cls"]], sample["jpg"]) for sample in data}


def require_equal(source: str, model: Samples, out: Path) -> None:
    """The dataset, looked at in each way there is, has the samples of the model."""
    data = shardkit.dataset(source)
    assert len(data) == len(model)
    assert samples_of(source) == model
    counts = dict.fromkeys(data.classes, 0)
    for name, _ in model.values():
        counts[name] += 1
    assert data.class_counts == counts
    assert dict(zip(data.keys.tolist(), [data.classes[n] for n in data.labels], strict=True)) == {
        key: name for key, (name, _) in model.items()
    }
    if model:
        key = max(model)
        assert data.classes[data[key]["cls"]] == model[key][0]
        shuffled = shardkit.dataset(source, shuffle=50, seed=1).decode(size=8).batch(4)
        assert sorted(np.concatenate([labels for _, labels in shuffled]).tolist()) == sorted(data.labels.tolist())
        ranks = [shardkit.dataset(source, rank=rank, world_size=2, remainder="pad") for rank in (0, 1)]
        assert {sample["__key__"] for part in ranks for sample in part} == set(model)
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
            self.model[key] = (name, self.model[key][1])
        return shardkit.relabel(self.dest, labels, new_classes=True).version

    def delete(self) -> int:
        keys = self.random.sample(sorted(self.model), min(self.random.choice([1, 2, 5]), len(self.model)))
        for key in keys:
            del self.model[key]
        return shardkit.delete(self.dest, keys).version

    def append(self) -> int:
        for name in self.random.choices(self.classes, k=2):
            path = self.add_file(name)
            self.model[f"{name}/{path.stem}"] = (name, path.read_bytes())
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
@pytest.mark.parametrize("seed", range(3))
def test_after_each_step_of_a_random_history_all_versions_equal_a_plain_rewrite(
    form: str, seed: int, tmp_path: Path, draw_image: Callable[..., bytes]
) -> None:
    history = History(tmp_path, form, seed, draw_image)
    for _ in range(7):
        step = history.random.choice([history.relabel, history.delete, history.append, history.revert])
        if not history.model and step in (history.relabel, history.delete):
            continue
        number = step()
        history.versions[number] = dict(history.model)
        require_equal(str(history.dest), history.model, tmp_path / "out")
        assert shardkit.verify(history.dest).findings == ()
        for version, model in history.versions.items():
            assert samples_of(f"{history.dest}@{version}") == model
    assert [each.version for each in shardkit.log(history.dest)] == sorted(history.versions)
