from __future__ import annotations

import pytest

from shardkit.shards import names


@pytest.mark.parametrize("generation", [1, 2, 17])
@pytest.mark.parametrize("stem", ["train", "a-g", "train-000000", "x.y"])
def test_the_generation_of_each_file_is_in_its_name(stem: str, generation: int) -> None:
    base = names.base_of(stem, generation)
    made = [
        names.shard_name(base, 0, ".tar"),
        names.shard_name(base, 1_234_567, ".tfrecord"),
        names.index_name(base),
        names.index_name(base, 3),
        names.skipped_name(base),
    ]
    assert [names.file_generation(name, stem) for name in made] == [generation] * len(made)
    assert names.generation_of(made, stem) == generation
    assert names.files_of_stem([*made, names.manifest_name(stem)], stem) == sorted(made)


def test_the_first_generation_has_the_names_that_people_know() -> None:
    base = names.base_of("train", 1)
    assert names.shard_name(base, 0, ".tar") == "train-000000.tar"
    assert names.index_name(base) == "train.parquet"
    assert names.index_name(base, 0) == "train.00000.parquet"
    assert names.skipped_name(base) == "train.skipped.json"


OTHERS = [
    "train.json", "train-00000.tar", "train-000000.zip", "trainer-000000.tar", "train-20250101.tar",
    "train-g0-000000.tar", "train-g2.json", "train-val-000000.tar", ".train.packing",
]  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_of_no_generation(name: str) -> None:
    assert names.file_generation(name, "train") is None


def test_a_dataset_that_is_itself_called_like_a_generation_keeps_its_files() -> None:
    theirs = ["train-g2-000000.tar", "train-g2.parquet"]
    for own in (names.manifest_name("train-g2"), names.work_name("train-g2")):
        assert names.files_of_stem([*theirs, own, "train-000000.tar"], "train") == ["train-000000.tar"]
        assert names.next_generation(1, "train", [*theirs, own]) == 3
    assert names.next_generation(1, "train", theirs) == 2
    assert names.stems_of("train-g2") == ("train-g2", "train")
    assert names.stems_of("train") == ("train",)
