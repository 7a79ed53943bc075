"""The page over a million rows, and what it asks of a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools.viewer.browser import Browser
from tools.viewer.screen import COUNT, DRAWN, KEYS, PYTHON, open_page, part
from tools.viewer.site import Site, served

from shardkit import ShardWriter
from shardkit.checksums import crc32c
from shardkit.shards.index import ShardRows, write_index
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry, decode_manifest, encode_manifest
from shardkit.tools.viewer.page import WEB

ROWS, SHARDS = 1_000_000, 4
LIMIT_BYTES = 1_000_000


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory, draw_image: Any) -> Path:
    """A dataset of a million rows, which point to the 64 images of one shard that has several names."""
    folder = tmp_path_factory.mktemp("million")
    with ShardWriter(folder / "one", classes=["a"]) as writer:
        for number in range(64):
            writer.write({"__key__": f"{number}", "jpg": draw_image(number), "cls": 0})
    import pyarrow.parquet as pq

    one, entry = pq.read_table(folder / "one.parquet"), decode_manifest((folder / "one.json").read_bytes(), place="")
    with (folder / entry.shards[0].name).open("ab") as file:
        file.truncate(64 << 20)  # so that it could hold the rows
    rng, shards, labels = np.random.default_rng(0), [], []
    parts = []
    for number in range(SHARDS):
        count, name = ROWS // SHARDS, f"train-{number:06}.tar"
        os.link(folder / entry.shards[0].name, folder / name)
        numbers = {
            column: one[column].to_numpy()[rng.integers(0, 64, count)] for column in ("offset", "size", "crc32c")
        }
        chosen = np.arange(count) % 64
        numbers |= {column: one[column].to_numpy()[chosen] for column in ("image_offset", "image_size")}
        numbers |= {
            "label": rng.integers(0, 10, count),
            "width": np.arange(count) % 997 + 1,
            "height": np.full(count, 7),
        }
        keys = [f"{number}/{row:06}" for row in range(count)]
        parts.append(ShardRows(name, keys, keys, numbers))
        shards.append(ShardEntry(name, count, 64 << 20, "00000000"))
        labels.append(np.bincount(numbers["label"], minlength=10))
    with (folder / "train.parquet").open("wb") as sink:
        write_index(sink, parts)
    data = (folder / "train.parquet").read_bytes()
    classes = tuple(ClassEntry(f"class {n}", int(count)) for n, count in enumerate(np.sum(labels, axis=0)))
    index = (IndexEntry("train.parquet", SHARDS, len(data), f"{crc32c(data):08x}"),)
    manifest = Manifest(samples=ROWS, bytes=SHARDS << 26, shards=tuple(shards), classes=classes, index=index, plan="0")
    (folder / "train.json").write_bytes(encode_manifest(manifest))
    return folder


@pytest.fixture
def site(million: Path) -> Iterator[Site]:
    with served(million) as found:
        yield found


def last_cell(browser: Browser, key: str) -> None:
    browser.wait(f"{KEYS}.includes({key!r})")


def test_first_pictures_of_a_million_rows_take_less_than_a_megabyte(site: Site, browser: Browser) -> None:
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{DRAWN} >= 24")
    assert browser.run(COUNT) == "1,000,000 samples"
    assert site.bytes < LIMIT_BYTES
    assert len(site.log) < 20


def test_a_million_rows_are_reached_with_few_elements(site: Site, browser: Browser) -> None:
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{DRAWN} >= 24")
    grid = part("grid")
    browser.run(f"{grid}.focus()")
    browser.key("End", control=True)
    last_cell(browser, "3/249999")
    browser.key("Home", control=True)
    last_cell(browser, "0/000000")
    browser.run(f"{grid}.scrollTop = {grid}.scrollHeight")
    last_cell(browser, "3/249999")
    browser.run(f"{grid}.scrollTop = {grid}.scrollHeight / 2")
    browser.wait(f"{KEYS}.some((key) => /^[12]\\//.test(key))")
    browser.wait(f"{DRAWN} >= 24")
    seen = browser.run("[...document.querySelectorAll('.cell')].map((each) => Number(each.dataset.place))")
    assert seen == list(range(seen[0], seen[-1] + 1))
    assert 400_000 < seen[0] < 600_000
    for _ in range(30):  # small steps follow each other without a gap, wherever the element's end is
        before = browser.run("Number(document.querySelector('.cell').dataset.place)")
        browser.run(f"{grid}.scrollBy(0, 300)")
        browser.run("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        now = browser.run("Number(document.querySelector('.cell').dataset.place)")
        assert 0 <= now - before <= 24
    assert browser.run("document.querySelectorAll('.cell').length") < 100
    assert browser.errors == []


def test_filters_of_a_million_rows_count_them_all(million: Path, site: Site, browser: Browser) -> None:
    counts = decode_manifest((million / "train.json").read_bytes(), place="").classes
    open_page(browser, site, million / "train", "#class=class 3")
    browser.wait(f"{COUNT} === '{counts[3].count:,} of 1,000,000 samples'")
    wide = SHARDS * int((np.arange(ROWS // SHARDS) % 997 + 1 >= 997).sum())
    browser.run("location.hash = 'range.width=997..'")
    browser.wait(f"{COUNT} === '{wide:,} of 1,000,000 samples'")
    browser.run("location.hash = 'text.key=/123'")
    browser.wait(f"{COUNT} === '{SHARDS * 1000:,} of 1,000,000 samples'")
    assert browser.run(PYTHON) == 'ds.where(pc.match_substring(pc.field("key"), "/123"))'
    assert not browser.run(f"{part('grid')}.hasAttribute('aria-busy')")
    read = [name for name, *_ in site.log].count("train.parquet")
    browser.run("location.hash = 'range.width=..0'")  # the statistics say that there is none
    browser.wait(f"{COUNT} === '0 of 1,000,000 samples'")
    assert [name for name, *_ in site.log].count("train.parquet") == read


def test_at_most_six_requests_are_on_their_way(site: Site, browser: Browser) -> None:
    slots = int((WEB / "net.js").read_text("utf-8").partition("const SLOTS = ")[2].partition(";")[0])
    site.wait_seconds = 0.05
    open_page(browser, site, site.folder / "train", "#class=class 3&sort=-width")
    browser.wait(f"{COUNT}.includes('of') && {DRAWN} >= 24")
    assert 1 < site.most <= slots


def test_what_is_scrolled_past_is_not_read(site: Site, browser: Browser) -> None:
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{DRAWN} >= 24")
    browser.run(f"{part('grid')}.focus()")
    browser.key("End", control=True)
    last_cell(browser, "3/249999")
    browser.wait(f"{DRAWN} >= 24")
    site.wait_seconds, before = 0.1, len(site.log)
    browser.run(
        f"(async () => {{ for (let n = 0; n < 40; n++) {{ {part('grid')}.scrollBy(0, -800);"
        "await new Promise((resolve) => setTimeout(resolve, 10)); } })()"
    )
    browser.wait(f"!{KEYS}.includes('3/249999') && {DRAWN} >= 24")
    assert len(site.log) - before < 40
