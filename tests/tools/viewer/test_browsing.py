"""The page in a browser: what it shows, selects and copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tools.viewer.browser import Browser
from tools.viewer.screen import COUNT, DRAWN, SHOWN, copied, keys_of, open_page, part
from tools.viewer.site import Site

from shardkit import ShardWriter, dataset, pack, view_page


def test_all_images_are_shown_with_class_key_and_size(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards / "train")
    browser.wait(f"{DRAWN} === 13")
    assert browser.run(COUNT) == "13 samples"
    names = ["blue", "red"]
    index = {sample["__key__"]: names[sample["cls"]] for sample in dataset(shards / "train")}
    labels = browser.run(SHOWN)
    assert [label.split(", ")[:2] for label in labels] == [[name, key] for key, name in index.items()]
    assert {label.split(", ")[2] for label in labels} == {
        "40 by 30 pixels", "90 by 30 pixels", "20 by 60 pixels", "50 by 50 pixels"
    }  # fmt: skip
    assert browser.errors == []


def test_all_splits_are_on_one_page_and_can_be_chosen(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards)
    browser.wait(f"{DRAWN} === 19")
    assert browser.run(COUNT) == "19 samples"
    browser.click("[data-split=validation]")
    browser.wait(f"{COUNT} === '4 of 19 samples'")
    assert sorted(keys_of(browser)) == sorted(sample["__key__"] for sample in dataset(shards / "validation"))
    counts = browser.run("[...document.querySelectorAll('.classes label')].map((line) => line.innerText.split('\\n'))")
    assert counts == [["blue", "2"], ["red", "2"]]
    assert browser.run("location.hash") == "#split=validation"


def test_the_keyboard_moves_opens_selects_and_copies(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards / "train")
    browser.wait(f"{DRAWN} === 13")
    keys = keys_of(browser)
    browser.run(f"{part('grid')}.focus()")
    for name in ("ArrowRight", "ArrowRight", " "):
        browser.key(name)
    browser.key("ArrowRight", shift=True)
    browser.wait(f"{part('selected')}.textContent === '2 selected'")
    assert copied(browser, "copy-keys", "2 keys copied") == "\n".join(keys[2:4])
    assert json.loads(copied(browser, "copy-list", "2 keys copied")) == keys[2:4]
    browser.run(f"{part('grid')}.focus()")
    browser.key("Enter")
    browser.wait(f"{part('lightbox')}.open && {part('title')}.textContent === {json.dumps(keys[3])}")
    browser.key("ArrowRight")
    browser.wait(f"{part('title')}.textContent === {json.dumps(keys[4])}")
    browser.key(" ")
    browser.key("Escape")
    browser.wait(f"!{part('lightbox')}.open")
    assert browser.run(f"document.activeElement === {part('grid')}")
    assert browser.run(f"{part('selected')}.textContent") == "3 selected"
    browser.key("a", control=True)
    assert browser.run(f"{part('selected')}.textContent") == "13 selected"
    browser.key("Escape")
    assert browser.run(f"{part('selection')}.hidden")


def test_the_keys_of_several_splits_are_told_apart(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards)
    browser.wait(f"{DRAWN} === 19")
    browser.click("[data-part=select-all]")
    wanted = {name: list(dataset(shards / name).keys) for name in ("test", "train", "validation")}
    lines = copied(browser, "copy-keys", "19 keys copied").split("\n")
    assert lines == [f"{name}\t{key}" for name, keys in wanted.items() for key in keys]
    assert eval(copied(browser, "copy-list", "19 keys copied")) == wanted


def test_a_sample_is_shown_with_all_columns_of_the_index(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards / "train")
    browser.wait(f"{DRAWN} === 13")
    browser.click(".cell[data-place='7']")
    rows = "[...document.querySelectorAll('.facts tr')].map((row) => [...row.children].map((cell) => cell.textContent))"
    browser.wait(f"{rows}.length === 11 && document.querySelector('.stage img')?.naturalWidth")
    import pyarrow.parquet as pq

    row = pq.read_table(shards / "train.parquet").to_pylist()[7]
    told = dict(browser.run(rows))
    assert list(told) == list(row)
    assert told["key"] == row["key"]
    browser.wait(f"{rows}.at(-1)[1] === '{row['crc32c']:08x} (checked)'")
    assert told["label"].startswith(f"{row['label']} (")
    assert told["image_size"].startswith(f"{row['image_size']:,} (")
    assert browser.run("document.querySelector('.stage img').naturalWidth") == row["width"]


def test_the_grid_tells_a_screen_reader_what_it_is(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards / "train")
    browser.wait(f"{DRAWN} === 13")
    browser.run(f"{part('grid')}.focus()")
    browser.key("ArrowDown")
    tree = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert roles.count("grid") == 1
    assert roles.count("gridcell") == 13
    [grid] = [node for node in tree if node["role"]["value"] == "grid"]
    told = {each["name"]: each["value"] for each in grid["properties"]}
    assert told["activedescendant"]["relatedNodes"]
    unnamed = [
        node for node in tree
        if node["role"]["value"] in ("button", "checkbox", "searchbox", "spinbutton", "combobox", "slider", "gridcell")
        and not node["name"]["value"]
    ]  # fmt: skip
    assert unnamed == []
    columns = int(browser.run(f"{part('grid')}.getAttribute('aria-colcount')"))
    assert browser.run(f"{part('grid')}.getAttribute('aria-activedescendant')") == f"cell-{columns}"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_fits_a_phone_a_tablet_and_a_desk(width: int, shards: Path, site: Site, browser: Browser) -> None:
    browser.size(width, 800, phone=width < 500)
    open_page(browser, site, shards)
    browser.wait(f"{DRAWN} >= 4")
    for step in ("", "open-filters"):
        if step and width > 760:
            continue
        if step:
            browser.click(f"[data-part={step}]")
            browser.wait(f"{part('filters')}.offsetParent !== null")
        wide = browser.run("[document.documentElement.scrollWidth, document.body.scrollWidth]")
        assert max(wide) <= width


HOSTILE = ["<img src=x onerror=alert(1)>", "<script>alert(2)</script>", 'a" onmouseover="alert(3)', "a&amp;b", "{x}$1"]


def test_hostile_names_stay_text(tmp_path: Path, site: Site, browser: Browser, draw_image: Any) -> None:
    with ShardWriter(site.folder / "train", classes=HOSTILE) as writer:
        for number, name in enumerate(HOSTILE):
            writer.write({"__key__": f"{name}{number}".replace(".", "_"), "jpg": draw_image(number), "cls": number})
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{DRAWN} === 5")
    captions = "[...document.querySelectorAll('.caption')].map((each) => each.textContent)"
    assert browser.run(captions) == HOSTILE
    assert browser.run("[...document.querySelectorAll('.classes .name')].map((each) => each.textContent)") == HOSTILE
    browser.click(".cell[data-place='0']")
    browser.wait("document.querySelector('.stage img')?.naturalWidth")
    assert browser.run(f"{part('title')}.textContent") == f"{HOSTILE[0]}0"
    browser.key("Escape")
    browser.run("document.querySelector('.classes input').click()")
    browser.wait(f"{COUNT} === '1 of 5 samples'")
    assert browser.run("document.querySelectorAll('img[src=x], script').length") == 2  # the page's own
    assert browser.errors == []


def test_a_page_works_on_nginx_too(splits: Path, web_root: tuple[str, Path], browser: Browser) -> None:
    endpoint, root = web_root
    pack(splits, root / "nginx", workers=1)
    view_page(root / "nginx")
    browser.open(f"{endpoint}/nginx/view.html")
    browser.wait(f"{DRAWN} === 16")
    assert browser.errors == []
    shutil.rmtree(root / "nginx")


def test_the_place_in_the_grid_stays_while_the_filters_of_a_phone_are_open(
    draw_tree: Any, tmp_path: Path, site: Site, browser: Browser
) -> None:
    pack(draw_tree(tmp_path / "many", {"a": 60}, size=(8, 8)), site.folder / "train", workers=1)
    browser.size(390, 700, phone=True)
    open_page(browser, site, site.folder / "train")
    browser.wait(f"{DRAWN} >= 4")
    browser.run(f"{part('grid')}.scrollTop = 2000")
    first = "Number(document.querySelector('.cell').dataset.place)"
    place = browser.wait(first)
    browser.click("[data-part=open-filters]")
    browser.wait(f"{part('filters')}.offsetParent !== null")
    browser.key("Escape")
    browser.wait(f"{part('filters')}.offsetParent === null")
    assert browser.run(first) == place
    assert browser.run(f"document.activeElement === {part('open-filters')}")
    browser.click("[data-part=open-filters]")
    browser.run("document.querySelector('.classes input').click()")
    browser.click("[data-part=close-filters]")
    browser.wait(f"{COUNT} === '60 samples' && {DRAWN} >= 4")


def test_the_link_that_skips_the_filters_leaves_them_as_they_are(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards / "train", "#class=red")
    browser.wait(f"{DRAWN} === 8")
    browser.run("document.querySelector('.skip').focus()")
    browser.key("Enter")
    browser.wait(f"document.activeElement === {part('grid')}")
    assert browser.run("location.hash") == "#class=red"
    assert browser.run(COUNT) == "8 of 13 samples"
