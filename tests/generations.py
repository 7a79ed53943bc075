"""What a dataset looks like that has replaced another one."""

from __future__ import annotations

from collections.abc import Mapping

from shardkit.shards import names
from shardkit.shards.manifest import decode_manifest, file_names


def in_generation(content: Mapping[str, bytes], stem: str, number: int) -> dict[str, bytes]:
    """The files of a first generation with the names of another, but for manifest and index, which hold names."""
    return {
        names.in_generation(name, stem, number): data
        for name, data in content.items()
        if names.is_shard_of(name, stem) or name == names.skipped_name(stem)
    }


def is_generation(found: Mapping[str, bytes], content: Mapping[str, bytes], stem: str, number: int) -> bool:
    """Whether `found` are the files of the dataset with the files `content`, in another generation, and no others."""
    manifest = decode_manifest(found[names.manifest_name(stem)], place=stem)
    before = decode_manifest(content[names.manifest_name(stem)], place=stem)
    same = in_generation(content, stem, number)
    expected = {*same, *(names.in_generation(entry.name, stem, number) for entry in before.index), f"{stem}.json"}
    return (
        found.keys() == expected
        and same.items() <= found.items()
        and set(file_names(manifest)) <= expected
        and [entry.crc32c for entry in manifest.shards] == [entry.crc32c for entry in before.shards]
        and manifest.plan == before.plan
    )
