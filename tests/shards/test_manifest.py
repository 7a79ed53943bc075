"""The manifest: round trip, later versions, damage."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shardkit.errors import ManifestError
from shardkit.shards.manifest import (
    LIMIT,
    ClassEntry,
    IndexEntry,
    Manifest,
    ShardEntry,
    content_options,
    decode_manifest,
    encode_manifest,
    options_for_new_shards,
    with_fields,
)

MANIFEST = Manifest(
    samples=3,
    bytes=3000,
    classes=(ClassEntry("cat", 2), ClassEntry("dog", 1)),
    fields=("cls", "jpg"),
    shards=(ShardEntry("t-000000.tar", 2, 2000, "0a1b2c3d"), ShardEntry("t-000001.tar", 1, 1000, "00000000")),
    index=(IndexEntry("t.parquet", 2, 500, "ffffffff"),),
    options={"seed": 0},
    plan="abc",
)


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(encode_manifest(MANIFEST)), **values}).encode()


def test_a_manifest_comes_back_as_it_was_written() -> None:
    assert decode_manifest(encode_manifest(MANIFEST), place="t.json") == MANIFEST


def test_a_manifest_is_readable_json_that_ends_with_a_line() -> None:
    data = encode_manifest(MANIFEST)
    assert data.endswith(b"}\n")
    assert json.loads(data)["classes"][0] == {"name": "cat", "count": 2}


def test_a_later_version_is_refused_with_its_number() -> None:
    with pytest.raises(ManifestError, match="version 4, and this shardkit reads versions up to 3; install a newer"):
        decode_manifest(changed(version=4, shards="another shape"), place="t.json")


def test_an_old_manifest_has_the_usual_content() -> None:
    old = decode_manifest(changed(options={}, plan="ab"), place="t.json")
    assert old.labels == "class"
    assert list(old.unpacked_bytes) == [0] * len(old.shards)
    assert list(old.appended) == []
    assert old.one_image_each


def test_the_members_are_what_the_options_say() -> None:
    added = {"shards": 1, "samples": 2, "changed": 0, "gone": 0}
    sizes = [4096 * 1024] * len(MANIFEST.shards)
    options = {"seed": 7} | content_options(labels="multi", fields=["jpg"], unpacked_bytes=sizes, appended=[added])
    said = decode_manifest(changed(options=options, plan="ab"), place="t.json")
    assert said.options == options
    assert (said.labels, list(said.unpacked_bytes), list(said.appended)) == ("multi", sizes, [added])
    assert not said.one_image_each
    assert options_for_new_shards(said) == {"seed": 7, "labels": "multi", "fields": ["jpg"], "appended": [added]}
    assert "appended" not in options_for_new_shards(said, appended=False)
    assert with_fields(said.options, ["jpg", "json"])["fields"] == ["jpg", "json"]


def test_what_goes_without_saying_is_not_recorded() -> None:
    assert content_options(labels="class", unpacked_bytes=[0, 0]) == {}
    assert with_fields({}, ["jpg"]) == {}
    assert options_for_new_shards(None) == {}


def test_keys_that_are_not_known_are_ignored() -> None:
    assert decode_manifest(changed(later="more"), place="t.json") == MANIFEST


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not a manifest"),
        (b"[]", "not a manifest"),
        (b'{"a": 1}', '"format"'),
        (encode_manifest(MANIFEST)[:-40], "not a manifest"),
        (changed(samples=4), "samples is 4"),
        (changed(bytes=1), "bytes is 1"),
        (changed(samples="3"), "damaged"),
        (changed(index=[{"name": "t.parquet", "shards": 1, "bytes": 5, "crc32c": "00000000"}]), "covers 1 of 2"),
    ],
)
def test_a_damaged_manifest_is_an_error_that_names_it(data: bytes, what: str) -> None:
    with pytest.raises(ManifestError, match=what) as caught:
        decode_manifest(data, place="shards/t.json")
    assert str(caught.value).startswith("shards/t.json: ")


@pytest.mark.parametrize("name", ["../t.tar", "/etc/passwd", "a/b.tar", "..", "", "a\\b", "a\0b"])
def test_a_manifest_cannot_point_outside_its_folder(name: str) -> None:
    shards = [{"name": name, "samples": 3, "bytes": 3000, "crc32c": "00000000"}]
    with pytest.raises(ManifestError, match="plain file name"):
        decode_manifest(changed(shards=shards, index=[]), place="t.json")


def test_a_shard_that_is_named_twice_is_refused() -> None:
    shards = [{"name": "a", "samples": 0, "bytes": 0, "crc32c": "00000000"}] * 2
    with pytest.raises(ManifestError, match="twice"):
        decode_manifest(changed(shards=shards, index=[], samples=0, bytes=0), place="t.json")


def test_a_crc_that_is_no_hex_number_is_refused() -> None:
    shards = [{"name": "a", "samples": 3, "bytes": 3000, "crc32c": "zz"}]
    with pytest.raises(ManifestError, match="crc32c"):
        decode_manifest(changed(shards=shards, index=[]), place="t.json")


SHARDS = json.loads(encode_manifest(MANIFEST))["shards"]
HOSTILE = {
    "huge samples": {"shards": [{**shard, "samples": LIMIT} for shard in SHARDS], "samples": 2 * LIMIT},
    "more samples than bytes": {"shards": [{**shard, "samples": 10**14} for shard in SHARDS], "samples": 2 * 10**14},
    "huge bytes": {"shards": [{**shard, "bytes": LIMIT} for shard in SHARDS], "bytes": 2 * LIMIT},
    "beyond 64 bits": {"shards": [{**shard, "samples": 1 << 70} for shard in SHARDS], "samples": 2 << 70},
    "an index of fewer than no shards": {
        "index": [
            {"name": name, "shards": count, "bytes": 1, "crc32c": "00000000"} for name, count in (("a", -1), ("b", 3))
        ]
    },
    "a huge index": {"index": [{"name": "a", "shards": 2, "bytes": LIMIT, "crc32c": "00000000"}]},
    "a negative count": {"classes": [{"name": "cat", "count": -1}]},
    **{
        f"unpacked: {value!r}": {"options": {"unpacked_bytes": value}}
        for value in (5, "xy", [1], [-1, 1], ["a", "b"], {"a": 1}, [LIMIT, 1], [1.5, 1], [True, 1])
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_numbers_that_can_not_be_are_refused(name: str) -> None:
    with pytest.raises(ManifestError, match=r"t\.json"):
        decode_manifest(changed(**HOSTILE[name]), place="t.json")


@pytest.mark.parametrize("key", ["options", "unknown"])
def test_a_manifest_that_is_nested_too_deeply_is_refused(key: str) -> None:
    deep = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    data = changed(**{key: "HERE"}).replace(b'"HERE"', deep)
    with pytest.raises(ManifestError, match="not a manifest"):
        decode_manifest(data, place="t.json")
