"""Memory that processes share: who serves, what a peer may send, and what happens where there is none."""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardkit.storage.node import client, place
from shardkit.storage.node.client import MEMORY_BYTES, Claim, LoaderPlace, Node, open_node
from shardkit.storage.node.memory import Memory
from shardkit.storage.node.message import BadMessageError, Kind, Message, receive, send
from shardkit.storage.node.place import Place, loader_place

pytestmark = pytest.mark.skipif(not place.AVAILABLE, reason="needs sealed memory")

A, B = b"a" * 16, b"b" * 16

SERVE = """
import sys, time
from shardkit.storage.node.client import Node
from shardkit.storage.node.place import Place
node = Node(Place(sys.argv[1]), 1 << 20)
claim = node.take(b"s" * 16)
assert claim is not None
print("serves", flush=True)
time.sleep(600)
"""


@pytest.fixture
def meeting(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "meet"))


@pytest.fixture
def nodes(meeting: Place) -> Iterator[Callable[[], Node]]:
    made: list[Node] = []

    def make() -> Node:
        made.append(Node(meeting, MEMORY_BYTES))
        return made[-1]

    yield make
    made.clear()


@pytest.fixture
def server(meeting: Place) -> Iterator[subprocess.Popen[str]]:
    """Another process that serves."""
    process = subprocess.Popen([sys.executable, "-c", SERVE, meeting.path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "serves\n"
    yield process
    process.kill()
    process.communicate()


def bytes_of(memory: Any) -> bytes:
    assert isinstance(memory, Memory)
    data = bytes(memory.mapped())
    memory.close()
    return data


def made(node: Node, key: bytes, data: bytes) -> None:
    claim = node.take(key)
    assert isinstance(claim, Claim)
    memory = claim.put([data])
    assert memory is not None
    memory.close()


def test_what_one_process_made_another_gets(nodes: Callable[[], Node]) -> None:
    one, other = nodes(), nodes()
    made(one, A, b"some bytes")
    assert bytes_of(other.take(A)) == b"some bytes"
    other.drop(A)
    assert isinstance(other.take(A), Claim)


def test_a_process_waits_for_the_one_that_makes_it(nodes: Callable[[], Node]) -> None:
    one, other, found = nodes(), nodes(), list[Any]()
    claim = one.take(A)
    assert isinstance(claim, Claim)
    waiting = threading.Thread(target=lambda: found.append(other.take(A)))
    waiting.start()
    memory = claim.put([b"late", b" bytes"])
    waiting.join(10.0)
    assert [bytes_of(one) for one in found] == [b"late bytes"]
    assert memory is not None
    memory.close()


@pytest.mark.parametrize("how", ["dropped", "forgotten", "failed"])
def test_what_a_process_does_not_make_another_makes(nodes: Callable[[], Node], how: str) -> None:
    one, other = nodes(), nodes()
    claim = one.take(A)
    assert isinstance(claim, Claim)
    if how == "dropped":
        claim.drop()
    elif how == "failed":
        with pytest.raises(ZeroDivisionError):
            claim.put(bytes(1 // n) for n in (1, 0))
    del claim
    assert isinstance(other.take(A), Claim)


def test_the_next_serves_when_the_server_is_killed(
    nodes: Callable[[], Node], server: subprocess.Popen[str], meeting: Place
) -> None:
    one, other = nodes(), nodes()
    made(one, A, b"mine")
    assert bytes_of(other.take(A)) == b"mine"
    claim = other.take(B)
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert bytes_of(other.take(A)) == b"mine"  # who made it gave it to the next server
    assert isinstance(claim, Claim)
    memory = claim.put([b"for the next one"])
    assert memory is not None
    memory.close()
    assert bytes_of(one.take(B)) == b"for the next one"
    assert sorted(os.listdir(meeting.path)) == [f"{meeting.name}.lock", f"{meeting.name}.sock"]


def test_who_waits_for_a_server_that_is_killed_makes_it_itself(
    nodes: Callable[[], Node], server: subprocess.Popen[str]
) -> None:
    waiting, found = nodes(), list[Any]()
    thread = threading.Thread(target=lambda: found.append(waiting.take(b"s" * 16)))  # the server is to make that
    thread.start()
    while waiting._connection is None or not waiting._connection._questions:
        time.sleep(0.001)
    server.send_signal(signal.SIGKILL)
    thread.join(client.WAIT_SECONDS / 2)
    assert isinstance(found[0], Claim)


def test_what_need_not_be_kept_is_no_answer(nodes: Callable[[], Node]) -> None:
    """The first question of a connection has the number 0, as every message that frees memory."""
    one, other = nodes(), nodes()
    made(one, A, b"bytes")
    connection = other._connected()
    assert connection is not None
    question = connection.ask(A)
    assert question is not None
    assert question.number == 0
    assert question.done.wait(10.0)
    question.done.clear()
    connection._questions[0] = question
    connection._answered(Message(Kind.FREED, 0, B))
    assert connection._questions[0] is question
    connection.forget(question)


def test_a_stopped_server_is_left_alone(
    nodes: Callable[[], Node], server: subprocess.Popen[str], monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(client, "WAIT_SECONDS", 0.2)
    node = nodes()
    made(node, A, b"mine")
    server.send_signal(signal.SIGSTOP)
    while " T " not in Path(f"/proc/{server.pid}/stat").read_text():
        time.sleep(0.001)
    try:
        assert node.take(A) is None
        assert node.take(A) is None
        assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
            "shared: the process that serves the others does not answer: this process reads on its own"
        ]
        waits = []
        for _ in range(8):  # it may be stopped for long
            waits.append(node._rests_until - time.monotonic())
            node._rests_until = 0.0
            assert node.take(A) is None
        rests = [client.REST_SECONDS * 2**turn for turn in range(8)]
        assert waits == pytest.approx([min(rest, client.MOST_REST_SECONDS) for rest in rests], abs=1.0)
    finally:
        server.send_signal(signal.SIGCONT)
    monkeypatch.setattr(client, "WAIT_SECONDS", 20.0)
    node._rests_until = 0.0
    assert bytes_of(node.take(A)) == b"mine"
    assert node._pause == client.REST_SECONDS


def test_memory_can_not_be_changed_by_who_gets_it(nodes: Callable[[], Node]) -> None:
    one, other = nodes(), nodes()
    made(one, A, b"bytes")
    memory = other.take(A)
    assert isinstance(memory, Memory)
    for change in (lambda: os.ftruncate(memory.descriptor, 1), lambda: os.pwrite(memory.descriptor, b"x", 0)):
        with pytest.raises(PermissionError):
            change()
    own = memory.mapped(writable=True)
    memoryview(own).cast("B")[:1] = b"B"
    assert (bytes(own), bytes_of(memory), bytes_of(one.take(A))) == (b"Bytes", b"bytes", b"bytes")


def unsealed(size: int) -> int:
    descriptor = os.memfd_create("open")
    os.ftruncate(descriptor, size)
    return descriptor


def bad_messages() -> dict[str, Callable[[socket.socket], Any]]:
    whole = b"SKN1" + bytes([Kind.PUT]) + bytes(7) + (100).to_bytes(8, "little") + A
    asked = b"SKN1" + bytes([Kind.ASK]) + bytes(15) + A
    return {
        "noise": lambda sock: sock.send(os.urandom(36)),
        "short": lambda sock: sock.send(asked[:-1]),
        "long": lambda sock: sock.send(asked + b"x"),
        "unknown": lambda sock: sock.send(asked.replace(bytes([Kind.ASK]), b"\x63", 1)),
        "memory missing": lambda sock: sock.send(whole),
        "memory too much": lambda sock: socket.send_fds(sock, [asked], [0]),
        "not sealed": lambda sock: socket.send_fds(sock, [whole], [unsealed(100)]),
        "no memory": lambda sock: socket.send_fds(sock, [whole], [os.open("/dev/zero", os.O_RDONLY)]),
        "another size": lambda sock: socket.send_fds(sock, [whole], [Memory.of([b"12345"]).descriptor]),
        "of a server": lambda sock: send(sock, Message(Kind.HERE, 0, A, Memory.of([b"12345"]))),
    }


@pytest.mark.parametrize("what", list(bad_messages()))
def test_a_hostile_peer_is_left_and_the_others_served(nodes: Callable[[], Node], meeting: Place, what: str) -> None:
    one, other = nodes(), nodes()
    made(one, B, b"right")
    peer = meeting.connected()
    peer.settimeout(10.0)
    bad_messages()[what](peer)
    assert peer.recv(1) == b""  # the server closed the connection
    peer.close()
    assert isinstance(other.take(A), Claim)
    assert bytes_of(other.take(B)) == b"right"


@pytest.mark.parametrize("what", list(bad_messages())[:-1])
def test_a_hostile_server_is_left(what: str) -> None:
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = len(os.listdir("/proc/self/fd"))
    with mine, its:
        bad_messages()[what](its)
        opened = len(os.listdir("/proc/self/fd"))
        with pytest.raises(BadMessageError):
            receive(mine)
        assert len(os.listdir("/proc/self/fd")) <= opened  # what it sent is closed
    assert before


def test_a_peer_that_floods_the_server_does_not_keep_it_from_the_others(
    nodes: Callable[[], Node], meeting: Place
) -> None:
    one = nodes()
    made(one, B, b"right")
    with meeting.connected() as peer:
        peer.setblocking(False)
        for _ in range(5000):  # and never reads an answer
            try:
                send(peer, Message(Kind.ASK, 1, B))
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                time.sleep(0.0001)
        assert bytes_of(nodes().take(B)) == b"right"


def test_without_memory_a_process_works_alone(nodes: Callable[[], Node], monkeypatch: Any, caplog: Any) -> None:
    one, other = nodes(), nodes()
    claim = one.take(A)
    assert isinstance(claim, Claim)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", full)
        assert claim.put([b"bytes"]) is None
    assert "no memory to share (No space left on device)" in caplog.text
    assert isinstance(other.take(A), Claim)
    assert one.take(B) is None  # it keeps nobody waiting for what it can't share


def test_a_process_keeps_few_descriptors_of_what_it_made(
    nodes: Callable[[], Node], monkeypatch: Any, server: subprocess.Popen[str]
) -> None:
    """The one that serves may have open many more than the one that made it."""
    monkeypatch.setattr(client, "most_files", lambda: 3)
    node, before = nodes(), 0
    for number in range(9):
        made(node, bytes([number]) * 16, b"bytes")
        before = before or len(os.listdir("/proc/self/fd"))
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert [bytes_of(nodes().take(bytes([number]) * 16)) for number in range(9)] == [b"bytes"] * 9


def test_a_process_that_gives_it_up_does_not_begin_again(
    meeting: Place, server: subprocess.Popen[str], monkeypatch: Any
) -> None:
    """Its connection ends while it is deleted: its thread still finds it then, and must not revive it."""
    hang_up = client._Connection.hang_up

    def and_wait(self: Any) -> None:
        hang_up(self)
        if threading.current_thread() is threading.main_thread():
            time.sleep(0.3)

    node = Node(meeting, MEMORY_BYTES)
    made(node, A, b"bytes")
    threads = {thread for thread in threading.enumerate() if thread.name == "shardkit-node"}
    monkeypatch.setattr(client._Connection, "hang_up", and_wait)
    del node
    for thread in threads:
        thread.join(10.0)
    assert not {thread for thread in threading.enumerate() if thread.name == "shardkit-node"}


def test_a_folder_that_can_not_be_used_is_said_once(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").write_bytes(b"")
    node = Node(Place(str(tmp_path / "file")), MEMORY_BYTES)
    assert [node.take(A), node.take(A)] == [None, None]
    node.drop(A)
    assert caplog.text.count("can't be used") == 1


def test_the_own_folder_is_for_one_user(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = Place().path
    assert stat.S_IMODE(os.stat(found).st_mode) == 0o700
    os.chmod(found, 0o777)
    with pytest.raises(PermissionError):
        _ = Place().path
    assert Node(Place(), MEMORY_BYTES).take(A) is None


def test_another_user_is_refused_except_in_a_folder_that_was_named(
    tmp_path: Path, meeting: Place, nodes: Callable[[], Node], monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own, user = Node(Place(), MEMORY_BYTES), os.getuid()
    assert isinstance(own.take(A), Claim)
    sock = Place().connected()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with pytest.raises(PermissionError, match=f"user {user}"):
        Place().require_allowed(sock)
    meeting.require_allowed(sock)
    sock.close()


def test_the_permissions_of_a_named_folder_are_those_of_its_socket(meeting: Place, nodes: Callable[[], Node]) -> None:
    os.chmod(meeting.path, 0o2770)
    nodes().take(A)
    modes = {stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(meeting.path)}
    assert modes == {0o660}


def test_a_folder_with_a_long_path_will_do(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    assert isinstance(Node(Place(str(deep)), MEMORY_BYTES).take(A), Claim)


def test_a_forked_process_keeps_nobody_waiting(nodes: Callable[[], Node], meeting: Place) -> None:
    """Its copies of the sockets would hide the end of the server."""
    code = (
        "import os, sys, time\n"
        "from shardkit.storage.node.client import open_node\n"
        "node = open_node(sys.argv[1], 1 << 20)\n"
        "node.take(b'f' * 16)\n"
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(60)\n    os._exit(0)\n"
        "print(child, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, meeting.path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        node = nodes()
        assert isinstance(node.take(A), Claim)
        process.kill()
        process.wait()
        assert isinstance(node.take(B), Claim)
        assert node._server is not None  # it serves now
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_the_place_of_a_loader_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    loader = LoaderPlace()
    monkeypatch.setattr(client, "_MEETS", [])
    assert open_node(None, MEMORY_BYTES) is None
    loader.join()
    node = open_node(None, MEMORY_BYTES)
    assert node is not None
    assert isinstance(node.take(A), Claim)
    folder = tmp_path / "shardkit"
    assert len(os.listdir(folder)) == 2
    del loader
    assert not os.listdir(folder)


def test_what_killed_loaders_left_is_removed_by_the_next_server(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    left, live = loader_place(), loader_place()
    for loader in (left, live):
        sock, lock = loader.served() or pytest.fail()
        os.utime(os.path.join(loader.path, f"{loader.name}.lock"), (0, 0))
        if loader is left:
            sock.close()
            os.close(lock)
    assert isinstance(Node(Place(), MEMORY_BYTES).take(A), Claim)
    sock.close()
    os.close(lock)
    names = {name.rpartition(".")[0] for name in os.listdir(Place().path)}
    assert names == {Place().name, live.name}


def test_a_process_stops_to_serve_with_the_last_that_needs_it(meeting: Place) -> None:
    before = set(threading.enumerate())
    node = open_node(meeting.path, MEMORY_BYTES)
    assert node is open_node(meeting.path, MEMORY_BYTES)
    assert node is not None
    made(node, A, b"bytes")
    begun = set(threading.enumerate()) - before
    assert len(begun) == 2
    del node
    for thread in begun:
        thread.join(10.0)
        assert not thread.is_alive()
    assert isinstance(Node(meeting, MEMORY_BYTES).take(A), Claim)


def test_nothing_is_shared_where_the_system_has_no_such_memory(monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(client, "AVAILABLE", False)
    monkeypatch.setattr(client, "_SAID", set())
    assert [open_node(True, 1), open_node("/folder", 1), open_node(None, 1), open_node(False, 1)] == [None] * 4
    assert caplog.text.count("each process reads on its own") == 1
