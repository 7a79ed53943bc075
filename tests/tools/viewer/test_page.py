"""The file that `view_page` writes, and the sources that it refuses."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import DatasetError, UsageError, index_shards, pack, upload, view_page
from shardkit.shards.manifest import decode_manifest, encode_manifest
from shardkit.tools.viewer.page import SCRIPTS, WEB


@pytest.fixture
def shards(splits: Path, tmp_path: Path) -> Path:
    """The splits train, validation and test, packed."""
    pack(splits, tmp_path / "shards", workers=1)
    return tmp_path / "shards"


def config_of(path: str | Path) -> Any:
    found = re.search(r'<script type="application/json" id="config">(.*?)</script>', Path(path).read_text("utf-8"))
    assert found is not None
    return json.loads(found[1])


def test_the_page_of_a_dataset_lies_beside_its_shards(shards: Path) -> None:
    page = view_page(shards / "train")
    assert page.path == str(shards / "train.html")
    assert page.bytes == os.path.getsize(page.path)
    assert [(each.name, each.manifest, each.samples) for each in page.datasets] == [
        ("train", str(shards / "train.json"), 10)
    ]
    assert config_of(page.path) == {"datasets": [{"name": "train", "manifest": "./train.json"}]}
    assert not page.beside


def test_all_splits_of_a_folder_are_on_one_page(shards: Path) -> None:
    page = view_page(shards)
    assert page.path == str(shards / "view.html")
    assert {each.name: each.samples for each in page.datasets} == {"test": 2, "train": 10, "validation": 4}
    assert [each["manifest"] for each in config_of(page.path)["datasets"]] == [
        "./test.json", "./train.json", "./validation.json",
    ]  # fmt: skip


def test_a_page_elsewhere_leads_to_the_shards(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    page = view_page(shards / "train", tmp_path / "a b" / "page.html")
    assert config_of(page.path)["datasets"][0]["manifest"] == "./../shards/train.json"
    moved = shutil.move(shards, tmp_path / "a b" / "c#?d")
    page = view_page(Path(moved) / "train", tmp_path / "a b" / "page.html")
    assert config_of(page.path)["datasets"][0]["manifest"] == "./c%23%3Fd/train.json"


def test_a_dataset_on_a_web_server_is_read_from_there(shards: Path, tmp_path: Path, http_folder: Any) -> None:
    for path in shards.iterdir():
        shutil.copy(path, http_folder.folder)
    page = view_page(f"{http_folder.url}/train", tmp_path / "page.html")
    assert config_of(page.path)["datasets"][0]["manifest"] == f"{http_folder.url}/train.json"
    assert not page.beside


def test_the_page_of_a_bucket_has_to_be_put_beside_the_shards(
    shards: Path, tmp_path: Path, no_objects: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(shards / "train", "memory://bucket/train")
    monkeypatch.chdir(tmp_path)
    page = view_page("memory://bucket/train")
    assert (page.path, page.beside) == ("train.html", True)
    assert config_of(tmp_path / "train.html")["datasets"][0]["manifest"] == "./train.json"


def test_the_policy_allows_the_own_script_and_style_only(shards: Path) -> None:
    text = Path(view_page(shards / "train").path).read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "blob: data:")


def test_the_page_asks_for_nothing_from_elsewhere(shards: Path) -> None:
    text = Path(view_page(shards / "train").path).read_text("utf-8")
    assert not re.findall(r"https?://", text)
    assert not re.findall(r'(?:src|href)="(?!#|data:,)', text)


def test_the_scripts_of_the_folder_are_all_in_the_page() -> None:
    assert {path.name for path in WEB.iterdir()} == {f"{name}.js" for name in SCRIPTS} | {"page.html", "style.css"}


def test_the_package_brings_the_parts_of_the_page() -> None:
    root = Path(__file__).parents[3]
    patterns = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    brought = {path for pattern in patterns["shardkit"] for path in (root / "shardkit").glob(pattern)}
    assert set((root / WEB.relative_to(Path(shardkit.__file__).parents[1])).iterdir()) <= brought


def test_equal_datasets_give_equal_pages(shards: Path) -> None:
    before = Path(view_page(shards / "train").path).read_bytes()
    assert Path(view_page(shards / "train").path).read_bytes() == before


@pytest.mark.parametrize("name", ["</script><img src=x onerror=alert(1)>", "{script}", 'a"b', "<!--<script>"])
def test_a_hostile_name_stays_text(name: str, tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    pack(tree, folder / "train", workers=1)
    hostile = re.sub("[/]", "_", name)
    manifest = (folder / "train.json").rename(folder / f"{hostile}.json")
    page = view_page(manifest)
    text = Path(page.path).read_text("utf-8")
    assert text.count("<script") == 2
    assert "<img src=x" not in text
    assert config_of(page.path)["datasets"][0]["name"] == hostile


def edit(manifest: Path, **values: Any) -> None:
    found = json.loads(manifest.read_text("utf-8"))
    manifest.write_bytes(encode_manifest(decode_manifest(json.dumps(found | values).encode(), place="")))


def test_a_dataset_without_an_index_is_refused(shards: Path) -> None:
    edit(shards / "train.json", index=[])
    with pytest.raises(DatasetError, match=r"the dataset has no index; make one with 'shardkit index'"):
        view_page(shards / "train")
    (shards / "train.json").unlink()
    with pytest.raises(DatasetError, match="no manifest; make one with 'shardkit index'"):
        view_page(shards / "train-*.tar")
    assert not list(shards.glob("*.html"))


def test_compressed_shards_are_refused(shards: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for path in shards.glob("train-*.tar"):
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    index_shards(packed / "train-*.tar.gz")
    with pytest.raises(DatasetError, match="compressed, so that a browser can't read single images"):
        view_page(packed / "train")


def test_a_class_directory_a_part_and_a_wrong_name_are_refused(shards: Path, splits: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class directory"):
        view_page(splits / "train")
    with pytest.raises(UsageError, match=r"give one that ends with \.html"):
        view_page(shards / "train", shards / "train-000000.tar")
    pack(splits / "train", tmp_path / "some" / "train", max_count=5, workers=1)
    with pytest.raises(UsageError, match="it names 1 of 2 shards, and a page shows whole datasets"):
        view_page(tmp_path / "some" / "train-000001.tar")
    with pytest.raises(UsageError, match="unexpected keyword argument 'count'"):
        view_page(shards / "train", count=3)  # type: ignore[call-arg]


def test_a_signed_address_does_not_get_into_a_page(shards: Path, tmp_path: Path, http_folder: Any) -> None:
    for path in shards.iterdir():
        shutil.copy(path, http_folder.folder)
    with pytest.raises(UsageError) as caught:
        view_page(f"{http_folder.url}/train.json?signature=secret", tmp_path / "page.html")
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()
