"""What is particular to stores of this machine, and of fsspec."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from storage.store_contract import content, names

from shardkit.errors import DestinationError, MissingExtraError, NotFoundError, StorageError, TransientError, UsageError
from shardkit.location import Location, locate
from shardkit.storage.files import part_of
from shardkit.storage.store import open_store
from shardkit.storage.stores.fsspec import FsspecStore, _crc32c, translated_error


def test_a_put_makes_the_folders_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    open_store(locate(tmp_path)).put("deep/er/a", io.BytesIO(b"x"))
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["a"]


def test_files_of_a_run_that_still_writes_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    Path(os.fsdecode(part_of(str(tmp_path / "b")))).write_bytes(b"half")
    assert names(open_store(locate(tmp_path))) == ["a"]


def test_a_file_that_shrinks_while_it_is_read_is_a_break(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    stream = iter(open_store(locate(tmp_path)).pieces("a"))
    next(stream)
    os.truncate(tmp_path / "a", 1 << 20)
    with pytest.raises(TransientError, match="became shorter"):
        next(stream)


def test_a_file_in_the_way_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(DestinationError, match="a file already exists at this path"):
        open_store(locate(tmp_path)).put("a/b", io.BytesIO(b"x"))


def test_what_is_in_a_linked_folder_is_listed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.tar").write_bytes(b"x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    store = open_store(locate(str(tmp_path / "root")))
    assert [info.name for info in store.list()] == ["linked/x.tar"]


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert names(open_store(locate(tmp_path / "nowhere"))) == []


@pytest.mark.parametrize("url", ["/tmp/x", "memory://x"])
def test_stores_without_options_refuse_them(url: str) -> None:
    with pytest.raises(UsageError, match="anon"):
        open_store(locate(url), {"anon": True})


def test_any_other_scheme_goes_to_fsspec(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    assert isinstance(open_store(locate(f"local://{tmp_path}")), FsspecStore)
    with pytest.raises(UsageError, match="Protocol not known"):
        open_store(locate("nonsense://x/y"))


def test_a_scheme_whose_package_is_missing_says_which(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.register_implementation("absent", "no_such_package.Absent", clobber=True)
    with pytest.raises(MissingExtraError, match="no_such_package"):
        open_store(locate("absent://x"))


def test_a_store_of_fsspec_leaves_no_temporary_file(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    store = open_store(locate(f"local://{tmp_path}/x"))

    class BreakingFile(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        store.put("a", BreakingFile())
    store.put("b", io.BytesIO(b"x"))
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["b"]


def test_fsspec_reads_what_became_shorter_as_a_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    store = open_store(locate(f"local://{tmp_path}"))
    store.put("a", io.BytesIO(b"0123456789"))
    monkeypatch.setattr(type(store._fs), "cat_file", lambda *_, **__: b"0123")  # type: ignore[attr-defined]
    with pytest.raises(TransientError, match="4 of the 10 bytes"):
        content(store, "a")


class StatusError(Exception):
    status = 503


class Answer:
    status_code = 429


class RequestError(Exception):
    response = Answer()


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (FileNotFoundError("x"), NotFoundError),
        (IsADirectoryError("x"), NotFoundError),
        (ConnectionResetError("x"), TransientError),
        (TimeoutError("x"), TransientError),
        (StatusError("x"), TransientError),
        (RequestError("x"), TransientError),
        (OSError(16, "slow down"), TransientError),
        (PermissionError("x"), StorageError),
        (ValueError("x"), StorageError),
    ],
)
def test_errors_of_file_systems_are_told_apart(exc: Exception, kind: type[Exception]) -> None:
    assert type(translated_error(exc, "hf://x/a")) is kind


def test_a_secret_in_an_error_of_a_file_system_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    store = open_store(locate(f"local://{tmp_path}"))

    def fail(*_: Any, **__: Any) -> Iterator[None]:
        raise ValueError("GET https://host/a?X-Amz-Signature=s3cr3t failed")

    monkeypatch.setattr(type(store._fs), "info", fail)  # type: ignore[attr-defined]
    with pytest.raises(StorageError) as caught:
        store.info("a")
    assert "s3cr3t" not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("text", "crc"), [("yZRlqg==", "c99465aa"), ("abc", None), (None, None), ("AAAA", None), ("yZ!Rlqg==", None)]
)
def test_the_checksum_of_google_is_understood(text: str | None, crc: str | None) -> None:
    assert _crc32c(text) == crc


def test_the_root_of_a_local_store_is_a_path() -> None:
    assert open_store(Location("", "data")).root == Location("", "data")
