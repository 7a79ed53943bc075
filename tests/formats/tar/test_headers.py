from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardkit.formats.tar.headers import BLOCK, MAX_OCTAL_SIZE, header_size, member_header
from shardkit.formats.tar.samples import END, TarSample, encode_sample, read_samples, sample_size


def is_gnu_tar() -> bool:
    if shutil.which("tar") is None:
        return False
    return b"GNU tar" in subprocess.run(["tar", "--version"], capture_output=True, check=False).stdout


needs_tar = pytest.mark.skipif(not is_gnu_tar(), reason="needs GNU tar")
needs_bsdtar = pytest.mark.skipif(shutil.which("bsdtar") is None, reason="needs bsdtar")

ODD_KEYS = [
    "0",
    "cat/0001",
    "sp ace/and\ttab",
    "new\nline/a\nb",
    "ünïcode/日本語/ключ",
    "e\u0301 combining",
    "back\\slash",
    "dotted.folder/name",
    "-dash",
    "quote'\"",
    "__x__",
    "__a/b",
    "n" * 96,
    "n" * 97,
    "n" * 200,
    "c" * 251,
    "f/" + "c" * 96,
    "f/" + "c" * 97,
    "p" * 155 + "/" + "n" * 96,
    "p" * 155 + "/" + "n" * 97,
    "p" * 156 + "/" + "n" * 96,
    "a/" * 77 + "n" * 96,
    "deep/" * 200 + "name",
    "é" * 48,
    "é" * 49,
    "日" * 100,
]
NAME_BYTES, PREFIX_BYTES = 100, 155  # ustar's fields
FIELDS = [("jpg", b"J" * 600), ("cls", b"7")]


def encoded(key: str, fields: list[tuple[str, bytes]] = FIELDS) -> bytes:
    return b"".join(encode_sample(key, fields)[0])


def archive() -> bytes:
    return b"".join(encoded(key) for key in ODD_KEYS) + END


def can_be_a_path(key: str) -> bool:
    return len(key) < 400 and all(len(part.encode()) <= 251 for part in key.split("/"))


def test_the_bytes_of_a_sample_are_pinned() -> None:
    header = (
        b"cat/0001.cls".ljust(100, b"\0") + b"0000644\0"
        b"0000000\0"
        b"0000000\0"
        b"00000000001\0"
        b"00000000000\0"
        b"011026\0 "
        b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0"
        b"0000000\0" + bytes(167)
    )
    assert encoded("cat/0001", [("cls", b"7")]) == header + b"7" + bytes(511)


def test_the_bytes_of_a_shard_of_odd_names_are_pinned() -> None:
    assert hashlib.sha256(archive()).hexdigest() == "0160cfb2b83bb7c17d230316a43e2ac87fd240ac69874bf2a9eb32216f750386"


def test_the_end_mark_is_two_blocks_of_zeros() -> None:
    assert bytes(1024) == END


def test_the_fields_bytes_are_not_copied() -> None:
    data = b"J" * 600
    pieces, offsets, size = encode_sample("a", [("jpg", data), ("cls", b"1")])
    assert any(piece is data for piece in pieces)
    joined = b"".join(pieces)
    assert (len(joined), offsets) == (size, (512, 2048))
    assert [joined[at : at + n] for at, n in zip(offsets, (600, 1), strict=True)] == [data, b"1"]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_sample_of_an_odd_name_is_read_back_where_it_was_said_to_be(key: str) -> None:
    pieces, offsets, size = encode_sample(key, FIELDS)
    (sample,) = read_samples(b"".join(pieces) + END, place="s.tar")
    assert sample == TarSample(key, 0, size, {"jpg": (offsets[0], 600), "cls": (offsets[1], 1)})


COMPONENT = st.text(st.characters(exclude_characters="/.\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
KEYS = st.lists(COMPONENT, min_size=1, max_size=5).map("/".join).filter(lambda key: not key.startswith("__"))
FIELD = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-é", min_size=1, max_size=12)
CONTENT = st.lists(st.tuples(FIELD, st.binary(max_size=1100)), min_size=1, max_size=4, unique_by=lambda pair: pair[0])


@given(KEYS, CONTENT)
@example("p" * 155 + "/" + "n" * 96, [("jpg", b""), ("json", b"{}")])
def test_any_sample_is_read_back(key: str, fields: list[tuple[str, bytes]]) -> None:
    pieces, offsets, size = encode_sample(key, fields)
    data = b"".join(pieces)
    expected = {field: (at, len(value)) for (field, value), at in zip(fields, offsets, strict=True)}
    assert list(read_samples(data, place="s.tar", start=0, end=len(data))) == [TarSample(key, 0, size, expected)]
    assert all(data[at : at + n] == dict(fields)[field] for field, (at, n) in expected.items())
    assert len(data) == size == sample_size(key, [(field, len(value)) for field, value in fields])


@given(KEYS, CONTENT)
def test_any_sample_is_read_by_python_tarfile(key: str, fields: list[tuple[str, bytes]]) -> None:
    data = encoded(key, fields) + END
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = [(info.name, info.mode, info.mtime, info.uid, info.uname, info.size) for info in tar]
    assert found == [(f"{key}.{field}", 0o644, 0, 0, "", len(value)) for field, value in fields]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, MAX_OCTAL_SIZE, MAX_OCTAL_SIZE + 1, 1 << 40])
@pytest.mark.parametrize("name", ["a.jpg", "d/" + "n" * 120 + ".jpg", "p" * 150 + "/" + "n" * 90 + ".jpg"])
def test_headers_of_any_size_are_understood_by_python_tarfile(name: str, size: int) -> None:
    header = member_header(name.encode(), size)
    with tarfile.open(fileobj=io.BytesIO(header), mode="r:") as tar:
        info = tar.next()
    assert info is not None
    assert (info.name, info.size, info.offset_data) == (name, size, len(header))
    assert header_size(name.encode(), size) == len(header)


def test_a_pax_header_stands_only_where_it_must() -> None:
    assert len(member_header(b"n" * 100, MAX_OCTAL_SIZE)) == 512
    assert len(member_header(b"n" * 101, 0)) == 1536
    assert len(member_header(b"p" * 155 + b"/" + b"n" * 100, 0)) == 512
    assert len(member_header(b"p" * 156 + b"/" + b"n" * 100, 0)) == 1536
    assert len(member_header(b"n", MAX_OCTAL_SIZE + 1)) == 1536
    assert len(member_header(b"n" * 600, 0)) == 2048


def test_the_size_of_a_huge_sample_is_known_without_its_data() -> None:
    assert sample_size("a", [("bin", 1 << 40), ("cls", 1)]) == (1 << 40) + 512 + 1024 + 1024


@pytest.mark.parametrize("key", ["n", "d/n", "é"])
@pytest.mark.parametrize("name_bytes", [NAME_BYTES - 1, NAME_BYTES, NAME_BYTES + 1])
def test_a_name_is_in_one_block_up_to_the_last_byte_of_its_field(key: str, name_bytes: int) -> None:
    for field in ("jpg", "cls", "f" * 12):
        width = name_bytes - len(key.encode()) - 1 - len(field)
        name = f"{key}{'n' * width}.{field}"
        assert len(name.encode()) == name_bytes
        pieces, offsets, size = encode_sample(name.rpartition(".")[0], [(field, b"7")])
        header = b"".join(pieces)[: offsets[0]]
        fits = name_bytes <= NAME_BYTES or "/" in name  # a folder moves into the prefix
        assert len(header) == (BLOCK if fits else 3 * BLOCK)
        assert header == member_header(name.encode(), 1)
        assert header[:NAME_BYTES].rstrip(b"\0").decode() == name or name_bytes > NAME_BYTES
        assert size == sample_size(name.rpartition(".")[0], [(field, 1)]) == len(header) + BLOCK


@pytest.mark.parametrize("key_bytes", [NAME_BYTES - 2, NAME_BYTES - 1, NAME_BYTES, NAME_BYTES + 1])
@pytest.mark.parametrize("folder", ["", "f/"])
def test_a_key_around_the_length_of_the_name_field_is_read_back(key_bytes: int, folder: str) -> None:
    key = folder + "k" * (key_bytes - len(folder))
    data = encoded(key) + END
    (sample,) = read_samples(data, place="s.tar")
    assert (sample.key, list(sample.fields), sample.size) == (key, ["jpg", "cls"], len(data) - len(END))
    assert sample.size == sample_size(key, [(field, len(value)) for field, value in FIELDS])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [f"{key}.jpg", f"{key}.cls"]


def test_the_prefix_and_the_name_are_full_to_their_last_bytes() -> None:
    for prefix, name, blocks in (
        (PREFIX_BYTES, NAME_BYTES, 1),
        (PREFIX_BYTES, NAME_BYTES + 1, 3),
        (PREFIX_BYTES + 1, NAME_BYTES, 3),
        (1, NAME_BYTES, 1),
    ):
        text = b"p" * prefix + b"/" + b"n" * name
        header = member_header(text, 0)
        assert len(header) == blocks * BLOCK
        with tarfile.open(fileobj=io.BytesIO(header + END)) as tar:
            assert [info.name.encode() for info in tar] == [text]


@needs_tar
def test_gnu_tar_unpacks_what_was_written(tmp_path: Path) -> None:
    keys = [key for key in ODD_KEYS if can_be_a_path(key)]
    (tmp_path / "s.tar").write_bytes(b"".join(encoded(key) for key in keys) + END)
    subprocess.run(["tar", "xf", "s.tar"], cwd=tmp_path, check=True)
    for key in keys:
        assert (tmp_path / f"{key}.jpg").read_bytes() == b"J" * 600
        assert (tmp_path / f"{key}.cls").read_bytes() == b"7"


@needs_tar
def test_gnu_tar_lists_what_was_written_without_a_word_of_complaint(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(archive())
    command = ["tar", "tf", "s.tar", "--quoting-style=literal"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert done.stderr == b""
    names = [f"{key}.{field}" for key in ODD_KEYS for field, _ in FIELDS]
    assert done.stdout.decode() == "".join(f"{name}\n" for name in names)


@needs_bsdtar
def test_bsdtar_unpacks_what_was_written(tmp_path: Path) -> None:
    keys = [key for key in ODD_KEYS if can_be_a_path(key)]
    (tmp_path / "s.tar").write_bytes(b"".join(encoded(key) for key in keys) + END)
    done = subprocess.run(["bsdtar", "xf", "s.tar"], cwd=tmp_path, check=True, capture_output=True)
    assert done.stderr == b""
    for key in keys:
        assert (tmp_path / f"{key}.jpg").read_bytes() == b"J" * 600


def test_webdataset_reads_what_was_written() -> None:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    members = tar_file_expander([{"url": "s.tar", "stream": io.BytesIO(archive())}])
    samples = [(s["__key__"], s["jpg"], s["cls"]) for s in group_by_keys(members)]
    assert samples == [(key, b"J" * 600, b"7") for key in ODD_KEYS]


@pytest.mark.parametrize(
    "key",
    ["", "/", "a/", "a.b", "a/b.c", "a\0b", ".hidden", "a/.b", "__x__/y", "____/y", "dot.ted\nline/x", "\udce9"],
)
def test_a_key_that_readers_would_not_give_back_is_refused(key: str) -> None:
    with pytest.raises(ValueError):
        encode_sample(key, FIELDS)
    with pytest.raises(ValueError):
        sample_size(key, [(field, len(data)) for field, data in FIELDS])


@pytest.mark.parametrize("field", ["JPG", "a/b", "a\0", "__key__", "\udce9", "É"])
def test_a_field_that_readers_would_not_give_back_is_refused(field: str) -> None:
    with pytest.raises(ValueError):
        encode_sample("a", [(field, b"")])
    with pytest.raises(ValueError):
        sample_size("a", [(field, 0)])


def test_a_member_that_readers_would_skip_is_refused() -> None:
    assert len(encoded("__a", [("b", b"")])) == 512
    with pytest.raises(ValueError, match="skip"):
        encode_sample("__a", [("b__", b"")])


@pytest.mark.parametrize("fields", [[], [("jpg", b"1"), ("jpg", b"2")]])
def test_a_sample_without_fields_or_with_one_twice_is_refused(fields: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ValueError, match="twice, or none"):
        encode_sample("a", fields)


def test_many_different_fields_are_written() -> None:
    fields = [(f"f{n}", b"%d" % n) for n in range(3000)]
    (sample,) = read_samples(encoded("a", fields) + END, place="s.tar")
    assert list(sample.fields) == [field for field, _ in fields]
