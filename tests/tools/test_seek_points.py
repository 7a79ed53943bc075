"""Seek points from packing to reading: the same shards, the same batches, and kept by whatever rewrites the index."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import shardkit
from shardkit import Images
from shardkit.checksums import crc32c
from shardkit.cli.main import run
from shardkit.errors import UsageError
from shardkit.images import fused
from shardkit.reading.blocks.catalog import IndexCatalog
from shardkit.shards import seek
from shardkit.shards.index import SEEK
from shardkit.shards.index_file import IndexFile
from shardkit.shards.manifest import Manifest, decode_manifest
from shardkit.shards.seek import seek_points

needs_fused = pytest.mark.skipif(not fused.available(), reason="shardkit was built without its JPEG decoder")

SIDE, PER_CLASS, PER_SHARD = 240, 6, 5


def test_info_says_whether_there_are_seek_points(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, wanted in (("with", True), ("without", False)):
        shardkit.pack(tree, tmp_path / name, images=Images(seek_points=wanted), workers=1)
        assert run(["info", str(tmp_path / name)]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  seek points")]
        assert line.split()[-1] == ("yes" if wanted else "no")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of 2 classes: JPEGs, and a PNG and a progressive one, which have no points."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in ("blue", "red"):
        (root / label).mkdir()
        for number in range(PER_CLASS):
            small = Image.fromarray(rng.integers(0, 256, (SIDE // 3, SIDE // 3, 3), dtype=np.uint8))
            small.resize((SIDE, SIDE)).save(root / label / f"{number}.jpg", quality=90, progressive=number == 0)
    Image.new("RGB", (SIDE, SIDE)).save(root / "red" / "plain.png")
    return root


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    """The prefix of the packed tree, with seek points."""
    shardkit.pack(tree, tmp_path / "train", images=Images(seek_points=True), max_count=PER_SHARD, workers=1)
    return tmp_path / "train"


def manifest_of(prefix: Path) -> Manifest:
    return decode_manifest(Path(f"{prefix}.json").read_bytes(), place=str(prefix))


def points_in(prefix: Path) -> dict[str, bytes | None]:
    """Key -> seek points, of all index files."""
    found: dict[str, bytes | None] = {}
    for entry in manifest_of(prefix).index:
        table = pq.read_table(prefix.parent / entry.name)
        found |= dict(zip(table["key"].to_pylist(), table[SEEK].to_pylist(), strict=True))
    return found


def expected(prefix: Path) -> dict[str, bytes | None]:
    """Key -> the seek points of the image as it is stored."""
    samples = shardkit.dataset(prefix)
    images = {sample["__key__"]: sample.get("jpg", sample.get("png")) for sample in samples}
    return {key: seek_points(data, crc32c(data)) or None for key, data in images.items()}


def batches(source: Any, *, crop: str = "random", **options: Any) -> list[np.ndarray]:
    read = shardkit.dataset(source, shuffle=8, seed=1, **options)
    return [images.copy() for images, _ in read.decode(size=64, crop=crop, flip=True).batch(4)]  # type: ignore[arg-type]


@needs_fused
@pytest.mark.parametrize("form", ["tar", "tfrecord"])
def test_packing_writes_the_same_shards_and_the_points_of_each_image(tree: Path, tmp_path: Path, form: Any) -> None:
    plain = shardkit.pack(tree, tmp_path / "a" / "train", format=form, max_count=PER_SHARD, workers=1)
    asked = Images(seek_points=True)
    with_points = shardkit.pack(
        tree, tmp_path / "b" / "train", format=form, max_count=PER_SHARD, workers=1, images=asked
    )
    assert with_points.manifest.shards == plain.manifest.shards
    assert with_points.manifest.seek_points
    assert not plain.manifest.seek_points
    found = points_in(tmp_path / "b" / "train")
    assert found == expected(tmp_path / "b" / "train")
    assert sum(points is not None for points in found.values()) == 2 * (PER_CLASS - 1)
    assert SEEK not in pq.read_schema(tmp_path / "a" / "train.parquet").names


@needs_fused
@pytest.mark.parametrize("crop", ["random", "center"])
def test_batches_are_the_same_with_and_without_points(tree: Path, packed: Path, tmp_path: Path, crop: str) -> None:
    shardkit.pack(tree, tmp_path / "plain" / "train", max_count=PER_SHARD, workers=1)
    with_points, plain = batches(packed, crop=crop), batches(tmp_path / "plain" / "train", crop=crop)
    np.testing.assert_array_equal(np.concatenate(with_points), np.concatenate(plain))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The seek points that the C decoder is given."""
    given: list[bytes] = []
    decode = fused.decode_batch

    def spy(settings: Any, datas: Any, out: Any, draws: Any, points: Any = None) -> Any:
        given.extend(each for each in points or () if each)
        return decode(settings, datas, out, draws, points)

    monkeypatch.setattr(fused, "decode_batch", spy)
    return given


@needs_fused
def test_points_are_read_only_for_crops(packed: Path, used: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IndexCatalog, "seek_points", lambda *_: pytest.fail("the column was read"))
    list(shardkit.dataset(packed))
    list(shardkit.dataset(packed).decode(size=32).batch(4))
    assert used == []


@needs_fused
def test_each_way_of_decoding_uses_the_points(packed: Path, used: list[bytes]) -> None:
    wanted = sorted(points for points in points_in(packed).values() if points)
    read = shardkit.dataset(packed).decode(size=32, crop="random")
    options: dict[str, Any] = {"size": 32, "crop": "random"}
    turned = shardkit.Augment(rotation_range=10)
    ways: tuple[Callable[[], Any], ...] = (
        lambda: list(read.batch(4)),
        lambda: list(read),
        lambda: list(shardkit.dataset(packed).decode(**options, dtype="float32", layout="chw").batch(4)),
        lambda: list(shardkit.dataset(packed).decode(**options, augment=turned).batch(4)),
        lambda: list(shardkit.mix([shardkit.dataset(packed)], seed=0).decode(**options).batch(4)),
    )
    for way in ways:
        used.clear()
        way()
        assert sorted(used) == wanted


def changed(prefix: Path, change: Callable[[list[bytes | None]], pa.Array], **options: Any) -> None:
    """The index with other points, of a dataset whose manifest says that it is right."""
    path, manifest = Path(f"{prefix}.parquet"), Path(f"{prefix}.json")
    table = pq.read_table(path)
    table = table.set_column(table.schema.get_field_index(SEEK), SEEK, change(table[SEEK].to_pylist()))
    options = {"use_dictionary": ["shard"], **options}
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True, **options) as writer:
        first = 0
        for entry in manifest_of(prefix).shards:
            writer.write_table(table.slice(first, entry.samples), row_group_size=entry.samples)
            first += entry.samples
    data = path.read_bytes()
    old = manifest_of(prefix).index[0]
    text = manifest.read_text().replace(old.crc32c, f"{crc32c(data):08x}")
    manifest.write_text(text.replace(f'"bytes": {old.bytes}', f'"bytes": {len(data)}'))


CHANGES: dict[str, tuple[Callable[[list[bytes | None]], pa.Array], dict[str, Any]]] = {
    "of other images": (lambda found: pa.array([*found[1:], found[0]], pa.binary()), {}),
    "of another type": (lambda found: pa.array([0 for _ in found]), {}),
    "encoded in another way": (lambda found: pa.array(found, pa.binary()), {"use_dictionary": ["shard", SEEK]}),
    "all missing": (lambda found: pa.array([None for _ in found], pa.binary()), {}),
}


@needs_fused
@pytest.mark.parametrize("change", CHANGES)
def test_points_that_are_not_the_image_s_own_are_not_used(packed: Path, used: list[bytes], change: str) -> None:
    right = batches(packed)
    assert used
    used.clear()
    how, options = CHANGES[change]
    changed(packed, how, **options)
    np.testing.assert_array_equal(np.concatenate(batches(packed)), np.concatenate(right))
    assert used == []


@needs_fused
def test_points_are_not_used_where_images_are_not_checked(packed: Path, used: list[bytes]) -> None:
    batches(packed, verify=False)
    assert used == []


@needs_fused
def test_more_bytes_of_points_than_images_can_have_are_refused(packed: Path) -> None:
    changed(packed, lambda found: pa.array([bytes(seek.MOST_BYTES * 2)] * len(found), pa.binary()))
    with pytest.raises(shardkit.ManifestError, match=r"column 'seek' has \d+ bytes for [45] samples"):
        batches(packed)


@needs_fused
def test_indexing_finds_the_same_points_and_drops_them_unless_asked(packed: Path) -> None:
    found = points_in(packed)
    assert not shardkit.index_shards(packed, overwrite=True).seek_points
    assert SEEK not in pq.read_schema(packed.parent / manifest_of(packed).index[0].name).names
    assert shardkit.index_shards(packed, overwrite=True, seek_points=True).seek_points
    assert {key.rpartition("/")[2]: points for key, points in points_in(packed).items() if points} == {
        key.rpartition("/")[2]: points for key, points in found.items() if points
    }


def converted(prefix: Path, out: Path) -> Path:
    shardkit.convert(prefix, out / "train", format="tfrecord", workers=1)
    return out / "train"


def cut_again(prefix: Path, out: Path) -> Path:
    shardkit.convert(prefix, out / "train", max_count=3, workers=1)
    return out / "train"


def repaired(prefix: Path, out: Path) -> Path:
    shardkit.repair(prefix, out / "train", workers=1)
    return out / "train"


def uploaded(prefix: Path, out: Path) -> Path:
    shardkit.upload(prefix, out / "train")
    return out / "train"


def renamed(prefix: Path, out: Path) -> Path:
    """Uploaded over another dataset, so that shards and index get the names of the next generation."""
    shardkit.convert(prefix, out / "train", max_count=4, workers=1)
    shardkit.upload(prefix, out / "train", overwrite=True)
    return out / "train"


@needs_fused
@pytest.mark.parametrize("way", [converted, cut_again, repaired, uploaded, renamed], ids=lambda way: way.__name__)
def test_points_stay_when_a_dataset_is_rewritten(
    packed: Path, tmp_path: Path, way: Callable[[Path, Path], Path]
) -> None:
    (tmp_path / "out").mkdir()
    new = way(packed, tmp_path / "out")
    assert manifest_of(new).seek_points
    assert points_in(new) == points_in(packed)
    assert shardkit.verify(new).findings == ()


@needs_fused
def test_appended_images_get_points_too(tree: Path, packed: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    for path in tree.rglob("*.*"):
        (more / path.relative_to(tree).parent).mkdir(parents=True, exist_ok=True)
        (more / path.relative_to(tree)).write_bytes(path.read_bytes())
    (more / "red" / "new.jpg").write_bytes((tree / "blue" / "3.jpg").read_bytes())
    shardkit.pack(more, packed, images=Images(seek_points=True), max_count=PER_SHARD, workers=1, append=True)
    assert points_in(packed)["red/new"] == points_in(packed)["blue/3"]
    assert batches(packed)


def test_without_the_c_decoder_asking_is_an_error_and_rewriting_drops_the_points(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if fused.available():
        shardkit.pack(tree, tmp_path / "train", images=Images(seek_points=True), workers=1)
    monkeypatch.setattr(seek, "load", lambda name: (None, "no compiler"))
    with pytest.raises(UsageError, match="seek_points"):
        shardkit.pack(tree, tmp_path / "other", images=Images(seek_points=True), workers=1)
    if fused.available():
        manifest = shardkit.convert(tmp_path / "train", tmp_path / "new", format="tfrecord", workers=1)
        assert not manifest.seek_points
        assert "no seek points" in caplog.text
    with pytest.raises(UsageError, match="seek_points"):
        shardkit.index_shards(tmp_path / "train", seek_points=True, overwrite=True)


@needs_fused
def test_the_points_of_a_packed_index_are_as_a_file_s(packed: Path) -> None:
    manifest = manifest_of(packed)
    data = Path(f"{packed}.parquet").read_bytes()
    file = IndexFile(io.BytesIO(data), manifest.shards, place="here")
    assert file.has_seek_points
    assert SEEK not in file.schema.names
    assert [table.column_names for table in file.tables()] == [file.schema.names]
    assert [points for group in range(len(manifest.shards)) for points in file.seek_points(group).to_pylist()] == list(  # type: ignore[union-attr]
        points_in(packed).values()
    )
