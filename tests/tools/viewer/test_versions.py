"""Datasets that are not as packed: corrected ones, merged ones, and indexes of shards elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from tools.viewer.browser import Browser
from tools.viewer.screen import COUNT, DRAWN, PYTHON, SHOWN, keys_of, open_page, part
from tools.viewer.site import Site, served

import shardkit
from shardkit import UsageError, dataset, view_page
from shardkit.tools.viewer.serve import PageServer

CODE = f"{part('notice')}.hidden ? '' : {part('notice')}.dataset.code"
TOLD = f"{part('notice')}.innerText"


@pytest.fixture
def corrected(draw_tree: Any, tmp_path: Path, site: Site) -> Path:
    """200 samples in shards of 25; of some shards none, some, and all samples are corrected, in several steps."""
    tree = draw_tree(tmp_path / "many", {"ant": 80, "bee": 70, "cat": 50}, size=(16, 12))
    shardkit.pack(tree, site.folder / "train", workers=1, max_count=25, format="tar")
    prefix = site.folder / "train"
    keys = list(dataset(prefix).keys)
    shardkit.relabel(prefix, dict.fromkeys(keys[3:20], "cat") | {keys[60]: "new"}, new_classes=True)
    shardkit.delete(prefix, [*keys[10:15], *keys[50:75], keys[199]])  # one whole shard
    shardkit.relabel(prefix, {keys[100]: "bee"})
    return prefix


def labels_of(prefix: Path | str) -> list[tuple[str, str]]:
    """(class, key) of each sample of a dataset, as it reads."""
    found = dataset(prefix)
    return [(found.classes[label], key) for label, key in zip(found.labels.tolist(), found.keys, strict=True)]


def everything(browser: Browser) -> list[tuple[str, str]]:
    """(class, key) of all rows of the page, in order, in a window that is tall enough for them."""
    browser.size(1280, 9000)
    total = int(browser.run(COUNT).split(" ")[0].replace(",", ""))
    labels = browser.wait(f"{SHOWN}.length === {total} && {SHOWN}.every(Boolean) && {SHOWN}")
    return [tuple(label.split(", ")[:2]) for label in labels]


def test_a_corrected_dataset_is_shown_as_corrected(corrected: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, corrected)
    browser.wait(f"{DRAWN} >= 10")
    wanted = labels_of(corrected)
    assert browser.run(COUNT) == f"{len(wanted)} samples"
    assert everything(browser) == wanted
    counts = browser.run("[...document.querySelectorAll('.classes label')].map((line) => line.innerText.split('\\n'))")
    assert counts == [[name, str(count)] for name, count in dataset(corrected).class_counts.items()]
    assert browser.errors == []


def test_filters_of_a_corrected_dataset_follow_the_new_labels(corrected: Path, site: Site, browser: Browser) -> None:
    for name in ("cat", "bee"):
        wanted = [key for label, key in labels_of(corrected) if label == name]
        open_page(browser, site, corrected, f"#class={name}")
        browser.wait(f"{COUNT} === '{len(wanted)} of {len(labels_of(corrected))} samples'")
        assert [key for _, key in everything(browser)] == wanted
        found = eval(browser.run(PYTHON), {"ds": dataset(corrected), "pc": pc})
        assert list(found.keys) == wanted
    key = labels_of(corrected)[70][1]
    browser.run(f"location.hash = 'text.key={key}'")
    browser.wait(f"{COUNT}.startsWith('1 of')")
    assert keys_of(browser) == [key]


def test_the_picture_of_a_corrected_sample_is_its_own(corrected: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, corrected, "#text.key=bee/005")
    browser.wait(f"{DRAWN} >= 5")
    browser.click(".cell[data-place='3']")
    rows = "[...document.querySelectorAll('.facts tr')].map((row) => [...row.children].map((cell) => cell.textContent))"
    browser.wait(f"{rows}.at(-1)?.[1].endsWith('(checked)')")


def test_an_older_version_is_shown_as_it_was(corrected: Path, site: Site, browser: Browser) -> None:
    for number in (1, 2):
        wanted = labels_of(f"{corrected}@{number}")
        page = view_page(f"{corrected}@{number}", site.folder / "older.html")
        browser.open(f"{site.url}/{Path(page.path).name}")
        browser.wait(f"{COUNT} === '{len(wanted)} samples'")
        assert everything(browser) == wanted


def test_added_fields_are_named_as_not_shown(corrected: Path, site: Site, browser: Browser) -> None:
    keys = list(dataset(corrected).keys)
    shardkit.add_fields(corrected, {"key": keys, "age": list(range(len(keys)))})
    open_page(browser, site, corrected)
    browser.wait(f"{part('missing')}.textContent === 'Columns that are not shown here: meta.age.'")
    assert everything(browser) == labels_of(corrected)


def test_all_samples_of_a_dataset_may_be_deleted(tree: Path, site: Site, browser: Browser) -> None:
    shardkit.pack(tree, site.folder / "train", workers=1)
    shardkit.delete(site.folder / "train", list(dataset(site.folder / "train").keys))
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{part('nothing')}.textContent === 'This dataset has no samples.'")
    assert browser.errors == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "it is not the one that the manifest names"),
        (lambda path: path.unlink(), "is not there (status 404)"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "has changed since the page was loaded"),
    ],
    ids=["damaged", "missing", "longer"],
)
def test_corrections_that_can_not_be_read_are_told(
    damage: Any, told: str, corrected: Path, site: Site, browser: Browser
) -> None:
    page = view_page(corrected)
    entry = json.loads(corrected.with_suffix(".json").read_text("utf-8"))["options"]["corrections"]["overlay"]
    damage(corrected.parent / entry["name"])
    browser.open(f"{site.url}/{Path(page.path).name}")
    browser.wait(CODE)
    assert told in browser.run(TOLD)
    assert browser.run(f"{SHOWN}.every((label) => !label)")  # no wrong label is shown


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows": 3}, "can't be read: it has "),
        ({"crc32c": "00000000"}, "it is not the one that the manifest names"),
    ],
    ids=["rows", "checksum"],
)
def test_corrections_of_another_manifest_are_told(
    change: dict[str, Any], told: str, corrected: Path, site: Site, browser: Browser
) -> None:
    page = view_page(corrected)
    manifest = json.loads(corrected.with_suffix(".json").read_text("utf-8"))
    manifest["options"]["corrections"]["overlay"] |= change
    corrected.with_suffix(".json").write_text(json.dumps(manifest), "utf-8")
    browser.open(f"{site.url}/{Path(page.path).name}")
    assert browser.wait(CODE) == "overlay"
    assert told in browser.run(TOLD)


def test_a_merged_dataset_shows_the_shards_of_its_members(
    tree: Path, draw_tree: Any, tmp_path: Path, site: Site, browser: Browser
) -> None:
    shardkit.pack(tree, site.folder / "one", workers=1)
    shardkit.pack(draw_tree(tmp_path / "two", {"blue/more": 3, "red/more": 2}, seed=50), site.folder / "two", workers=1)
    shardkit.merge([site.folder / "one", site.folder / "two"], site.folder / "both")
    open_page(browser, site, site.folder / "both")
    browser.wait(f"{DRAWN} === 17")
    assert everything(browser) == labels_of(site.folder / "both")


def test_shards_elsewhere_are_read_from_where_they_are(
    tree: Path, tmp_path: Path, site: Site, browser: Browser
) -> None:
    shardkit.pack(tree, site.folder / "deep" / "er" / "train", workers=1, max_count=5)
    for path in (site.folder / "deep" / "er").glob("train*.[jp]*"):
        path.unlink()
    (site.folder / "own").mkdir()
    shardkit.index_shards(site.folder / "deep" / "er" / "train-*.tar", out=site.folder / "own" / "train")
    page = view_page(site.folder / "own" / "train")
    browser.open(f"{site.url}/own/train.html")
    browser.wait(f"{DRAWN} === 12")
    assert len(keys_of(browser)) == 12
    assert browser.errors == []
    with PageServer(page) as server:
        assert set(server.files) == {
            "/own/train.html", "/own/train.json", "/own/train.parquet",
            *(f"/deep/er/train-00000{n}.tar" for n in range(3)),
        }  # fmt: skip


def test_shards_of_a_web_server_are_read_from_there(tree: Path, tmp_path: Path, site: Site, browser: Browser) -> None:
    pytest.importorskip("obstore")
    shardkit.pack(tree, site.folder / "train", workers=1)
    shutil.rmtree(tmp_path / "own", ignore_errors=True)
    (tmp_path / "own").mkdir()
    shardkit.index_shards(f"{site.url}/train-000000.tar", out=tmp_path / "own" / "train")
    view_page(tmp_path / "own" / "train")
    site.cors = True
    with served(tmp_path / "own") as near:
        browser.open(f"{near.url}/train.html")
        browser.wait(f"{DRAWN} === 12")
        assert browser.errors == []
        site.cors = False
        browser.open(f"{near.url}/train.html")
        assert browser.wait(CODE) == "cors"


def test_shards_where_no_page_finds_them_are_refused(tree: Path, tmp_path: Path, no_objects: None) -> None:
    shardkit.pack(tree, tmp_path / "shards" / "train", workers=1)
    shardkit.upload(tmp_path / "shards" / "train", "memory://bucket/data/train")
    (tmp_path / "own").mkdir()
    shardkit.index_shards("memory://bucket/data/train-000000.tar", out=tmp_path / "own" / "train")
    with pytest.raises(UsageError, match=r"its shards are in memory://bucket/data, where no browser finds them"):
        view_page(tmp_path / "own" / "train")
