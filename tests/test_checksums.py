"""CRC-32C without the C extension: by google-crc32c, or by NumPy, with the same results."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
import pytest

from shardkit import checksums
from shardkit.checksums import FEWEST_ROWS, ROW_BYTES, WINDOW_BYTES, crc32c, crc32c_by_numpy, differing

LONG = FEWEST_ROWS * ROW_BYTES


@pytest.fixture
def no_extension(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the C extension nor a remembered choice."""
    monkeypatch.setattr(checksums, "extension", lambda: None)
    checksums._plain.cache_clear()
    yield
    checksums._plain.cache_clear()


@pytest.fixture
def no_google(no_extension: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where google-crc32c is not installed either."""
    there = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name == "google_crc32c":
            raise ImportError(f"No module named {name!r}")
        return there(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)


def data_of(count: int) -> bytes:
    return np.random.default_rng(count).integers(0, 256, count, np.uint8).tobytes()


@pytest.mark.parametrize("count", [0, 1, 12, ROW_BYTES, LONG - 1, LONG, LONG + 1, WINDOW_BYTES, WINDOW_BYTES + 3])
def test_numpy_gives_the_crc_of_google(count: int) -> None:
    data = data_of(count)
    assert crc32c_by_numpy(0, data) == google_crc32c.value(data)
    assert crc32c_by_numpy(0xC0FFEE, data) == google_crc32c.extend(0xC0FFEE, data)


def test_the_standard_check_value() -> None:
    """CRC-32C of "123456789" is 0xE3069283 (RFC 3720 and the catalogue of CRCs)."""
    assert crc32c(b"123456789") == crc32c_by_numpy(0, b"123456789") == 0xE3069283


@pytest.mark.usefixtures("no_extension")
def test_without_the_extension_google_crc32c_is_used_silently(caplog: pytest.LogCaptureFixture) -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert checksums._plain() is google_crc32c.extend
    assert not caplog.records


@pytest.mark.usefixtures("no_google")
def test_without_both_numpy_is_used_and_its_slowness_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    data = [data_of(3000), None, data_of(100)]
    sums = np.array([google_crc32c.value(data[0]), 0, 7], np.uint32)
    with caplog.at_level(logging.WARNING, "shardkit"):
        assert differing(data, sums) == [2]
        assert crc32c(memoryview(b"6789"), crc32c(bytearray(b"12345"))) == 0xE3069283
        assert checksums.summer(np.frombuffer(b"0123456789", np.uint8))(1, 10) == 0xE3069283
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert 'pip install "shardkit[crc32c]"' in caplog.text
