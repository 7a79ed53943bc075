"""Temporary names: made, recognised and cleared in one place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from leftovers import part_of_dead

from shardkit.storage import parts
from shardkit.storage.files import whole_file
from shardkit.storage.parts import is_abandoned, is_part, part_named, part_of, remove_abandoned, remove_abandoned_trees


def test_what_is_being_written_has_a_name_that_is_recognised(tmp_path: Path) -> None:
    with whole_file(str(tmp_path / "a.tar")) as file:
        file.write(b"half")
        [name] = os.listdir(tmp_path)
        assert is_part(name)
        assert name == os.fsdecode(part_of("a.tar"))
        found = part_named(name)
        assert found is not None
        assert (found.name, found.process) == ("a.tar", os.getpid())
        assert not is_abandoned(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.part", "a.tar", "a.12.part", ".part", "a.0123abcd-.part", "a.0123abcd-1.part.x"])
def test_files_of_others_are_not_taken_for_ours(name: str) -> None:
    assert not is_part(name)


def of_another_machine(monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_MACHINE", f"{int(parts._MACHINE, 16) ^ 1:08x}")
        return os.fsdecode(part_of(name))


def test_only_what_a_dead_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, elsewhere = os.fsdecode(part_of("b.tar")), of_another_machine(monkeypatch, "c.tar")
    old = of_another_machine(monkeypatch, "d.tar")
    for name in (part_of_dead("a.tar"), live, elsewhere, old, "e.tar.part"):
        (tmp_path / name).write_bytes(b"half")
    written = (tmp_path / old).stat().st_mtime - parts.ABANDONED_SECONDS - 1
    os.utime(tmp_path / old, (written, written))
    remove_abandoned(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted([live, elsewhere, "e.tar.part"])


def test_only_a_folder_of_the_name_asked_for_is_removed(tmp_path: Path) -> None:
    mine, others = part_of_dead(".tree.unpacking"), part_of_dead(".trees.unpacking")
    for name in (mine, others):
        (tmp_path / name / "cat").mkdir(parents=True)
    remove_abandoned(str(tmp_path))
    remove_abandoned_trees(str(tmp_path), ".tree.unpacking")
    assert os.listdir(tmp_path) == [others]


def test_a_file_of_another_machine_is_abandoned_when_nothing_was_written_for_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / of_another_machine(monkeypatch, "a.tar")
    path.write_bytes(b"half")
    os.utime(path, (1000, 1000))
    for later, abandoned in ((parts.ABANDONED_SECONDS, False), (parts.ABANDONED_SECONDS + 1, True)):
        monkeypatch.setattr(parts.time, "time", lambda seconds=later: 1000 + seconds)
        assert is_abandoned(str(path)) is abandoned
    path.unlink()
    assert not is_abandoned(str(path))


def test_a_process_of_another_user_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(process: int, number: int) -> None:
        assert number == 0  # which asks, and ends nothing
        raise PermissionError

    name = part_of_dead("a.tar")
    monkeypatch.setattr(os, "kill", kill)
    assert not is_abandoned(str(tmp_path / name))


def test_a_link_or_a_file_in_place_of_a_folder_stays(tmp_path: Path) -> None:
    link, file = tmp_path / part_of_dead("a.unpacking"), tmp_path / part_of_dead("b.unpacking")
    (tmp_path / "mine").mkdir()
    link.symlink_to(tmp_path / "mine", target_is_directory=True)
    file.write_bytes(b"half")
    for name in ("a.unpacking", "b.unpacking"):
        remove_abandoned_trees(str(tmp_path), name)
    assert sorted(os.listdir(tmp_path)) == sorted([link.name, file.name, "mine"])
