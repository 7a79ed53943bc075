"""What every format of shards has to do."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.errors import DamagedError, ManifestError, UsageError
from shardkit.formats.format import FORMATS, Format, format_named, format_of_head, format_of_name, require_names_fit
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.shards.scan import ShardBytes

KEYS = st.lists(st.text("abc/ä-_ 1", min_size=1, max_size=120), unique=True, min_size=1, max_size=6).map(
    lambda keys: [key for key in keys if not key.startswith("_") and not key.endswith("/")]
)
FIELDS = st.dictionaries(st.sampled_from(["jpg", "json", "seg.png", "txt"]), st.binary(max_size=2000), min_size=1)
Samples = list[tuple[str, dict[str, bytes]]]


def shard_of(form: Format, samples: Samples) -> bytes:
    pieces: list[bytes] = []
    for key, fields in samples:
        parts, _, size = form.encode(key, list(fields.items()), f"{key}.jpg".encode(), "cat")
        assert sum(map(len, parts)) == size
        pieces += parts
    return b"".join([*pieces, form.end])


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
class TestFormat:
    @given(keys=KEYS, data=st.data())
    def test_what_is_written_is_read(self, form: Format, keys: list[str], data: st.DataObject) -> None:
        samples = [(key, data.draw(FIELDS)) for key in keys]
        shard = shard_of(form, samples)
        found = [(s.key, form.fields(shard, s)) for s in form.read(shard, place="x")]
        assert found == samples
        assert [list(fields) for _, fields in found] == [list(fields) for _, fields in samples]
        assert list(form.stream(io.BytesIO(shard), place="x")) == samples

    @given(keys=KEYS, data=st.data())
    def test_offsets_and_sizes_are_those_of_the_bytes(self, form: Format, keys: list[str], data: st.DataObject) -> None:
        samples = [(key, data.draw(FIELDS)) for key in keys]
        shard = shard_of(form, samples)
        at = 0
        for sample, (key, fields) in zip(form.read(shard, place="x"), samples, strict=True):
            _, offsets, size = form.encode(key, list(fields.items()), f"{key}.jpg".encode(), "cat")
            lengths = [(name, len(value)) for name, value in fields.items()]
            assert form.size(key, lengths, f"{key}.jpg".encode(), "cat", 0) == size
            assert (sample.offset, sample.size) == (at, size)
            for offset, (name, value) in zip(offsets, fields.items(), strict=True):
                assert sample.fields[name] == (at + offset, len(value))
                assert shard[at + offset : at + offset + len(value)] == value
            [again] = form.read(shard, place="x", start=at, end=at + size)
            assert again.key == key
            at += size

    @given(keys=KEYS, data=st.data())
    def test_a_sample_is_described_alike_mapped_and_from_a_stream(
        self, form: Format, keys: list[str], data: st.DataObject
    ) -> None:
        samples = [(key, data.draw(FIELDS)) for key in keys]
        shard = shard_of(form, samples)
        described = [form.describe(shard, sample) for sample in form.read(shard, place="x")]
        for told, (key, fields) in zip(described, samples, strict=True):
            assert (told.key, sorted(told.names)) == (key, sorted(fields))
            assert told.image == ("jpg" if "jpg" in fields else "")
            if told.image:
                assert shard[told.image_offset : told.image_offset + told.image_size] == fields["jpg"]
        streamed = list(form.stream_described(io.BytesIO(shard), place="x"))
        for mapped, other in zip(described, streamed, strict=True):
            assert (other.offset, other.image_offset) == (-1, -1)
            same = [(one.key, list(one.names), one.image, one.image_size, one.cls, one.path, one.text)
                    for one in (mapped, other)]  # fmt: skip
            assert same[0] == same[1]

    @given(keys=KEYS, data=st.data())
    def test_all_of_a_sound_shard_is_salvaged(self, form: Format, keys: list[str], data: st.DataObject) -> None:
        shard = shard_of(form, [(key, data.draw(FIELDS)) for key in keys])
        found = form.salvage(ShardBytes("x", shard, len(shard), format=form.name))
        assert [sample.key for sample in found.samples] == keys
        assert (found.damage, found.gaps, found.suspects) == ([], [], set())
        assert all((sample.record is not None) == form.checks_itself for sample in found.samples)

    def test_what_a_damaged_sample_leaves_is_salvaged_behind_it(self, form: Format) -> None:
        shard = bytearray(shard_of(form, [(f"k{n}", {"jpg": bytes(900), "cls": b"1"}) for n in range(3)]))
        shard[0:12] = bytes(12)  # the first header
        found = form.salvage(ShardBytes("x", bytes(shard), len(shard), format=form.name))
        assert [sample.key for sample in found.samples][-2:] == ["k1", "k2"]
        assert len(found.damage) == 1

    def test_a_field_that_is_cut_is_damage_and_not_salvaged(self, form: Format) -> None:
        shard = shard_of(form, [(f"k{n}", {"jpg": bytes(2000)}) for n in range(2)])
        size = form.size("k0", [("jpg", 2000)], b"k0.jpg", "", -1)
        cut = shard[: size + 1000]
        found = form.salvage(ShardBytes("x", cut, len(cut), format=form.name))
        assert [sample.key for sample in found.samples] == ["k0"]
        assert len(found.damage) == 1

    def test_the_most_that_is_added_is_not_too_little(self, form: Format) -> None:
        key, fields = "d/" + "k" * 150, {"jpg": 0, "cls": 1, "a.txt": 0}
        size = form.size(key, list(fields.items()), f"{key}.jpg".encode(), "cat", 1)
        names = np.array([2 * len(key) + 4], np.int64)
        assert form.most_added_bytes(names, len(fields) + 4)[0] + len("cat") + 10 >= size
        assert form.most_key_bytes([key]).shape == (1,)

    def test_a_label_comes_back_as_its_number(self, form: Format) -> None:
        shard = shard_of(form, [("a", {"jpg": b"x", "cls": b"7"})])
        [sample] = form.read(shard, place="x")
        assert int(form.fields(shard, sample)["cls"]) == 7

    def test_an_empty_shard_has_no_samples(self, form: Format) -> None:
        assert list(form.read(form.end, place="x")) == []
        assert list(form.stream(io.BytesIO(form.end), place="x")) == []

    @pytest.mark.parametrize("cut", [1, 100, 600, -30])
    def test_a_cut_shard_is_reported_with_its_place_and_byte(self, form: Format, cut: int) -> None:
        shard = shard_of(form, [(f"k{n}", {"jpg": bytes(700), "cls": b"1"}) for n in range(3)])
        cut_shard = shard[: len(shard) - len(form.end) + cut if cut < 0 else cut]
        for read in (form.read, lambda data, place: form.stream(io.BytesIO(data), place=place)):
            with pytest.raises(DamagedError, match=r"^x: at byte \d+: "):
                list(read(cut_shard, place="x"))

    @given(data=st.binary(min_size=1, max_size=3000))
    def test_any_bytes_are_samples_or_damage(self, form: Format, data: bytes) -> None:
        with pytest.raises(DamagedError):
            list(form.read(data, place="x"))

    @given(at=st.integers(0, 5000), flip=st.integers(1, 255))
    def test_a_flipped_byte_gives_the_samples_or_damage_and_nothing_else(
        self, form: Format, at: int, flip: int
    ) -> None:
        shard = bytearray(shard_of(form, [(f"k{n}", {"jpg": bytes(900), "cls": b"1"}) for n in range(3)]))
        shard[at % len(shard)] ^= flip
        try:
            list(form.read(bytes(shard), place="x"))
        except DamagedError:
            return
        assert form.name == "tar"  # which has no checksum of its data

    def test_the_suffix_and_the_first_bytes_tell_the_format(self, form: Format) -> None:
        shard = shard_of(form, [("a", {"jpg": b"x"})])
        assert format_of_name(f"train-000000{form.suffix}") == form.name
        assert format_of_head(shard[:512]) == form.name
        assert format_named(form.name, "x") is form

    @pytest.mark.parametrize(("key", "fields"), [("", {"jpg": b""}), ("k", {})])
    def test_what_can_not_be_read_back_is_refused(self, form: Format, key: str, fields: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"."):
            form.encode(key, list(fields.items()), b"", "")


def test_a_format_of_a_later_version_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"train.json: its shards have the format 'zip', and this shardkit reads"):
        format_named("zip", "train.json")


def test_names_of_features_need_features() -> None:
    with pytest.raises(UsageError, match="image_field= and label_field= name features of TFRecord shards"):
        require_names_fit(FORMATS["tar"], FieldNames("img"), "x.tar")
    require_names_fit(FORMATS["tfrecord"], FieldNames("img"), "x")
    require_names_fit(FORMATS["tar"], None, "x")
