"""What many tests share: small drawn images, class trees of them, and the profile of the property tests."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

import shardkit

pytest_plugins = ["fixtures.packing", "fixtures.reading", "fixtures.storage"]

settings.register_profile("shardkit", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("shardkit")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script; commands inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def draw_image(seed: int = 0, *, size: tuple[int, int] = (40, 30), format: str = "JPEG", mode: str = "RGB") -> bytes:
    """An image file of smooth random colours. size is (width, height), as in Pillow; format and mode are Pillow's."""
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)
    sink = io.BytesIO()
    image.save(sink, format)
    return sink.getvalue()


def draw_tree(root: Path, counts: Mapping[str, int], *, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    """A class tree below `root`: for each `{"cat": 3}` or `{"train/cat": 3}` that many JPEGs 0000.jpg, 0001.jpg …"""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            seed += 1
            (root / folder / f"{n:04}.jpg").write_bytes(draw_image(seed, size=size))
    return root


@pytest.fixture(autouse=True, scope="session")
def fixture_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What shardkit and its commands keep in the user's cache is in a folder of this run of the tests: another run at
    the same time would find its locks. matplotlib keeps its list of fonts, which takes seconds to make."""
    with pytest.MonkeyPatch.context() as patch:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        patch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR") or os.path.join(home, "matplotlib"))
        folder = str(tmp_path_factory.mktemp("cache"))
        patch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", folder)
        yield


@pytest.fixture(name="draw_image", scope="session")
def fixture_draw_image() -> Callable[..., bytes]:
    """The function `draw_image`."""
    return draw_image


@pytest.fixture(name="draw_tree", scope="session")
def fixture_draw_tree() -> Callable[..., Path]:
    """The function `draw_tree`."""
    return draw_tree


def run_python(*arguments: str, cwd: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter with `arguments`, in `cwd`, that has this shardkit. stdin is empty; output comes as text."""
    home = str(Path(shardkit.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=check,
        cwd=cwd,
        timeout=600,  # Ray alone takes a minute to start two trainings, several on a loaded machine
        env=os.environ | {"PYTHONPATH": home} | environment,
    )


@pytest.fixture(name="run_python", scope="session")
def fixture_run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The function `run_python`."""
    return run_python


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of 2 classes, 12 images: blue (5) and red (7)."""
    return draw_tree(tmp_path / "tree", {"blue": 5, "red": 7})


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A tree of splits: train (red 6, blue 4), validation (2, 2), test (1, 1)."""
    counts = {"train/red": 6, "train/blue": 4, "validation/red": 2, "validation/blue": 2, "test/red": 1, "test/blue": 1}
    return draw_tree(tmp_path / "splits", counts)


@dataclass(frozen=True)
class Remote:
    """A place on a server of the tests. url: `s3://bucket` or `http://127.0.0.1:PORT/folder`, with no slash at its end.
    options: the `storage_options` for it. endpoint: the server's address. folder: what a web server serves at `url`."""

    url: str
    options: dict[str, Any]
    endpoint: str
    folder: Path | None = None


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server (moto) that runs for the session."""
    pytest.importorskip("moto")
    pytest.importorskip("obstore")
    from storage.servers import moto, running

    with running(moto, tmp_path_factory.mktemp("s3") / "log") as endpoint:
        yield endpoint


@pytest.fixture
def s3_server(s3_endpoint: str) -> Remote:
    """A new empty bucket on an S3 server: `s3_server.url` ("s3://bucket-…"), `s3_server.options` (storage_options)."""
    from storage.servers import make_bucket

    bucket = f"bucket-{os.urandom(6).hex()}"
    make_bucket(s3_endpoint, bucket)
    keys = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
    return Remote(f"s3://{bucket}", {"endpoint": s3_endpoint, **keys}, s3_endpoint)


@pytest.fixture(scope="session")
def web_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a web server that answers ranges (nginx, or one of our own), and the folder that it serves."""
    from storage.servers import running, web

    root = tmp_path_factory.mktemp("web")
    with running(web(root), root.with_name("web-log")) as endpoint:
        yield endpoint, root


@pytest.fixture
def http_folder(web_root: tuple[str, Path]) -> Remote:
    """A new empty folder, served with ranges: write files to `http_folder.folder`, read them at `http_folder.url`."""
    pytest.importorskip("obstore")
    endpoint, root = web_root
    folder = root / os.urandom(6).hex()
    folder.mkdir()
    return Remote(f"{endpoint}/{folder.name}", {}, endpoint, folder)


@pytest.fixture
def no_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """No objects in the memory store but those of the test, and no waiting between attempts."""
    from shardkit.storage.retry import Retry
    from shardkit.storage.stores import memory

    monkeypatch.setattr(Retry, "wait_seconds", lambda self, failures: 0.0)
    monkeypatch.setattr(memory, "_OBJECTS", {})  # what a session has put there stays
