"""What every store has to do. A test class of a store inherits one of these, and says in `store` which store it is."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import pytest

from shardkit.errors import NotFoundError, StorageError, UsageError
from shardkit.storage.patient import Patient
from shardkit.storage.retry import Retry, call_with_retries
from shardkit.storage.store import Store, put_if, read

Fill = Callable[[str, bytes], None]

NAMES = ["a.tar", "with space.tar", "ünï/çode-図.tar", "per%20cent%.tar", "plus+and&.tar", "hash#.tar", "deep/er/x.tar",
         "what?.tar", "a=b,c;d@e!.tar", "-dash~_.tar", "[brackets]{braces}(x).tar", "quote'.tar"]  # fmt: skip

BIG = os.urandom(1 << 20) * 18 + b"the end"
"""More than one part of an upload."""


def content(store: Store, name: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(bytes(piece) for piece in store.pieces(name, start, end))


def names(store: Store, prefix: str = "") -> list[str]:
    return [info.name for info in store.list(prefix)]


class ReadContract:
    """What a store that is only read has to do."""

    tells_folders = True
    """Whether it tells a folder from an object."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def fill(self, store: Store) -> Fill:
        """Puts an object into the store."""
        return lambda name, data: store.put(name, io.BytesIO(data))

    def test_an_object_is_read_whole(self, store: Store, fill: Fill) -> None:
        fill("a.tar", b"0123456789")
        assert content(store, "a.tar") == b"0123456789"
        assert store.info("a.tar").name == "a.tar"
        assert store.info("a.tar").bytes == 10

    @pytest.mark.parametrize("name", NAMES)
    def test_any_name_is_read(self, store: Store, fill: Fill, name: str) -> None:
        fill(name, name.encode())
        assert content(store, name) == name.encode()
        assert store.info(name).bytes == len(name.encode())

    @pytest.mark.parametrize("span", [(0, 2), (0, 10), (3, 7), (9, 10), (0, None), (4, None)])
    def test_a_range_is_read_exactly(self, store: Store, fill: Fill, span: tuple[int, int | None]) -> None:
        fill("a.tar", b"0123456789")
        assert content(store, "a.tar", *span) == b"0123456789"[span[0] : span[1]]

    def test_the_first_byte_alone_is_read(self, store: Store, fill: Fill) -> None:
        fill("a.tar", b"0123456789")
        assert content(store, "a.tar", 0, 1) == b"0"

    @pytest.mark.parametrize("span", [(0, 0), (5, 5), (10, 10), (10, None)])
    def test_an_empty_range_is_empty(self, store: Store, fill: Fill, span: tuple[int, int | None]) -> None:
        fill("a.tar", b"0123456789")
        assert content(store, "a.tar", *span) == b""

    @pytest.mark.parametrize("span", [(0, 11), (5, 20), (10, 11), (11, 12), (11, 11), (11, None)])
    def test_a_range_beyond_the_end_is_an_error(self, store: Store, fill: Fill, span: tuple[int, int | None]) -> None:
        fill("a.tar", b"0123456789")
        with pytest.raises(StorageError, match=r"a\.tar: .*(beyond|and it has 10)"):
            content(store, "a.tar", *span)

    def test_a_range_that_is_none_is_an_error(self, store: Store, fill: Fill) -> None:
        fill("a.tar", b"0123456789")
        for span in ((5, 3), (-2, 4)):
            with pytest.raises((StorageError, UsageError)):
                content(store, "a.tar", *span)

    def test_an_empty_object_is_an_object(self, store: Store, fill: Fill) -> None:
        fill("empty", b"")
        assert store.info("empty").bytes == 0
        assert content(store, "empty") == b""

    def test_a_big_object_is_read_in_pieces(self, store: Store, fill: Fill) -> None:
        fill("big", BIG)
        pieces = [len(memoryview(piece)) for piece in store.pieces("big")]
        assert sum(pieces) == len(BIG)
        assert len(pieces) > 1
        assert min(pieces) > 0
        assert content(store, "big", 1_000_000, 15_000_000) == BIG[1_000_000:15_000_000]
        assert read(Patient(store), "big", 5, len(BIG)) == BIG[5:]

    def test_a_stream_can_be_left_in_the_middle(self, store: Store, fill: Fill) -> None:
        fill("big", BIG)
        stream = iter(store.pieces("big"))
        first = bytes(next(stream))
        assert first == BIG[: len(first)]
        del stream
        assert content(store, "big", len(BIG) - 7) == b"the end"

    def test_a_missing_object_is_not_found(self, store: Store, fill: Fill) -> None:
        fill("here/a", b"x")
        for name in ("nowhere", "here/a/b", "here/b", *(["here"] if self.tells_folders else [])):
            with pytest.raises(NotFoundError, match=name):
                store.info(name)
            with pytest.raises(NotFoundError, match=name):
                content(store, name)
            with pytest.raises(NotFoundError, match=name):
                content(store, name, 0, 5)

    @pytest.mark.parametrize("name", ["", "../a", "a/../b", "/a", "a//b", "a/", ".", "a\0b"])
    def test_a_name_that_leads_elsewhere_is_refused(self, store: Store, name: str) -> None:
        for act in (store.info, lambda name: content(store, name)):
            with pytest.raises(UsageError):
                act(name)

    def test_many_threads_read_at_once(self, store: Store, fill: Fill) -> None:
        fill("big", BIG)
        spans = [(n * 1_000_003, n * 1_000_003 + 2_000_000) for n in range(16)]
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(lambda span: content(store, "big", *span), spans))
        assert parts == [BIG[start:end] for start, end in spans]

    def test_the_store_says_where_it_is(self, store: Store) -> None:
        assert str(store.root) in repr(store)


class StoreContract(ReadContract):
    """What a store that is written to has to do."""

    keeps_crc32c = False
    """Whether it gives back the checksum that `put` was given."""
    replaces_at_once = True
    """Whether the server does: not all that are made for tests do."""

    def test_an_object_is_replaced_whole(self, store: Store) -> None:
        store.put("a", io.BytesIO(b"first, and longer"))
        before = store.info("a")
        store.put("a", io.BytesIO(b"second"))
        assert content(store, "a") == b"second"
        assert before.version is not None
        assert store.info("a").version not in (None, before.version)

    has_conditions = True
    """Whether it writes on a condition. Not all servers that are made for tests do."""

    def test_an_object_is_made_once(self, store: Store) -> None:
        if not self.has_conditions:
            pytest.skip("the server ignores conditions")
        version = put_if(store, "deep/claim", b"first", version=None)
        assert version is not None
        assert put_if(store, "deep/claim", b"another", version=None) is None
        assert content(store, "deep/claim") == b"first"
        assert store.info("deep/claim").version in (version, None)

    def test_an_object_is_replaced_only_if_it_is_the_one_that_was_read(self, store: Store) -> None:
        if not self.has_conditions:
            pytest.skip("the server ignores conditions")
        first = put_if(store, "claim", b"first", version=None)
        second = put_if(store, "claim", b"the second", version=first)
        assert second not in (None, first)
        assert put_if(store, "claim", b"a late third", version=first) is None
        assert content(store, "claim") == b"the second"
        assert put_if(store, "claim", b"number three", version=second) is not None
        assert content(store, "claim") == b"number three"
        assert names(store) == ["claim"]

    def test_what_is_not_there_has_no_version_to_replace(self, store: Store) -> None:
        if not self.has_conditions:
            pytest.skip("the server ignores conditions")
        first = put_if(store, "claim", b"first", version=None)
        store.delete("claim")
        assert put_if(store, "claim", b"second", version=first) is None
        assert names(store) == []

    def test_one_of_many_writers_makes_an_object(self, store: Store) -> None:
        if not self.has_conditions:
            pytest.skip("the server ignores conditions")

        def write(number: int) -> bool:
            data = b"%02d" % number
            return call_with_retries(lambda: put_if(store, "claim", data, version=None), Retry()) is not None

        with ThreadPoolExecutor(8) as pool:
            won = [number for number, written in enumerate(pool.map(write, range(16))) if written]
        assert len(won) == 1
        assert content(store, "claim") == b"%02d" % won[0]

    def test_data_is_read_from_where_it_stands(self, store: Store) -> None:
        data = io.BytesIO(b"0123456789")
        data.seek(4)
        store.put("a", data)
        assert content(store, "a") == b"456789"

    def test_a_file_that_gives_little_at_a_time_is_written_whole(self, store: Store) -> None:
        class Slow(io.BytesIO):
            def read(self, count: int | None = -1) -> bytes:
                return super().read(300_000 if count is None or count < 0 else min(count, 300_000))

        store.put("big", Slow(BIG))
        assert content(store, "big") == BIG

    def test_a_checksum_is_kept_or_not_known(self, store: Store) -> None:
        crc = f"{google_crc32c.value(b'0123456789'):08x}"
        store.put("a", io.BytesIO(b"0123456789"), crc32c=crc)
        assert store.info("a").crc32c == (crc if self.keeps_crc32c else None)
        store.put("big", io.BytesIO(BIG), crc32c="0123abcd")
        assert store.info("big").crc32c in (
            "0123abcd" if self.keeps_crc32c else None,
            f"{google_crc32c.value(BIG):08x}",
        )

    def test_the_list_is_sorted_and_deep(self, store: Store) -> None:
        for name in NAMES:
            store.put(name, io.BytesIO(name.encode()))
        assert names(store) == sorted(NAMES, key=str.encode)
        assert {info.name: info.bytes for info in store.list()} == {name: len(name.encode()) for name in NAMES}

    def test_a_prefix_need_not_be_a_folder(self, store: Store) -> None:
        for name in ("train-0", "train-1", "train/x", "trai", "val", "deep/train-2", "deep/train-3", "deep/trap/4"):
            store.put(name, io.BytesIO(b"x"))
        assert names(store, "train") == ["train-0", "train-1", "train/x"]
        assert names(store, "train/") == ["train/x"]
        assert names(store, "deep/tra") == ["deep/train-2", "deep/train-3", "deep/trap/4"]
        assert names(store, "deep/train-2") == ["deep/train-2"]
        assert names(store, "nowhere/x") == []

    def test_an_object_that_is_deleted_is_gone(self, store: Store) -> None:
        store.put("deep/a", io.BytesIO(b"x"))
        store.put("deep/b", io.BytesIO(b"x"))
        store.delete("deep/a")
        assert names(store) == ["deep/b"]
        with pytest.raises(NotFoundError):
            store.info("deep/a")

    def test_to_delete_what_is_not_there_is_fine(self, store: Store) -> None:
        store.put("a", io.BytesIO(b"x"))
        store.delete("nowhere")
        store.delete("a/b")
        assert names(store) == ["a"]

    @pytest.mark.parametrize("size", [100, len(BIG)])
    def test_data_that_fails_leaves_nothing_or_what_was_there(self, store: Store, size: int) -> None:
        class BrokenError(Exception):
            pass

        class Breaking(io.BytesIO):
            def read(self, count: int | None = -1) -> bytes:
                if self.tell() >= size // 2:
                    raise BrokenError("the source broke")
                return super().read(max(1, size // 2) if count is None or count < 0 else min(count, size // 2))

        with pytest.raises(BrokenError):
            store.put("new", Breaking(BIG[:size]))
        store.put("old", io.BytesIO(b"as it was"))
        with pytest.raises(BrokenError):
            store.put("old", Breaking(BIG[:size]))
        assert names(store) == ["old"]
        assert content(store, "old") == b"as it was"
        with pytest.raises(NotFoundError):
            store.info("new")

    @pytest.mark.parametrize("name", ["", "../a", "a/../b", "/a", "a//b", "a/", "."])
    def test_a_name_that_leads_elsewhere_is_not_written(self, store: Store, name: str) -> None:
        with pytest.raises(UsageError):
            store.put(name, io.BytesIO(b"x"))
        with pytest.raises(UsageError):
            store.delete(name)

    def test_many_threads_write_at_once(self, store: Store) -> None:
        def write(n: int) -> None:
            store.put(f"many/{n:02}", io.BytesIO(bytes([n]) * 100_000))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(24)))
        assert names(store, "many/") == [f"many/{n:02}" for n in range(24)]
        assert all(content(store, f"many/{n:02}") == bytes([n]) * 100_000 for n in range(24))

    def test_a_reader_sees_one_whole_object_or_the_other(self, store: Store) -> None:
        if not self.replaces_at_once:
            pytest.skip("this server does not")
        one, two = b"1" * 3_000_000, b"2" * 3_000_000
        store.put("a", io.BytesIO(one))
        done = threading.Event()

        def write() -> None:
            for data in (two, one, two):
                store.put("a", io.BytesIO(data))
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = set()
        while not done.is_set():
            seen.add(call_with_retries(lambda: store.info("a").bytes, Retry()))
        writer.join()
        assert seen <= {3_000_000}
        assert content(store, "a") == two
