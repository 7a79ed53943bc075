"""What the page says when something is wrong: the server, the files, the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tools.viewer.browser import Browser
from tools.viewer.screen import COUNT, DRAWN, open_page, part
from tools.viewer.site import Site, served

from shardkit import ShardWriter, dataset, pack, view_page
from shardkit.shards.manifest import CORRECTED_VERSION, Manifest, decode_manifest, encode_manifest

CODE = f"{part('notice')}.hidden ? '' : {part('notice')}.dataset.code"
TOLD = f"{part('notice')}.innerText"
NOTES = "[...document.querySelectorAll('.cell .note')].map((each) => each.textContent)"


@pytest.fixture
def packed(tree: Path, site: Site) -> Path:
    """A dataset of 12 samples on the site, with its page."""
    pack(tree, site.folder / "train", workers=1)
    view_page(site.folder / "train")
    return site.folder


def manifest_of(folder: Path) -> Manifest:
    return decode_manifest((folder / "train.json").read_bytes(), place="train")


def test_a_server_without_ranges_is_told(packed: Path, site: Site, browser: Browser) -> None:
    site.ranges = False
    browser.open(f"{site.url}/train.html")
    assert browser.wait(CODE) == "ranges"
    assert "does not answer requests for parts of files" in browser.run(TOLD)
    assert "shardkit view --html --serve" in browser.run(TOLD)
    captions = "[...document.querySelectorAll('.caption')].map((each) => each.textContent)"
    browser.wait(f"{captions}.length === 12 && {captions}.every((text) => ['blue', 'red'].includes(text))")
    assert [name for name, *_ in site.log].count("train-000000.tar") <= 6


def test_a_server_that_other_pages_may_not_read_is_told(packed: Path, tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "pages").mkdir()
    with served(packed) as far, served(tmp_path / "pages") as near:
        for path in tmp_path.glob("pages/*"):
            path.unlink()
        page = Path(view_page(packed / "train", tmp_path / "pages" / "train.html").path)
        page.write_text(page.read_text("utf-8").replace("./../shards/train.json", f"{far.url}/train.json"), "utf-8")
        browser.open(f"{near.url}/train.html")
        assert browser.wait(CODE) == "cors"
        assert "CORS" in browser.run(TOLD)
        far.cors = True
        browser.open(f"{near.url}/train.html")
        browser.wait(f"{DRAWN} === 12")
        assert browser.errors == []


def test_a_page_that_is_opened_as_a_file_is_told(packed: Path, browser: Browser) -> None:
    browser.open((packed / "train.html").as_uri())
    assert browser.wait(CODE) == "file"
    assert "shardkit view --html --serve" in browser.run(TOLD)


@pytest.mark.parametrize("name", ["train.json", "train.parquet", "train-000000.tar"])
def test_a_file_that_is_missing_is_named(name: str, packed: Path, site: Site, browser: Browser) -> None:
    site.broken = [name]
    browser.open(f"{site.url}/train.html")
    assert browser.wait(CODE) == "missing"
    assert f"{name} is not there (status 404)" in browser.run(TOLD)


def test_after_the_trouble_is_over_the_images_are_read_again(packed: Path, site: Site, browser: Browser) -> None:
    site.broken = ["train-000000.tar"]
    browser.open(f"{site.url}/train.html")
    browser.wait(f"{NOTES}.length === 12")
    site.broken = []
    browser.click("[data-part=retry]")
    browser.wait(f"{DRAWN} === 12")
    assert browser.run(CODE) == ""


def test_a_server_that_does_not_answer_is_told_until_it_does(packed: Path, site: Site, browser: Browser) -> None:
    line = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    site.broken = ["train-000000.tar"]
    browser.open(f"{site.url}/train.html")
    browser.wait(f"{NOTES}.length === 12")
    site.broken = []
    browser.send("Network.emulateNetworkConditions", offline=True, **line)
    browser.click("[data-part=retry]")
    assert browser.wait(CODE) == "network"
    assert "the server does not answer" in browser.run(TOLD)
    browser.send("Network.emulateNetworkConditions", offline=False, **line)
    browser.click("[data-part=retry]")
    browser.wait(f"{DRAWN} === 12")


@pytest.mark.parametrize("name", ["train.parquet", "train-000000.tar"])
def test_a_file_of_another_size_than_the_manifest_says_is_told(
    name: str, packed: Path, site: Site, browser: Browser
) -> None:
    with (packed / name).open("ab") as file:
        file.write(bytes(512))
    browser.open(f"{site.url}/train.html")
    assert browser.wait(CODE) == "changed"
    assert f"{name} has changed" in browser.run(TOLD)


def test_a_manifest_that_the_page_can_not_read_is_told(packed: Path, site: Site, browser: Browser) -> None:
    found = json.loads((packed / "train.json").read_text("utf-8"))
    for values, told in (
        (
            {"version": CORRECTED_VERSION + 1},
            f"train has version {CORRECTED_VERSION + 1}, and this page reads versions up",
        ),
        ({"format": "other"}, "train.json is not a manifest"),
        ({"index": []}, "train has no index"),
    ):
        (packed / "train.json").write_text(json.dumps(found | values), "utf-8")
        browser.open(f"{site.url}/train.html")
        assert browser.wait(CODE) == "manifest"
        assert told in browser.run(TOLD)
    (packed / "train.json").write_text("<html>", "utf-8")
    browser.open(f"{site.url}/train.html")
    assert browser.wait(CODE) == "manifest"
    assert "train.json is not a manifest" in browser.run(TOLD)


def test_an_index_that_is_damaged_is_told(packed: Path, site: Site, browser: Browser) -> None:
    data = bytearray((packed / "train.parquet").read_bytes())
    data[-4:] = b"PAR9"
    (packed / "train.parquet").write_bytes(data)
    browser.open(f"{site.url}/train.html")
    assert browser.wait(CODE) == "index"
    assert "it is not a Parquet file" in browser.run(TOLD)


def test_images_that_can_not_be_shown_have_the_reason_in_their_place(
    site: Site, browser: Browser, draw_image: Any
) -> None:
    with ShardWriter(site.folder / "train", classes=["a"]) as writer:
        writer.write({"__key__": "good", "jpg": draw_image(1), "cls": 0})
        writer.write({"__key__": "tiff", "tif": draw_image(2, format="TIFF"), "cls": 0})
        writer.write({"__key__": "none", "txt": b"no image", "cls": 0})
    shard = site.folder / "train-000000.tar"
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{NOTES}.length === 2 && {DRAWN} === 1")
    assert browser.run(NOTES) == ["The browser can't decode this image.", "This sample has no image."]
    data = shard.read_bytes()
    shard.write_bytes(data.replace(draw_image(1), bytes(len(draw_image(1)))))
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{NOTES}.length === 3")
    labels = browser.run("[...document.querySelectorAll('.cell')].map((cell) => cell.getAttribute('aria-label'))")
    assert all(label.endswith((".", "image.")) for label in labels)


def test_an_image_that_has_changed_within_its_shard_is_told(
    packed: Path, site: Site, browser: Browser, draw_image: Any
) -> None:
    shard = packed / "train-000000.tar"
    image = bytes(dataset(packed / "train")[0]["jpg"])
    shard.write_bytes(shard.read_bytes().replace(image[-20:], image[-20:-4] + b"\0\0" + image[-2:]))
    browser.open(f"{site.url}/train.html")
    browser.wait(f"{DRAWN} === 12")
    browser.click(".cell[data-place='0']")
    told = browser.wait("document.querySelector('.facts .bad')?.textContent")
    assert told == " The image has another checksum: the shard has changed, or is damaged."


def test_a_dataset_without_samples_says_so(site: Site, browser: Browser) -> None:
    (site.folder / "train.json").write_bytes(encode_manifest(Manifest(samples=0, bytes=0, shards=())))
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{part('nothing')}.textContent === 'This dataset has no samples.'")
    assert browser.run(COUNT) == "0 samples"
    browser.run(f"{part('grid')}.focus()")
    for key in ("ArrowDown", "End", "Enter", " "):
        browser.key(key)
    assert browser.errors == []


def test_samples_without_labels_are_shown_by_their_keys(site: Site, browser: Browser, draw_image: Any) -> None:
    with ShardWriter(site.folder / "train") as writer:
        for number in range(3):
            writer.write({"__key__": f"some/key{number}", "jpg": draw_image(number)})
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{DRAWN} === 3")
    captions = browser.run("[...document.querySelectorAll('.caption')].map((each) => each.textContent)")
    assert captions == ["key0", "key1", "key2"]
    assert browser.run(f"{part('classes')}.hidden")


def test_a_dataset_that_grew_is_shown_as_it_is_now(tree: Path, site: Site, browser: Browser, draw_image: Any) -> None:
    pack(tree, site.folder / "train", workers=1)
    view_page(site.folder / "train")
    (tree / "red" / "new.png").write_bytes(draw_image(9, format="PNG"))
    pack(tree, site.folder / "train", workers=1, append=True)
    assert len(manifest_of(site.folder).index) == 2
    browser.open(f"{site.url}/train.html")
    browser.wait(f"{DRAWN} === 13")
    assert browser.run(COUNT) == "13 samples"
