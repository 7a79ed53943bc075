"""A browser for the session, and a site for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.viewer.browser import CHROMIUM, Browser, chromium
from tools.viewer.site import Site, served

from shardkit import pack


@pytest.fixture(scope="session")
def shared_browser() -> Iterator[Browser]:
    if CHROMIUM is None or sys.platform == "win32":
        pytest.skip("no Chromium here")
    with chromium() as found:
        yield found


@pytest.fixture
def browser(shared_browser: Browser) -> Browser:
    """A tab of the size of a desktop's window."""
    shared_browser.size(1280, 860)
    return shared_browser


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site that serves the folder `shards` of the test."""
    (tmp_path / "shards").mkdir(exist_ok=True)
    with served(tmp_path / "shards") as found:
        yield found


@pytest.fixture(params=["tar", "tfrecord"])
def shards(request: pytest.FixtureRequest, splits: Path, draw_image: Any, site: Site) -> Path:
    """Splits of images of several sizes and kinds, in shards of both formats."""
    (splits / "train" / "red" / "wide.jpg").write_bytes(draw_image(1, size=(90, 30)))
    (splits / "train" / "red" / "tall.png").write_bytes(draw_image(2, size=(20, 60), format="PNG"))
    (splits / "train" / "blue" / "web.webp").write_bytes(draw_image(3, size=(50, 50), format="WEBP"))
    pack(splits, site.folder, format=request.param, workers=1, max_count=5)
    return site.folder
