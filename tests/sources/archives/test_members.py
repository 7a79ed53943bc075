"""Members are collected in the order of the archive, however many are added together."""

from __future__ import annotations

import pytest

from shardkit.sources.archives import members
from shardkit.sources.archives.members import MembersBuilder


@pytest.mark.parametrize("together", [1, 2, 5, 100])
def test_members_are_the_same_however_many_are_added_together(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_TOGETHER", together)
    builder = MembersBuilder("x.tar", skip_bad=True)
    names = [b"./a/1.jpg", b"a/2.jpg", b"../3.jpg", b"b//4.jpg", b"b/5.jpg"]
    for number, name in enumerate(names):
        builder.add(name, size=number, offset=10 * number, packed=100 + number, method=number % 2, crc=-number)
        assert len(builder) == number + (number < 2)
    builder.link(b"b/6.jpg", b"./a/2.jpg")
    found = builder.build(1000)
    assert [*found.names] == [b"a/1.jpg", b"a/2.jpg", b"b/4.jpg", b"b/5.jpg", b"b/6.jpg"]
    assert found.sizes.tolist() == [0, 1, 3, 4, 1]
    assert found.offsets.tolist() == [0, 10, 30, 40, 10]
    assert found.packed.tolist() == [100, 101, 103, 104, 101]
    assert (found.methods.tolist(), found.crcs.tolist()) == ([0, 1, 1, 0, 1], [0, -1, -3, -4, -1])
    assert [name for name, _ in found.refused] == ["../3.jpg"]
