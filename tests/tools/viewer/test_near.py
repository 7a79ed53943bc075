"""The filter for near-duplicates: groups of images with similar hashes, from the quality columns of the index."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images.photos import copies, jpeg, photo
from tools.viewer.browser import Browser
from tools.viewer.screen import COUNT, DRAWN, PYTHON, SHOWN, copied, keys_of, open_page, part
from tools.viewer.site import Site, served

from shardkit import ShardWriter, dataset, pack
from shardkit.checksums import crc32c
from shardkit.images.quality.duplicates import BRIGHTNESS_APART, PLAIN
from shardkit.shards.index import QUALITY_TYPES, ShardRows, write_index
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry, decode_manifest, encode_manifest
from shardkit.tools.viewer.page import WEB

NOTE = f"{part('near-note')}.textContent"
SELECT = part("near-bits")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/ with five pictures, changed copies of the first three, and equal files."""
    root = tmp_path_factory.mktemp("images")
    for number in range(5):
        files = {"plain": jpeg(photo(number))} | (copies(photo(number)) if number < 3 else {})
        for kind, data in files.items():
            split = "test" if kind in ("coarse", "half") else "train"
            path = root / split / "ab"[number % 2] / f"{kind}{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    (root / "train" / "b" / "again4.jpg").write_bytes(jpeg(photo(4)))
    return root


def choose(browser: Browser, bits: str) -> None:
    browser.run(f"{SELECT}.value = {json.dumps(bits)}; {SELECT}.dispatchEvent(new Event('change', {{bubbles: true}}))")


def groups_of(browser: Browser) -> list[list[str]]:
    """The keys of each group, as the cells tell."""
    found: dict[int, list[str]] = {}
    labels = browser.wait(f"{SHOWN}.length && {SHOWN}.every(Boolean) && {SHOWN}")
    for label, key in zip(labels, keys_of(browser), strict=True):
        found.setdefault(int(label.rpartition(". Group ")[2].split(" ")[0]), []).append(key)
    return [found[number] for number in sorted(found)]


def brute(prefixes: list[Path], bits: int) -> list[set[str]]:
    """The groups by comparing all pairs."""
    import pyarrow.parquet as pq

    rows = [row for prefix in prefixes for row in pq.read_table(prefix.with_suffix(".parquet")).to_pylist()]
    rows = [row for row in rows if row["entropy"] is not None and row["entropy"] >= PLAIN]
    sets = [{row["key"]} for row in rows]
    for at, one in enumerate(rows):
        for to, other in enumerate(rows[:at]):
            apart = (one["phash"] ^ other["phash"]).bit_count()
            if apart <= bits and abs(one["brightness"] - other["brightness"]) <= BRIGHTNESS_APART:
                joined = sets[at] | sets[to]
                sets = [joined if each & joined else each for each in sets]
    return [each for n, each in enumerate(sets) if len(each) > 1 and each not in sets[:n]]


@pytest.mark.parametrize("bits", [0, 3, 7])
def test_groups_of_similar_hashes_are_shown_side_by_side(bits: int, images: Path, site: Site, browser: Browser) -> None:
    pack(images, site.folder, workers=1, quality_columns=True, max_count=4)
    names = [site.folder / "test", site.folder / "train"]
    wanted = brute(names, bits)
    open_page(browser, site, site.folder)
    choose(browser, str(bits))
    total = sum(map(len, wanted))
    told = f"{total} of 18 samples, in {len(wanted)} group{'' if len(wanted) == 1 else 's'}"
    browser.wait(f"{COUNT} === '{told}' && {DRAWN} === {total}")
    found = groups_of(browser)
    assert sorted(map(sorted, found)) == sorted(map(sorted, wanted))
    assert any({"b/again4", "a/plain4"} <= set(group) for group in found)
    assert browser.run("location.hash") == f"#near={bits}"
    assert browser.errors == []


def test_the_copies_of_a_group_are_selected_without_its_first_image(images: Path, site: Site, browser: Browser) -> None:
    pack(images / "train", site.folder / "train", workers=1, quality_columns=True)
    open_page(browser, site, site.folder / "train", "#near=7&sort=-image_size")
    browser.wait(f"{COUNT}.includes('group') && {DRAWN} >= 2")
    assert not browser.run(f"{part('select-copies')}.hidden")
    groups = groups_of(browser)
    browser.click("[data-part=select-copies]")
    count = sum(len(group) - 1 for group in groups)
    text = copied(browser, "copy-keys", f"{count} keys copied" if count > 1 else "1 key copied")
    assert sorted(text.split("\n")) == sorted(key for group in groups for key in group[1:])
    sizes = {
        key: len(sample["jpg"])
        for key, sample in zip(dataset(site.folder / "train").keys, dataset(site.folder / "train"), strict=True)
    }
    assert all(sizes[group[0]] == max(sizes[key] for key in group) for group in groups)
    assert browser.run(PYTHON) == "No expression selects near-duplicates: select them, and copy their keys."
    assert browser.run(f"{part('copy-where')}.disabled")
    browser.click("[data-part=reset]")
    browser.wait(f"{COUNT} === '12 samples' && {part('select-copies')}.hidden")


def test_other_filters_say_among_which_images_they_are_searched(images: Path, site: Site, browser: Browser) -> None:
    pack(images, site.folder, workers=1, quality_columns=True)
    open_page(browser, site, site.folder, "#near=7&split=test&class=a")
    wanted = [{key for key in group if key.startswith("a/")} for group in brute([site.folder / "test"], 7)]
    wanted = [group for group in wanted if len(group) > 1]
    browser.wait(f"{COUNT} === '{sum(map(len, wanted))} of 18 samples, in {len(wanted)} groups'")
    browser.run("location.hash = 'near=7&split=test&text.key=no such key'")
    browser.wait(f"{COUNT} === '0 of 18 samples, in 0 groups'")
    assert browser.run(f"{part('select-copies')}.disabled")


def test_an_index_without_hashes_is_told(tree: Path, images: Path, site: Site, browser: Browser) -> None:
    pack(tree, site.folder / "train", workers=1)
    open_page(browser, site, site.folder / "train", "#near=7")
    browser.wait(f"{COUNT} === '12 samples'")
    assert browser.run(f"{SELECT}.disabled")
    assert browser.run(NOTE).startswith("The index has no quality columns. shardkit index")
    pack(images / "test", site.folder / "test", workers=1, quality_columns=True)
    open_page(browser, site, site.folder, "#near=7")
    browser.wait(f"{COUNT}.includes('group')")
    assert browser.run(NOTE).startswith("Not in train: no quality columns there.")


ROWS, SHARDS = 200_000, 2


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, draw_image: Any) -> Path:
    """Many random hashes, of which 1,000 have a twin with 7 other bits; and as many that are all near each other."""
    folder = tmp_path_factory.mktemp("many")
    with ShardWriter(folder / "one", classes=["a"]) as writer:
        writer.write({"__key__": "0", "jpg": draw_image(1), "cls": 0})
    import pyarrow.parquet as pq

    one, entry = pq.read_table(folder / "one.parquet"), decode_manifest((folder / "one.json").read_bytes(), place="")
    with (folder / entry.shards[0].name).open("ab") as file:
        file.truncate(64 << 20)
    rng = np.random.default_rng(0)
    for stem in ("random", "crowded"):
        hashes = rng.integers(0, 1 << (64 if stem == "random" else 22), ROWS, dtype=np.uint64)
        for number in range(1000):
            flips = rng.choice(64, 7, replace=False).astype(np.uint64)
            hashes[ROWS - 1 - number] = hashes[number] ^ np.bitwise_or.reduce(np.uint64(1) << flips)
        quality = np.zeros(ROWS, QUALITY_TYPES)
        quality["phash"], quality["brightness"], quality["entropy"] = hashes, 0.5, 7
        parts, shards, count = [], [], ROWS // SHARDS
        for number in range(SHARDS):
            name = f"{stem}-{number:06}.tar"
            os.link(folder / entry.shards[0].name, folder / name)
            columns = ("offset", "size", "crc32c", "image_offset", "image_size", "label", "width", "height")
            numbers = {column: np.full(count, one[column].to_numpy()[0]) for column in columns}
            keys = [f"{number}/{row:06}" for row in range(count)]
            rows = slice(number * count, (number + 1) * count)
            parts.append(ShardRows(name, keys, keys, numbers, quality=quality[rows]))
            shards.append(ShardEntry(name, count, 64 << 20, "00000000"))
        with (folder / f"{stem}.parquet").open("wb") as sink:
            write_index(sink, parts, quality=True)
        data = (folder / f"{stem}.parquet").read_bytes()
        manifest = Manifest(
            samples=ROWS, bytes=SHARDS << 26, shards=tuple(shards), classes=(ClassEntry("a", ROWS),), plan="0",
            index=(IndexEntry(f"{stem}.parquet", SHARDS, len(data), f"{crc32c(data):08x}"),),
            options={"quality_columns": True},
        )  # fmt: skip
        (folder / f"{stem}.json").write_bytes(encode_manifest(manifest))
    return folder


def test_many_hashes_are_compared_and_the_page_goes_on_meanwhile(many: Path, browser: Browser) -> None:
    with served(many) as site:
        open_page(browser, site, many / "random")
        browser.run(
            "globalThis.seen = new Set();"
            f"new MutationObserver(() => seen.add({COUNT})).observe({part('count')}, {{childList: true}})"
        )
        browser.run("location.hash = 'near=7'")
        browser.wait(f"{COUNT} === '2,000 of {ROWS:,} samples, in 1,000 groups'")
        told = browser.run("[...seen].filter((text) => text.startsWith('Comparing hashes'))")
        assert len(told) > 1
        assert browser.run(f"{part('near-limit')}.hidden")
        assert browser.errors == []


def test_with_too_much_to_compare_the_page_says_how_far_it_looked(many: Path, browser: Browser) -> None:
    with served(many) as site:
        open_page(browser, site, many / "crowded")
        browser.run("location.hash = 'near=7'")
        browser.wait(f"{COUNT}.includes('group')")
        told = browser.run(f"{part('near-limit')}.textContent")
        assert not browser.run(f"{part('near-limit')}.hidden")
        assert told.startswith("There are too many rows to compare all hashes")


def test_the_page_has_the_rule_of_the_package() -> None:
    text = (WEB / "near.js").read_text("utf-8")
    assert f"const BRIGHTNESS_APART = {BRIGHTNESS_APART};" in text
    assert f"const PLAIN = {PLAIN:g};" in text
