"""Which samples of a shard are whole, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError
from shardkit.formats.tar.salvage import Group, Salvaged, salvage
from shardkit.images.header import check_image, image_header
from shardkit.sample import IMAGE_FIELDS, NO_LABEL, label_of, text_of_path
from shardkit.shards.manifest import Manifest
from shardkit.shards.open import IndexRows, ShardPlace
from shardkit.shards.scan import ShardBytes, open_shard
from shardkit.tools.repair.rescued import LeftOut, Rescue, Rescued, field_of_image
from shardkit.tools.repair.tfrecord import RecordRescuer


@dataclass(frozen=True, slots=True)
class Rescuer:
    """Rescues the shards of one dataset; may be called from several threads."""

    manifest: Manifest | None
    decode: bool

    def __call__(self, task: tuple[int, ShardPlace]) -> Rescue:
        """All of shard `task` that is whole: by the CRCs of the index, or as far as can be known without one."""
        number, shard = task
        rows = shard.rows()
        place = str(shard.location)
        try:
            data = open_shard(shard.location, as_far=True)
        except ShardkitError as exc:
            rescue = Rescue(notes=[str(exc)])
            rescue.left_out += [
                LeftOut(place, None, key, path, f"its shard can't be read: {exc.fact}")
                for key, path in (zip(rows.keys, rows.paths, strict=True) if rows is not None else ())
            ]
            return rescue
        rescue = Rescue(notes=[] if data.error is None else [str(data.error)])
        if data.format == "tfrecord":
            RecordRescuer(self.manifest, self.decode, number, data, rescue).take(rows)
            return rescue
        found = salvage(data)
        rescue.notes += [str(error) for error in found.damage]
        if rows is not None:
            self._by_rows(number, data, rows, found, rescue)
            self._note_unproven(shard, data, rescue)
        else:
            self._by_members(number, data, found.groups, found.suspects, rescue)
        return rescue

    def _by_rows(self, number: int, data: ShardBytes, rows: IndexRows, found: Salvaged, rescue: Rescue) -> None:
        groups: dict[str, list[Group]] = {}
        for group in found.groups:
            groups.setdefault(group.key, []).append(group)
        columns = [rows.numbers[name].tolist() for name in ("label", "offset", "image_offset", "image_size", "crc32c")]
        for key, path, label, offset, start, size, crc in zip(rows.keys, rows.paths, *columns, strict=True):
            parts, why = self._sample(data, groups.get(key, []), start, size, crc)
            if parts is None:
                rescue.left_out.append(LeftOut(data.place, offset, key, path, why))
                continue
            located = [(number, *part) for part in parts]
            rescue.samples.append(Rescued(key, path, label, offset, located, indexed=True))
        known = set(rows.keys)
        extra = [group for group in found.groups if group.key not in known]
        self._by_members(number, data, extra, found.suspects, rescue)

    def _sample(
        self, data: ShardBytes, groups: Sequence[Group], start: int, size: int, crc: int
    ) -> tuple[list[tuple[str, int, int]] | None, str]:
        """(fields of a sample whose image has this CRC, or None; why not)."""
        if start < 0:
            return (_parts(groups[0].fields), "") if groups else (None, "it is not in the shard any more")
        for group in groups:
            for name, (begin, length) in group.fields.items():
                if name in IMAGE_FIELDS and length == size and crc32c(data.view[begin : begin + length]) == crc:
                    return self._looked_at(data, _parts(group.fields))
        if start + size <= len(data) and crc32c(data.view[start : start + size]) == crc:
            return self._without_header(data, start, size)
        if not groups:
            return None, "it is not in the shard any more, or its header is damaged together with its image"
        return None, "the image is damaged: its CRC-32C is not the one in the index"

    def _without_header(self, data: ShardBytes, start: int, size: int) -> tuple[list[tuple[str, int, int]] | None, str]:
        """The image's bytes are whole where the index says, and the header before them is not."""
        names = [] if self.manifest is None else [name for name in self.manifest.fields if name != "cls"]
        if self.manifest is not None and len([name for name in names if name not in IMAGE_FIELDS]):
            return None, "a header is damaged, and with it fields that the index does not know"
        name = names[0] if len(names) == 1 else field_of_image(bytes(data.buffer[start : start + size]))
        return self._looked_at(data, [(name, start, size)])

    def _looked_at(
        self, data: ShardBytes, parts: list[tuple[str, int, int]]
    ) -> tuple[list[tuple[str, int, int]] | None, str]:
        reason = _bad_image(data, parts, check_image) if self.decode else ""
        return (None, reason) if reason else (parts, "")

    def _by_members(
        self, number: int, data: ShardBytes, groups: Sequence[Group], suspects: set[str], rescue: Rescue
    ) -> None:
        """Samples that no index vouches for: as their members are."""
        usual = _usual_shape(groups)
        look = check_image if self.decode else image_header
        for group in groups:
            image = next((name for name in group.fields if name in IMAGE_FIELDS), "")
            member = f"{group.key}.{image}" if image else group.key
            path = text_of_path(member.encode("utf-8", "surrogateescape"))
            parts = _parts(group.fields)
            label, reason = self._label(data, group)
            if not reason and group.key in suspects and _shape(group) != usual:
                reason = "a member of it was lost in the damage beside it"
            reason = reason or _bad_image(data, parts, look)
            if reason:
                rescue.left_out.append(LeftOut(data.place, group.start, group.key, path, reason))
                continue
            located = [(number, *part) for part in parts]
            rescue.samples.append(Rescued(group.key, path, label, group.start, located, split=group.split))

    def _label(self, data: ShardBytes, group: Group) -> tuple[int, str]:
        if "cls" not in group.fields:
            return NO_LABEL, ""
        start, size = group.fields["cls"]
        label = label_of(bytes(data.buffer[start : start + size]))
        classes = self.manifest.classes if self.manifest is not None else ()
        if label < 0 or (classes and label >= len(classes)):
            return label, "its cls is not a class number of this dataset"
        return label, ""

    def _note_unproven(self, shard: ShardPlace, data: ShardBytes, rescue: Rescue) -> None:
        """Fields beside image and label have no checksum of their own."""
        if shard.entry is None or self.manifest is None:
            return
        others = [name for name in self.manifest.fields if name not in IMAGE_FIELDS and name != "cls"]
        crc = data.summer()(0, len(data)) if data.crc32c is None else data.crc32c
        if others and f"{crc:08x}" != shard.entry.crc32c:
            names = ", ".join(others)
            fact = f"the shard's CRC-32C is wrong, and the fields {names} have none: they are taken as they are"
            rescue.notes.append(f"{data.place}: {fact}")


def _parts(fields: dict[str, tuple[int, int]]) -> list[tuple[str, int, int]]:
    return [(name, start, size) for name, (start, size) in fields.items() if name != "cls"]


def _shape(group: Group) -> frozenset[str]:
    return frozenset("image" if name in IMAGE_FIELDS else name for name in group.fields)


def _usual_shape(groups: Sequence[Group]) -> frozenset[str]:
    counts = Counter(map(_shape, groups))
    return max(counts, key=lambda shape: (counts[shape], len(shape))) if counts else frozenset()


def _bad_image(
    data: ShardBytes, parts: Sequence[tuple[str, int, int]], look: Callable[[bytes], tuple[str, int, int]]
) -> str:
    """Why an image of the sample is none; "" where all are good, or it has none."""
    for name, start, size in parts:
        if name in IMAGE_FIELDS:
            try:
                look(bytes(data.buffer[start : start + size]))
            except ValueError as exc:
                return f"{name}: {exc}"
    return ""
