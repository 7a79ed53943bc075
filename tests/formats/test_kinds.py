"""What a file is that is no image, told by its first bytes."""

from __future__ import annotations

import pytest

from shardkit.formats.kinds import other_kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty file"),
        (b"RIFF\x10\0\0\0AVI LIST", "an AVI video, not an image"),
        (b"RIFF\x10\0\0\0WAVEfmt ", ""),
        (b"\xef\xbb\xbf \r\n<!DOCTYPE html>", "HTML, not an image"),
        (b'{"a": 1}', "JSON, not an image"),
        (b'[{"a": 1}]', "JSON, not an image"),
        (b"<?xml version='1.0'?><svg/>", "SVG, which has no pixels"),
        (b"<?xml version='1.0'?><a/>", "XML, not an image"),
        (b"\xff\xd8\xff", ""),
    ],
)
def test_a_file_that_is_no_image_is_named(data: bytes, kind: str) -> None:
    assert other_kind(data) == kind
