from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shardkit
from shardkit import DatasetError, Manifest, ManifestError, NotFoundError, StorageError, UsageError
from shardkit.location import Location
from shardkit.shards import buffers, names
from shardkit.shards.buffers import MappedShards, ShardFile
from shardkit.shards.find.find import resolve
from shardkit.shards.manifest import decode_manifest, encode_manifest
from shardkit.shards.objects import missing_file
from shardkit.storage.access import Remote


@pytest.fixture
def own(cars: str, tmp_path: Path) -> Path:
    """A copy of the 97 images in 5 shards that a test may spoil; the prefix."""
    shutil.copytree(Path(cars).parent, tmp_path / "own")
    return tmp_path / "own" / "cars"


def shard(prefix: Path, number: int) -> Path:
    return prefix.with_name(f"{prefix.name}-{number:06}.tar")


def count(source: Any) -> int:
    return len(list(shardkit.dataset(source)))


@pytest.mark.parametrize(
    ("pattern", "shards"),
    [
        ("cars-*.tar", "01234"),
        ("cars-{000000..000004}.tar", "01234"),
        ("cars-00000[0-4].tar", "01234"),
        ("cars", "01234"),
        ("cars.json", "01234"),
        ("", "01234"),
        ("cars-*", "01234"),
        ("../own/./cars", "01234"),
        ("cars-{000001..000002}.tar", "12"),
        ("cars-00000{0,4}.tar", "04"),
        ("cars-000003.tar", "3"),
        ("cars-00000[12].tar", "12"),
    ],
)
def test_a_dataset_is_found_by_what_a_user_writes(own: Path, pattern: str, shards: str) -> None:
    dataset = shardkit.dataset(f"{own.parent}/{pattern}")
    urls = [Path(sample["__url__"]).name for sample in dataset]
    assert list(dict.fromkeys(urls)) == [f"cars-00000{number}.tar" for number in shards]
    assert len(dataset) == len(urls)
    assert dataset.classes == ["blue", "green", "red"]


def test_lists_paths_and_manifests_in_lists(own: Path) -> None:
    shards = [shard(own, number) for number in range(5)]
    assert count(shards) == 97
    assert count([str(path) for path in shards[:2]]) == count([f"{own}-00000[01].tar"]) > 0
    assert count([own]) == count([f"{own}.json"]) == count([own.parent]) == 97
    assert count(own) == count(own.with_suffix(".json")) == 97


def test_shards_are_read_in_the_order_in_which_they_are_listed(own: Path) -> None:
    urls = [Path(sample["__url__"]).name for sample in shardkit.dataset([shard(own, 3), shard(own, 1)])]
    assert list(dict.fromkeys(urls)) == [shard(own, 3).name, shard(own, 1).name]


def test_part_of_the_shards_has_the_counts_of_that_part(own: Path) -> None:
    part = shardkit.dataset(f"{own}-00000[0-1].tar")
    labels = [sample["cls"] for sample in part]
    assert len(part) == len(labels)
    assert part[5]["__key__"] == list(part)[5]["__key__"]
    assert {name: labels.count(label) for label, name in enumerate(part.classes)} == part[:].class_counts


def test_the_counts_of_classes_in_part_of_the_shards_are_of_that_part(own: Path) -> None:
    part = shardkit.dataset(f"{own}-00000[0-1].tar")
    assert sum(part.class_counts.values()) == len(part)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((3,), "3"), ((0, 1), "0-1"), ((0, 1, 2, 3, 4), "0-4"), ((4, 0, 1, 3), "4,0-1,3"), ((2, 1), "2,1")],
)
def test_the_identity_of_some_shards_says_which_they_are(own: Path, numbers: tuple[int, ...], text: str) -> None:
    """A state holds it: written otherwise, states of earlier versions would be refused."""
    part = shardkit.dataset([shard(own, number) for number in numbers])
    assert part.content.catalog.identity == shardkit.dataset(own).content.catalog.identity.replace("0-4", text)


@pytest.mark.parametrize(
    ("source", "fact"),
    [
        ("nothing-*.tar", "no file matches"),
        ("own/cars*.parquet", "no shard matches, only .*cars.parquet"),
        ("own/cars-{000005..000009}.tar", r"cars-000005\.tar: there is no such shard"),
        ("own/cars-00000{4,5}.tar", r"cars-000005\.tar: there is no such shard"),
        ("nothing", "no manifest, no shards and no class directory of this name"),
        ("nothing.json", "no such manifest"),
        ("own/nothing.tar", "no such shard"),
    ],
)
def test_what_is_not_there_is_said_with_its_name(own: Path, source: str, fact: str) -> None:
    with pytest.raises(NotFoundError, match=fact):
        len(shardkit.dataset(own.parent.parent / source))


@pytest.mark.parametrize("source", [[], (), 5, None, 2.5, b"cars", {"a": 1}, "", "a\0b", [""], [5]])
def test_what_names_no_dataset_is_refused(source: Any) -> None:
    with pytest.raises((UsageError, NotFoundError)):
        len(shardkit.dataset(source))


@pytest.mark.parametrize("source", ["s3://bucket/train", "https://example.com/train-*.tar", ["gs://bucket/a-0.tar"]])
def test_a_url_is_refused_where_files_on_a_disk_are_needed(source: Any) -> None:
    with pytest.raises(UsageError, match=r"this needs the files on a disk, and (s3|https|gs):// is not one"):
        resolve(source)


def test_a_manifest_value_does_not_say_where_its_shards_are(own: Path) -> None:
    manifest = decode_manifest(own.with_suffix(".json").read_bytes(), place="x")
    assert isinstance(manifest, Manifest)
    with pytest.raises(UsageError, match="does not say where its shards are"):
        len(shardkit.dataset(manifest))


@pytest.mark.parametrize("name", ["cars.parquet", "cars.00003.parquet", "cars-g2.parquet"])
def test_an_index_is_refused_with_the_dataset_to_open(own: Path, name: str) -> None:
    index = own.with_name(name)
    message = f"{index}: this is the index of a dataset, not the dataset; open {own}"
    for use in (len, list, lambda _: shardkit.index_shards(str(index)), lambda _: shardkit.verify(str(index))):
        with pytest.raises(UsageError, match=re.escape(message) + "$"):
            use(shardkit.dataset(str(index)))
    with pytest.raises(UsageError, match=re.escape(message)):
        len(shardkit.dataset([str(index)]))


def test_a_table_beside_no_dataset_is_not_called_an_index(tmp_path: Path) -> None:
    (tmp_path / "other.parquet").touch()
    with pytest.raises(DatasetError) as caught:
        list(shardkit.dataset(tmp_path / "other.parquet"))
    assert "index of a dataset" not in str(caught.value)


@pytest.mark.parametrize("source", ["pipe:cat a.tar", ["pipe:curl https://x/a.tar", "b.tar"]])
def test_a_pipe_is_refused(source: Any) -> None:
    with pytest.raises(UsageError, match="pipes are not supported; name the shards: a path, or a URL such as s3://"):
        list(shardkit.dataset(source))


def test_shards_of_two_datasets_are_refused(own: Path, small_tree: Path) -> None:
    shardkit.pack(small_tree, own.with_name("bikes"), workers=1)
    with pytest.raises(UsageError, match=r"more than one dataset.*bikes\.json.*cars\.json"):
        len(shardkit.dataset(f"{own.parent}/*.tar"))
    with pytest.raises(UsageError, match="the folder holds 2 datasets: bikes, cars"):
        len(shardkit.dataset(own.parent))


@pytest.mark.parametrize("source", ["{}-*.tar", "{}", "{}-00000?.tar"])
def test_a_missing_shard_is_not_passed_over(own: Path, source: str) -> None:
    shard(own, 2).unlink()
    with pytest.raises(NotFoundError, match=r"cars-000002\.tar: .*missing"):
        list(shardkit.dataset(source.format(own)))


def test_a_shard_that_the_manifest_does_not_know_is_refused(own: Path) -> None:
    shutil.copy(shard(own, 0), shard(own, 9))
    with pytest.raises(UsageError, match=r"cars-000009\.tar: this shard is not in the manifest"):
        len(shardkit.dataset(f"{own}-*.tar"))
    assert count(own) == 97


def test_a_shard_that_is_too_short_or_another_one_is_found(own: Path) -> None:
    data = shard(own, 1).read_bytes()
    shard(own, 1).write_bytes(data[:-512])
    with pytest.raises(ManifestError, match=rf"has {len(data) - 512} bytes, but its manifest says {len(data)}"):
        list(shardkit.dataset(own))
    shutil.copy(shard(own, 4), shard(own, 1))
    with pytest.raises(ManifestError, match=r"cars-000001\.tar"):
        list(shardkit.dataset(own))


def test_shards_of_another_packing_are_found_by_their_sums(own: Path, tmp_path: Path) -> None:
    first, second = shard(own, 0).read_bytes(), shard(own, 1).read_bytes()
    size = max(len(first), len(second))
    assert size
    data = bytearray(first)
    data[data.index(b"\xff\xd8") + 200] ^= 1
    shard(own, 0).write_bytes(data)
    with pytest.raises(ManifestError, match="CRC-32C"):
        list(shardkit.dataset(own, verify=True))


def test_a_shard_that_cannot_be_opened_is_a_storage_error(own: Path) -> None:
    shard(own, 1).unlink()
    shard(own, 1).symlink_to(shard(own, 1).name)  # to itself
    with pytest.raises(StorageError, match=r"cars-000001\.tar"):
        list(shardkit.dataset(own))


@pytest.mark.parametrize("word", ["shards", "index"])
def test_a_manifest_of_a_later_version_is_refused_with_the_version(own: Path, word: str) -> None:
    manifest = json.loads(own.with_suffix(".json").read_text())
    assert word in manifest
    own.with_suffix(".json").write_text(json.dumps({**manifest, "version": 7}))
    with pytest.raises(ManifestError, match="version 7, and this shardkit reads versions up to 3; install a newer"):
        len(shardkit.dataset(own))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "shardkit", "version": 1}', "\x00", "null"])
def test_a_damaged_manifest_is_refused(own: Path, text: str) -> None:
    own.with_suffix(".json").write_text(text)
    with pytest.raises(ManifestError, match=r"cars\.json"):
        len(shardkit.dataset(own))


def test_a_missing_index_is_named(own: Path) -> None:
    own.with_suffix(".parquet").unlink()
    dataset = shardkit.dataset(own)
    assert len(dataset) == 97
    with pytest.raises(NotFoundError, match=r"cars\.parquet: the index is missing; .*shardkit index"):
        next(iter(dataset))


def test_the_index_of_another_dataset_is_refused(own: Path, by_shards: dict[int, str]) -> None:
    shutil.copy(by_shards[7] + ".parquet", own.with_suffix(".parquet"))
    with pytest.raises(ManifestError, match="not the one that its manifest names"):
        next(iter(shardkit.dataset(own)))


def test_every_flipped_byte_of_an_index_is_an_error(own: Path) -> None:
    path = own.with_suffix(".parquet")
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), max(1, len(data) // 400)):
        data[at] ^= 0x41
        path.write_bytes(data)
        with pytest.raises(ManifestError, match=r"cars\.parquet"):
            next(iter(shardkit.dataset(own)))
        data[at] ^= 0x41


@pytest.fixture
def tiny(tmp_path: Path, draw_image: Any) -> Path:
    """3 samples in one shard; the prefix."""
    (tmp_path / "tree" / "a").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "tree" / "a" / f"{number}.jpg").write_bytes(draw_image(number, size=(4, 4)))
    shardkit.pack(tmp_path / "tree", tmp_path / "tiny", workers=1)
    return tmp_path / "tiny"


def test_every_flipped_byte_of_a_shard_is_found_where_it_is_verified(tiny: Path) -> None:
    path = shard(tiny, 0)
    data = bytearray(path.read_bytes())
    assert len(list(shardkit.dataset(tiny, verify=True))) == 3
    files = shardkit.dataset(tiny).content.catalog.files()
    with path.open("r+b", buffering=0) as file:
        for at, byte in enumerate(data):
            os.pwrite(file.fileno(), bytes([byte ^ 1 << at % 8]), at)
            with pytest.raises(ManifestError, match=r"CRC-32C is .*, but its manifest says"):
                MappedShards(files, verify=True, limit=1).buffer(0)
            os.pwrite(file.fileno(), bytes([byte]), at)
    path.write_bytes(data[:-1] + b"x")
    with pytest.raises(ManifestError, match="CRC-32C"):
        list(shardkit.dataset(tiny, verify=True).decode(size=4).batch(2))


def test_a_shard_cut_at_any_byte_is_found(tiny: Path) -> None:
    data = shard(tiny, 0).read_bytes()
    for end in range(0, len(data), 97):
        shard(tiny, 0).write_bytes(data[:end])
        with pytest.raises(ManifestError, match=f"has {end} bytes"):
            next(iter(shardkit.dataset(tiny)))


def test_an_index_that_does_not_fit_shards_with_other_fields_is_found(tmp_path: Path) -> None:
    """A sample of several fields is read from its place in the shard, where another one lies now."""
    import io
    import tarfile

    def write(path: Path, keys: str) -> None:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for key in keys:
                for name, value in (("cls", b"0"), ("txt", b"t")):
                    info = tarfile.TarInfo(f"{key}.{name}")
                    info.size = len(value)
                    archive.addfile(info, io.BytesIO(value))

    from shardkit.tools.index_shards import index_shards

    path = tmp_path / "own-000.tar"
    write(path, "abc")
    index_shards(path)
    assert [sample["txt"] for sample in shardkit.dataset(path)] == [b"t"] * 3
    size = path.stat().st_size
    write(path, "xyz")
    with pytest.raises(DatasetError, match="the index says 'a', but the shard holds 'x'"):
        list(shardkit.dataset(path))
    path.write_bytes(bytes(size))
    with pytest.raises(DatasetError, match=r"own-000\.tar: at byte 0"):
        list(shardkit.dataset(path))


def test_an_interrupted_packing_is_said(tmp_path: Path) -> None:
    (tmp_path / ".train.packing").mkdir()
    with pytest.raises(NotFoundError, match="a packing was interrupted there"):
        len(shardkit.dataset(tmp_path / "train"))


def test_resolving_reads_no_shard(own: Path) -> None:
    for number in range(5):
        shard(own, number).write_bytes(b"")
    found = resolve(f"{own}-*.tar")
    assert found.manifest is not None and found.manifest.samples == 97
    assert found.numbers is None


@pytest.mark.parametrize("name", ["x-{:05}-of-00003.tfrecord", "x.tfrecord-{:05}-of-00003", "x-{:05}-of-00003"])
def test_shards_named_as_tensorflow_names_them_find_their_manifest(small_tree: Path, tmp_path: Path, name: str) -> None:
    shardkit.pack(small_tree, tmp_path / "packed" / "x", format="tfrecord", max_count=40)
    (tmp_path / "named").mkdir()
    for number, path in enumerate(sorted((tmp_path / "packed").glob("x-*.tfrecord"))):
        path.rename(tmp_path / "named" / name.format(number))
    shardkit.index_shards(f"{tmp_path}/named/{name.split('{')[0]}*")
    assert (tmp_path / "named" / "x.json").exists()
    for source in (f"{tmp_path}/named/{name.split('{')[0]}*", tmp_path / "named", tmp_path / "named" / "x"):
        assert len(shardkit.dataset(source)) == 97
    assert 0 < len(shardkit.dataset(tmp_path / "named" / name.format(1))) < 97


def test_unpacked_shards_are_kept_within_their_bytes_but_never_fewer_than_the_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for number in range(12):
        data = bytes([number]) * 1000
        (tmp_path / f"{number}.tar.gz").write_bytes(gzip.compress(data))
        size = (tmp_path / f"{number}.tar.gz").stat().st_size
        files.append(ShardFile(Location("", str(tmp_path / f"{number}.tar.gz")), size, -1, unpacked=1000))
    monkeypatch.setattr(buffers, "UNPACKED_BYTES", 6000)
    for fewest, kept in ((3, 6), (9, 9), (20, 10)):
        monkeypatch.setattr(buffers, "UNPACKED_SHARDS", fewest)
        shards = MappedShards(files, verify=False, limit=10)
        assert [bytes(shards.buffer(number)) for number in range(12)] == [bytes([n]) * 1000 for n in range(12)]
        assert list(shards._in_use._open) == list(range(12 - kept, 12))


def to_generation(prefix: Path, generation: int) -> None:
    """Give the shards of a dataset without an index the names of a generation."""
    manifest = decode_manifest(prefix.with_suffix(".json").read_bytes(), place="")
    base = names.base_of(prefix.name, generation)
    shards = []
    for number, entry in enumerate(manifest.shards):
        shards.append(msgspec.structs.replace(entry, name=names.shard_name(base, number, ".tar")))
        prefix.with_name(entry.name).rename(prefix.with_name(shards[-1].name))
    text = encode_manifest(msgspec.structs.replace(manifest, shards=tuple(shards)))
    prefix.with_suffix(".json").write_bytes(text)


@pytest.mark.parametrize("pattern", ["cars", "cars-*.tar", "", "cars.json", "cars-g3-{000000..000004}.tar"])
def test_shards_of_a_later_generation_are_found_and_what_another_left_is_ignored(own: Path, pattern: str) -> None:
    left = shard(own, 0).read_bytes()
    to_generation(own, 3)
    for name in ("cars-000000.tar", "cars-g2-000000.tar", "cars-g4-000001.tar"):
        own.with_name(name).write_bytes(left)
    found = resolve(f"{own.parent}/{pattern}")
    assert found.manifest is not None
    assert found.numbers is None
    assert {names.file_generation(entry.name, "cars") for entry in found.manifest.shards} == {3}


def test_a_shard_of_a_replaced_generation_is_an_error_where_it_is_named(own: Path) -> None:
    left = shard(own, 0).read_bytes()
    to_generation(own, 2)
    shard(own, 0).write_bytes(left)
    for source in (str(shard(own, 0)), f"{own.parent}/cars-{{000000..000000}}.tar", [str(shard(own, 0))]):
        with pytest.raises(UsageError, match="of a dataset that was replaced"):
            resolve(source)
    with pytest.raises(NotFoundError, match="of a generation that was replaced"):
        resolve(f"{own.parent}/cars-00*.tar")


@pytest.mark.parametrize("pattern", ["cars", "cars-*.tar", "", "cars-{000000..000004}.tar"])
@pytest.mark.parametrize("sign", [*names.signs("cars"), f"{names.work_name('cars')}/cars.json"])
def test_shards_whose_manifest_is_still_to_come_are_not_read(own: Path, pattern: str, sign: str) -> None:
    own.with_suffix(".json").unlink()
    (own.parent / sign).parent.mkdir(exist_ok=True)
    (own.parent / sign).write_bytes(b"")
    for how in (f"{own.parent}/{pattern}", f"slow+file://{own.parent}/{pattern or 'cars'}"):
        if how.startswith("slow") and sign not in names.signs("cars"):
            continue  # the work folder of a run on this machine is beside files only
        with pytest.raises(NotFoundError, match="still to come"):
            list(shardkit.dataset(how))


def test_a_work_folder_in_which_nothing_is_says_nothing(own: Path) -> None:
    own.with_suffix(".json").unlink()
    own.with_name(names.work_name("cars")).mkdir()
    own.with_name(names.work_name("cars")).joinpath(names.LOCK).write_bytes(b"")
    assert len(resolve(f"{own.parent}/cars-*.tar").shards) == 5


def test_a_file_that_is_gone_is_told_from_one_of_a_dataset_that_was_replaced(own: Path) -> None:
    place = Location("", str(shard(own, 0)))
    assert "is missing" in missing_file(place).fact
    to_generation(own, 2)
    assert "was replaced by another one since it was opened" in missing_file(place).fact


def test_the_manifest_of_a_single_shard_without_a_number_is_found(own: Path) -> None:
    lone = own.with_name("lone.tar")
    shard(own, 0).rename(lone)
    for path in own.parent.glob("cars*"):
        path.unlink()
    lone.with_suffix(".json").write_text('{"images": []}')  # of somebody else
    assert len(resolve(str(lone)).shards) == 1
    lone.with_suffix(".json").unlink()
    manifest = shardkit.index_shards(str(lone))
    for source in (str(lone), f"{own.parent}/lo*.tar", str(own.parent), str(own.with_name("lone"))):
        assert len(shardkit.dataset(source)) == manifest.samples


@pytest.fixture
def gaps(own: Path) -> Path:
    """The same without its shards 1 and 3, as where these had no sample."""
    for number in (1, 3):
        shard(own, number).unlink()
    shardkit.index_shards(own, overwrite=True)
    return own


@pytest.mark.parametrize("scheme", ["", "slow+file://"])
@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("{000000..000004}", "024"),
        ("{000000..000009}", "024"),
        ("{000001..000003}", "2"),
        ("{000004..000000}", "420"),
        ("0000{00..04}", "024"),
    ],
)
def test_a_range_runs_over_the_numbers_that_a_dataset_leaves_out(
    gaps: Path, scheme: str, text: str, numbers: str
) -> None:
    source = f"{scheme}{gaps}-{text}.tar"
    for given in (source, [source]):
        found = resolve(given, Remote(None))
        assert found.manifest is not None
        chosen = range(3) if found.numbers is None else found.numbers
        assert [found.manifest.shards[n].name for n in chosen] == [f"cars-00000{number}.tar" for number in numbers]


def test_a_shard_of_a_range_that_the_manifest_names_must_be_there(gaps: Path) -> None:
    shard(gaps, 2).unlink()
    with pytest.raises(NotFoundError, match=r"cars-000002\.tar: the manifest names this shard, but it is missing"):
        resolve(f"{gaps}-{{000000..000004}}.tar")


def test_a_range_over_shards_without_a_manifest_leaves_out_none(gaps: Path) -> None:
    gaps.with_suffix(".json").unlink()
    with pytest.raises(NotFoundError, match=r"cars-000001\.tar: there is no such shard"):
        resolve(f"{gaps}-{{000000..000004}}.tar")


def test_a_file_in_a_range_that_the_manifest_does_not_know_is_refused(gaps: Path) -> None:
    shard(gaps, 3).write_bytes(shard(gaps, 2).read_bytes())
    with pytest.raises(UsageError, match="this shard is not in the manifest"):
        resolve(f"{gaps}-{{000000..000004}}.tar")
