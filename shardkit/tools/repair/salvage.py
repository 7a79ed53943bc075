"""Decide which samples of a shard are intact, and why the others are not.

A sample proven by its own checksums is taken as it is. Other samples are checked against the index, if there is one, by
the CRC-32C of the image; an image that is intact where the index places it is recovered even if the bytes around it are
not. Samples that are not in the index are taken as they are, if their images look valid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError
from shardkit.formats.format import FORMATS
from shardkit.formats.protocol import Gap, SalvagedSample
from shardkit.formats.tfrecord.salvage import Record
from shardkit.images.header import check_image, image_header
from shardkit.sample import BAD_LABEL, IMAGE_FIELDS, NO_LABEL, label_of, text_of_path
from shardkit.shards.manifest import Manifest
from shardkit.shards.open import IndexRows, ShardPlace
from shardkit.shards.scan import ShardBytes, open_shard
from shardkit.tools.repair.salvaged import LeftOut, Salvage, Salvaged, field_of_image

Parts = list[tuple[str, int, int]]
"""(field, first byte, length) of each piece."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why an indexed sample is omitted. `unlisted`: there is no sample, and the index lists no image for it."""

    gone: str
    unlisted: str
    changed: str
    lost_fields: str
    label: str


OF_MEMBERS = Reasons(
    "it is no longer in the shard, or both its header and its image are damaged",
    "it is no longer in the shard",
    "the image is damaged: its CRC-32C is not the one in the index",
    "a header is damaged, and with it fields that are not in the index",
    "its cls is not a class number of this dataset",
)
OF_RECORDS = Reasons(
    "its record is damaged or missing",
    "its record is damaged or missing",
    "its image is not the one in the index",
    "its record is damaged, and with it fields that are not in the index",
    "its label is not a class number of this dataset",
)


@dataclass(frozen=True, slots=True)
class Salvager:
    """Recovers the shards of one dataset; may be called from several threads."""

    manifest: Manifest | None
    decode: bool

    def __call__(self, task: tuple[int, ShardPlace]) -> Salvage:
        """Recover what is intact in a shard: by the CRCs of the index, or as far as can be known without one."""
        number, shard = task
        rows = shard.rows()
        try:
            data = open_shard(shard.location, as_far=True)
        except ShardkitError as exc:
            named = () if rows is None else zip(rows.keys, rows.paths, strict=True)
            reason = f"the shard can't be read: {exc.fact}"
            left_out = [LeftOut(str(shard.location), None, key, path, reason) for key, path in named]
            return Salvage(left_out=left_out, notes=[str(exc)])
        salvage = Salvage(notes=[] if data.error is None else [str(data.error)])
        _ShardSalvage(self.manifest, self.decode, number, data, salvage).take(shard, rows)
        return salvage


@dataclass(frozen=True, slots=True)
class _ShardSalvage:
    """Recovers one shard, with this number, into `salvage`."""

    manifest: Manifest | None
    decode: bool
    number: int
    data: ShardBytes
    salvage: Salvage

    @property
    def proven(self) -> bool:
        """Whether samples have their own checksums."""
        return FORMATS[self.data.format].checks_itself

    @property
    def reasons(self) -> Reasons:
        return OF_RECORDS if self.proven else OF_MEMBERS

    def take(self, shard: ShardPlace, rows: IndexRows | None) -> None:
        """Take everything intact: by the index rows, or as far as can be known without them."""
        found = FORMATS[self.data.format].salvage(self.data)
        self.salvage.notes += map(str, found.damage)
        for sample in found.samples:
            if sample.record is not None and sample.record.text and sample.record.label >= 0:
                self.salvage.texts.setdefault(sample.record.label, sample.record.text)
        if rows is not None:
            self._take_indexed(rows, found.samples)
        known = set() if rows is None else set(rows.keys)
        others = [sample for sample in found.samples if sample.key not in known]
        self._take_others(others, found.samples, found.suspects)
        if rows is None:
            self._list_gaps(found.gaps)
        elif not self.proven:
            self._note_unproven(shard)

    # ---- with an index

    def _take_indexed(self, rows: IndexRows, samples: Sequence[SalvagedSample]) -> None:
        """Take each indexed sample, or list it as omitted."""
        of_key: dict[str, list[SalvagedSample]] = {}
        for sample in samples:
            of_key.setdefault(sample.key, []).append(sample)
        columns = [rows.numbers[name].tolist() for name in ("label", "offset", "image_offset", "image_size", "crc32c")]
        each = zip(rows.keys, rows.paths, *columns, strict=True)
        for row, (key, path, label, offset, start, size, crc) in enumerate(each):
            same = of_key.get(key, [])
            own = next((one for one in same if self._has_image(one, start, size, crc)), None)
            if own is not None and own.record is not None:
                why = self._bad_label(own.record) or self._undecodable(_parts(own))
                self._keep_record(own.record, why, label, row)
                continue
            if own is not None:
                parts = _parts(own)
                why = self._undecodable(parts) if start >= 0 else ""
            else:
                parts, why = self._image_alone(start, size, crc, has_sample=bool(same))
            self._keep(Salvaged(key, path, label, offset, self._located(parts), indexed=True, row=row), why)

    def _has_image(self, sample: SalvagedSample, start: int, size: int, crc: int) -> bool:
        """Whether the sample holds the image that the index describes; if it describes none, the record has none."""
        images = [place for name, place in sample.fields.items() if name in IMAGE_FIELDS]
        if start < 0:
            return not (sample.record is not None and images)
        return any(length == size and self._crc(first, length) == crc for first, length in images)

    def _image_alone(self, start: int, size: int, crc: int, *, has_sample: bool) -> tuple[Parts, str]:
        """Return (the image, if its bytes are intact at their place; the reason if that is not enough)."""
        if start < 0 and not has_sample:
            return [], self.reasons.unlisted
        if start < 0 or start + size > len(self.data) or self._crc(start, size) != crc:
            return [], self.reasons.changed if has_sample else self.reasons.gone
        names = [] if self.manifest is None else [name for name in self.manifest.fields if name != "cls"]
        if any(name not in IMAGE_FIELDS for name in names) or (self.proven and self.manifest is None):
            return [], self.reasons.lost_fields
        name = names[0] if len(names) == 1 else field_of_image(self._bytes(start, size))
        parts = [(name, start, size)]
        return parts, self._undecodable(parts)

    def _note_unproven(self, shard: ShardPlace) -> None:
        """Note that fields other than image and label have no checksum of their own."""
        if shard.entry is None or self.manifest is None:
            return
        data = self.data
        others = [name for name in self.manifest.fields if name not in IMAGE_FIELDS and name != "cls"]
        crc = data.summer()(0, len(data)) if data.crc32c is None else data.crc32c
        if others and f"{crc:08x}" != shard.entry.crc32c:
            names = ", ".join(others)
            fact = f"the shard's CRC-32C is wrong, and the fields {names} have none: they are taken as they are"
            self.salvage.notes.append(f"{data.place}: {fact}")

    # ---- without an index

    def _take_others(
        self, samples: Sequence[SalvagedSample], every: Sequence[SalvagedSample], suspects: set[str]
    ) -> None:
        """Take samples that are not in the index as they are."""
        usual = _usual_shape(samples)
        with_image = 2 * sum(bool(sample.fields) for sample in every) > len(every)
        for sample in samples:
            if sample.record is not None:
                self._keep_record(sample.record, self._why_not(sample, sample.record, with_image), None)
                continue
            label, why = self._label(sample)
            if not why and sample.key in suspects and _shape(sample) != usual:
                why = "one of its members was lost in the damage next to it"
            parts = _parts(sample)
            whole = Salvaged(sample.key, _path(sample), label, sample.start, self._located(parts), split=sample.split)
            self._keep(whole, why or self._bad_image(parts, check_image if self.decode else image_header))

    def _why_not(self, sample: SalvagedSample, record: Record, with_image: bool) -> str:
        """Why a record is omitted; "" if it is not."""
        if reason := self._bad_label(record):
            return reason
        if not record.image:
            return "it has no image, and the others have one" if with_image else ""
        return self._bad_image(_parts(sample), check_image if self.decode else image_header)

    def _list_gaps(self, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            where = f"{gap.error.fact}; the next intact record is at byte {gap.end}"
            fact = gap.error.fact if gap.end >= len(self.data) else where
            self.salvage.left_out.append(LeftOut(self.data.place, gap.start, gap.key or "(not known)", gap.path, fact))

    # ---- single samples

    def _keep(self, sample: Salvaged, why_not: str) -> None:
        """Take a sample, or list it as omitted."""
        if why_not:
            self.salvage.left_out.append(LeftOut(self.data.place, sample.byte, sample.key, sample.path, why_not))
        else:
            self.salvage.samples.append(sample)

    def _keep_record(self, record: Record, why_not: str, label: int | None, row: int = -1) -> None:
        """Take a record, or list it as omitted. label: the index's, for records without one; None without an index."""
        own = record.label if label is None or "cls" in record.fields else label
        sample = Salvaged(record.key, record.path, own, record.offset, [], label is not None, row=row)
        sample.record = self.number, record
        self._keep(sample, why_not)

    def _label(self, sample: SalvagedSample) -> tuple[int, str]:
        """Return (the label in a sample's `cls`, the reason if it is not valid)."""
        if "cls" not in sample.fields:
            return NO_LABEL, ""
        label = label_of(self._bytes(*sample.fields["cls"]))
        return label, self.reasons.label if label < 0 or self._beyond_classes(label) else ""

    def _bad_label(self, record: Record) -> str:
        return self.reasons.label if record.label == BAD_LABEL or self._beyond_classes(record.label) else ""

    def _beyond_classes(self, label: int) -> bool:
        classes = self.manifest.classes if self.manifest is not None else ()
        return bool(classes) and label >= len(classes)

    def _undecodable(self, parts: Parts) -> str:
        """With `decode`, why an image can't be decoded."""
        return self._bad_image(parts, check_image) if self.decode else ""

    def _bad_image(self, parts: Parts, look: Callable[[bytes], tuple[str, int, int]]) -> str:
        """Why an image of the sample is invalid; "" if all are valid or there are none."""
        for name, start, size in parts:
            if name in IMAGE_FIELDS:
                try:
                    look(self._bytes(start, size))
                except ValueError as exc:
                    return f"{name}: {exc}"
        return ""

    def _located(self, parts: Parts) -> list[tuple[int, str, int, int]]:
        return [(self.number, *part) for part in parts]

    def _bytes(self, start: int, size: int) -> bytes:
        return bytes(self.data.buffer[start : start + size])

    def _crc(self, start: int, size: int) -> int:
        return int(crc32c(self.data.view[start : start + size]))


def _parts(sample: SalvagedSample) -> Parts:
    return [(name, start, size) for name, (start, size) in sample.fields.items() if name != "cls"]


def _path(sample: SalvagedSample) -> str:
    """The path of a sample's file, from its member's name."""
    image = next((name for name in sample.fields if name in IMAGE_FIELDS), "")
    member = f"{sample.key}.{image}" if image else sample.key
    return text_of_path(member.encode("utf-8", "surrogateescape"))


def _shape(sample: SalvagedSample) -> frozenset[str]:
    return frozenset("image" if name in IMAGE_FIELDS else name for name in sample.fields)


def _usual_shape(samples: Sequence[SalvagedSample]) -> frozenset[str]:
    counts = Counter(map(_shape, samples))
    return max(counts, key=lambda shape: (counts[shape], len(shape))) if counts else frozenset()
