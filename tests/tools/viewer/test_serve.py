"""The server of `shardkit view --html --serve`."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardkit import StorageError, UsageError, ViewPage, pack, view_page
from shardkit.tools.viewer.page import PageDataset
from shardkit.tools.viewer.serve import HOST, PageServer


@pytest.fixture
def page(tree: Path, tmp_path: Path) -> ViewPage:
    pack(tree, tmp_path / "shards" / "train", workers=1)
    (tmp_path / "pages").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    return view_page(tmp_path / "shards" / "train", tmp_path / "pages" / "train.html")


@pytest.fixture
def server(page: ViewPage) -> Iterator[PageServer]:
    with PageServer(page) as found:
        threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True).start()
        yield found
        found.shutdown()


def ask(server: PageServer, path: str, method: str = "GET", **head: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(HOST, server.server_address[1], timeout=30)
    try:
        connection.request(method, path, headers=head)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers.items()), answer.read()
    finally:
        connection.close()


def test_the_page_and_the_files_of_its_dataset_are_served_and_no_others(server: PageServer, tmp_path: Path) -> None:
    assert urlsplit(server.address).path == "/pages/train.html"
    status, head, data = ask(server, "/pages/train.html")
    assert (status, data) == (200, (tmp_path / "pages" / "train.html").read_bytes())
    assert head["Content-Type"].startswith("text/html")
    for name in ("train.json", "train.parquet", "train-000000.tar"):
        assert ask(server, f"/shards/{name}")[2] == (tmp_path / "shards" / name).read_bytes()
    for path in ("/secret.txt", "/shards/../secret.txt", "/shards/", "/", "/pages/%2e%2e/secret.txt", "//etc/passwd"):
        assert ask(server, path)[::2] == (404, b"")


def test_parts_of_a_file_are_served(server: PageServer, tmp_path: Path) -> None:
    data = (tmp_path / "shards" / "train-000000.tar").read_bytes()
    for wanted, first, end in (("5-9", 5, 10), ("512-", 512, len(data)), ("0-99999999", 0, len(data))):
        status, head, part = ask(server, "/shards/train-000000.tar", Range=f"bytes={wanted}")
        assert (status, part) == (206, data[first:end])
        assert head["Content-Range"] == f"bytes {first}-{end - 1}/{len(data)}"
    status, head, part = ask(server, "/shards/train-000000.tar", Range=f"bytes={len(data)}-")
    assert (status, head["Content-Range"], part) == (416, f"bytes */{len(data)}", b"")
    status, head, part = ask(server, "/shards/train-000000.tar", "HEAD")
    assert (status, int(head["Content-Length"]), part) == (200, len(data), b"")


def test_a_page_of_another_name_can_not_read_the_files(server: PageServer) -> None:
    """A name that somebody else's DNS leads to this machine."""
    assert ask(server, "/pages/train.html", Host="example.com")[0] == 404
    assert ask(server, "/pages/train.html", Host=f"localhost:{server.server_address[1]}")[0] == 200


def test_a_file_that_has_gone_is_not_found(server: PageServer, tmp_path: Path) -> None:
    (tmp_path / "shards" / "train-000000.tar").unlink()
    assert ask(server, "/shards/train-000000.tar")[0] == 404


def test_a_port_in_use_and_a_dataset_in_a_store_are_refused(server: PageServer, page: ViewPage) -> None:
    with pytest.raises(StorageError, match="choose another port"):
        PageServer(page, server.server_address[1])
    far = replace(page, datasets=(PageDataset("train", "s3://bucket/train.json", 12),))
    with pytest.raises(UsageError, match="not on a disk of this machine"):
        PageServer(far)
