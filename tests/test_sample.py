"""Keys, fields and paths: how a file's name becomes a sample's."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shardkit.images.pillow import FORMATS
from shardkit.sample import (
    DEFAULT_EXTENSIONS,
    field_of,
    fs_text,
    key_of_path,
    path_of_text,
    split_member_name,
    text_of_path,
)


def test_the_extensions_that_are_packed_are_those_that_pillow_reads() -> None:
    Image.init()
    read = {name[1:] for name, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert set(DEFAULT_EXTENSIONS) - read <= {
        "avif",
        "avifs",
        "qoi",
        "jp2",
        "j2k",
        "jpc",
        "jpf",
        "jpx",
        "j2c",
    }  # builds
    assert read <= set(DEFAULT_EXTENSIONS)


@pytest.mark.parametrize(("extension", "field"), [("jpg", "jpg"), ("JPEG", "jpg"), ("PNG", "png"), ("jpe", "jpe")])
def test_a_field_is_the_extension_in_lower_case_and_jpeg_is_jpg(extension: str, field: str) -> None:
    assert field_of(extension) == field


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("cat/cat.0.jpg", "cat/cat_0"),
        ("cat/1.jpg", "cat/1"),
        ("v1.2/a.b/c.tar.JPEG", "v1_2/a_b/c_tar"),
        ("cat/no-extension", "cat/no-extension"),
        ("a.b/no-extension", "a_b/no-extension"),
    ],
)
def test_a_key_is_the_path_without_its_extension_and_without_dots(path: str, key: str) -> None:
    assert key_of_path(path) == key


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train/cat/7.seg.PNG", ("train/cat/7", "seg.png")),
        ("a.b/c.jpg", ("a.b/c", "jpg")),
        ("README", None),
        ("a/.hidden", None),
        ("a.b/README", None),
    ],
)
def test_a_member_is_split_at_the_first_dot_of_its_base_name(name: str, parts: tuple[str, str] | None) -> None:
    assert split_member_name(name) == parts


@given(st.binary(min_size=1).filter(lambda path: b"\0" not in path))
def test_any_path_comes_back_from_its_text_and_the_text_is_valid_utf_8(path: bytes) -> None:
    text = text_of_path(path)
    text.encode()
    assert path_of_text(text) == path


@given(st.binary(), st.binary())
def test_two_paths_never_have_one_text(first: bytes, second: bytes) -> None:
    assert (text_of_path(first) == text_of_path(second)) == (first == second)


def test_a_path_in_a_message_shows_bytes_that_are_no_utf_8() -> None:
    assert fs_text(b"caf\xe9.jpg") == "caf\\xe9.jpg"
    assert fs_text(os.fsdecode(b"caf\xe9.jpg")) == "caf\\xe9.jpg"
