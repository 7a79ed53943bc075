"""A process's access to the memory that the processes of its machine share.

One process serves, whichever came first (server.py). Where it ends, the connection of each other one ends, and the
first of them that asks again serves. Nothing depends on it: whoever gets no answer in time makes what it needs itself.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from shardkit.storage.node.memory import Memory, most_files
from shardkit.storage.node.message import BadMessageError, Kind, Message, receive, send
from shardkit.storage.node.place import AVAILABLE, Place, loader_place
from shardkit.storage.node.server import Server
from shardkit.system import memory_limit

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
"""How long a process tries to reach a server, or to become one."""

WAIT_SECONDS = 15.0
"""How long it waits for an answer: longer than the server lets anybody make something (shelf.py). A server that does
not answer was stopped, and is left alone for REST_SECONDS; for twice as long each time, up to MOST_REST_SECONDS."""

SEND_SECONDS = 5
REST_SECONDS = 30.0
MOST_REST_SECONDS = 1800.0

MEMORY_BYTES = 1 << 30
"""The most memory that a serving process holds; less with smaller ahead_bytes, and no more than one part in
MEMORY_PARTS of what the process may use (`memory_limit`), since a container that exceeds its limit is killed."""

MEMORY_PARTS = 8


class Claim:
    """What this process is to make for all. `put` or `drop` it."""

    def __init__(self, node: Node, key: bytes) -> None:
        self._node, self.key = node, key
        self._open = True

    def __del__(self) -> None:
        if self._open:  # an iteration was closed
            self._node.leave(self.key)

    def put(self, parts: Iterable[Buffer]) -> Memory | None:
        """Hand these bytes to all; the caller closes the memory. None if there is not enough: nothing was handed out,
        and the parts may be used up. Raises what `parts` raises."""
        self._open = False
        try:
            memory = Memory.of(parts)
        except OSError as exc:
            self.drop()
            self._node.rest(f"there is no memory to share ({exc.strerror or exc})")
            return None
        except BaseException:
            self.drop()
            raise
        self._node.give(self.key, memory)
        return memory

    def drop(self) -> None:
        """Let others make it."""
        self._open = False
        self._node.tell(Message(Kind.DROP, 0, self.key))


class Node:
    """Memory by key, shared by the processes that meet at a place. Thread-safe; for one process (`open_node`).

    With the last reference to it, its connection ends, and its server, if this process serves.
    """

    def __init__(self, place: Place, limit: int) -> None:
        self.place, self.limit = place, limit
        self._lock = threading.Lock()
        self._made_lock = threading.Lock()
        self._connection: _Connection | None = None
        self._server: Server | None = None
        self._rests_until, self._pause = 0.0, REST_SECONDS
        self._met = False
        """Whether there was a server before."""
        self._made: dict[bytes, Memory] = {}
        """What this process made, for as long as the server keeps it: the next server gets it, too."""
        self._said: set[str] = set()
        self._gone = False

    def __del__(self) -> None:
        """Takes no lock: the garbage collector may call it anywhere."""
        self._gone = True  # first: while this runs, weak references still find it, and would revive it
        if self._connection is not None:
            self._connection.hang_up()
        if self._server is not None:
            self._server.stop()
        while self._made:
            self._made.popitem()[1].close()

    @property
    def gone(self) -> bool:
        """Whether its last reference was given up."""
        return self._gone

    def take(self, key: bytes) -> Memory | Claim | None:
        """The memory of a key, which the caller closes; a Claim where this process is to make it; None where it is to
        work alone. Waits for another process that is making it."""
        until = time.monotonic() + WAIT_SECONDS
        while (connection := self._connected()) is not None:
            question = connection.ask(key)
            if question is not None and not question.done.wait(until - time.monotonic()):
                connection.forget(question)
                self.rest("the process that serves the others does not answer")
                return None
            if question is not None and question.answer is not None:
                self._pause = REST_SECONDS
                return question.answer.memory or Claim(self, key)
            if time.monotonic() > until:
                break
        return None

    def give(self, key: bytes, memory: Memory) -> None:
        """Memory for a key. The caller closes it."""
        connection = self._connected()
        with suppress(OSError):  # no descriptors left
            kept, more = memory.again(), most_files()
            with self._made_lock:
                old = [self._made.pop(key)] if key in self._made else []
                self._made[key] = kept
                old += [self._made.pop(first) for first in list(self._made)[: max(0, len(self._made) - more)]]
            for each in old:
                each.close()
        if connection is not None:
            connection.send(Message(Kind.PUT, 0, key, memory))

    def freed(self, key: bytes) -> None:
        """The server no longer keeps it."""
        with self._made_lock:
            memory = self._made.pop(key, None)
            if memory is not None:
                memory.close()

    def ended(self) -> None:
        """The server is gone: the next one gets what this process made."""
        if self._made:
            self._connected()

    def drop(self, key: bytes) -> None:
        """What is there for a key is wrong."""
        self.tell(Message(Kind.DROP, 0, key))

    def tell(self, message: Message) -> None:
        """Send a message that has no answer, if there is a server."""
        connection = self._connected()
        if connection is not None:
            connection.send(message)

    def leave(self, key: bytes) -> None:
        """It won't be made. Takes no lock: the garbage collector may call it anywhere."""
        connection = self._connection
        if connection is not None and connection.open:
            connection.send(Message(Kind.DROP, 0, key))

    def say(self, fact: str) -> None:
        """Log why nothing is shared, once."""
        if fact not in self._said:
            self._said.add(fact)
            log.warning("shared: %s: this process reads on its own", fact)

    def forget(self) -> None:
        """In a forked process: close its copies of the sockets. Other threads may have held the locks at that moment,
        and there they do not exist."""
        self._lock, self._made_lock = threading.Lock(), threading.Lock()
        if self._connection is not None:
            self._connection.close()
        if self._server is not None:
            self._server.forget()
        while self._made:
            self._made.popitem()[1].close()

    def rest(self, fact: str) -> None:
        """Work alone for a while."""
        self.say(fact)
        with self._lock:
            self._rest()
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.end()

    def _rest(self) -> None:
        now = time.monotonic()
        if now >= self._rests_until:  # of several threads, the first
            self._rests_until, self._pause = now + self._pause, min(2 * self._pause, MOST_REST_SECONDS)

    def _connected(self) -> _Connection | None:
        """The connection to the process that serves; None where none can be had for now."""
        with self._lock:
            if self._connection is not None and self._connection.open:
                return self._connection
            if self._gone or time.monotonic() < self._rests_until:
                return None
            self._connection = None
            try:
                self._connection = self._connect()
            except OSError as exc:
                self._rest()
                self.say(f"{self.place.folder or 'the folder of sockets'} can't be used ({exc.strerror or exc})")
            return self._connection

    def _connect(self) -> _Connection:
        """Connect to the server, or become it. OSError."""
        until, pause = time.monotonic() + CONNECT_SECONDS, 0.001
        while True:
            try:
                connection = _Connection(self, self.place.connected())
                self._met = True
                for key in list(self._made):
                    with self._made_lock:  # the new server may have it from another process, and free it
                        if key in self._made:
                            connection.send(Message(Kind.PUT, 0, key, self._made[key]))
                return connection
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                server = Server.open(self.place, self.limit, after_another=self._met)
                if server is not None:
                    self._server = server
                elif time.monotonic() > until:
                    raise
                else:  # another process is about to serve
                    time.sleep(pause)
                    pause = min(0.05, 2 * pause)


class _Question:
    __slots__ = ("answer", "done", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.done = threading.Event()
        self.answer: Message | None = None
        """None where the connection ended before."""


class _Connection:
    """A connection to the server, whose answers a thread receives."""

    def __init__(self, node: Node, sock: socket.socket) -> None:
        self._node = weakref.ref(node)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        self._sock = sock
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._questions: dict[int, _Question] = {}
        self.open = True
        threading.Thread(target=self._listen, name="shardkit-node", daemon=True).start()

    def ask(self, key: bytes) -> _Question | None:
        """Ask for a key; None if the connection has ended."""
        with self._lock:
            question = _Question(next(self._numbers) & 0xFFFFFFFF)
            if not self.open:
                return None
            self._questions[question.number] = question
        return question if self.send(Message(Kind.ASK, question.number, key)) else None

    def forget(self, question: _Question) -> None:
        """The answer is no longer wanted."""
        with self._lock:
            self._questions.pop(question.number, None)
            late = question.answer
        if late is not None and late.memory is not None:
            late.memory.close()

    def send(self, message: Message) -> bool:
        """Send a message; returns whether the connection took it."""
        try:
            send(self._sock, message)
        except OSError:
            self.end()
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self.open = False
        with suppress(OSError):
            self._sock.close()

    def hang_up(self) -> None:
        """End the connection; the thread notices it."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        try:
            while (message := receive(self._sock)) is not None:
                self._answered(message)
        except (OSError, BadMessageError) as exc:
            log.debug("the process that serves the others is gone: %s", exc)
        self.end()
        self.close()
        node = self._node()
        if node is not None:
            node.ended()

    def _answered(self, message: Message) -> None:
        with self._lock:  # FREED answers no question, although it has a number
            question = self._questions.pop(message.number, None) if message.kind is not Kind.FREED else None
            if question is not None and message.kind in (Kind.HERE, Kind.YOURS):
                question.answer = message
                question.done.set()
                return
        if message.memory is not None:
            message.memory.close()
        node = self._node()
        if message.kind is Kind.FREED and node is not None:
            node.freed(message.key)
        del node
        if message.kind is Kind.YOURS:  # nobody waits for it any more
            self.send(Message(Kind.DROP, 0, message.key))

    def end(self) -> None:
        """Wake all who wait: they ask the next server."""
        with self._lock:
            self.open = False
            questions, self._questions = list(self._questions.values()), {}
        self.hang_up()
        for question in questions:
            question.done.set()


_NODES: WeakValueDictionary[Place, Node] = WeakValueDictionary()
_MEETS: list[Place] = []
"""Where this process meets others unless it is told another place: the last one."""
_LOCKS = [threading.Lock()]


def open_node(shared: bool | str | None, limit: int) -> Node | None:
    """The access of this process to the memory shared at a place; None where nothing is to be shared, or can't be.

    shared: True for the place of this user, a folder for one of all who can use it, None for that of the loader whose
    worker this process is. limit: the bytes to hold if this process comes to serve.
    """
    place = _MEETS[-1] if shared is None and _MEETS else Place(None if shared is True else shared or None)
    if shared is False or (shared is None and not _MEETS):
        return None
    if not AVAILABLE:
        if shared is not None and "system" not in _SAID:
            _SAID.add("system")
            log.warning("shared: this system has no memory that can be shared: each process reads on its own")
        return None
    with _LOCKS[0]:
        node = _NODES.get(place)
        if node is None or node.gone:
            node = _NODES[place] = Node(place, min(limit, most_memory()))
        return node


def most_memory() -> int:
    """The bytes of memory that a serving process holds at most."""
    limit = memory_limit()
    return MEMORY_BYTES if limit is None else min(MEMORY_BYTES, limit // MEMORY_PARTS)


_SAID: set[str] = set()


class LoaderPlace:
    """Where the workers of a loader meet, which get it from their parent."""

    def __init__(self) -> None:
        self._place = loader_place()
        self._end = weakref.finalize(self, _remove, self._place, os.getpid())

    def join(self) -> None:
        """In a worker: share what it fetches with the others, unless its Dataset says otherwise."""
        if self._place not in _MEETS:
            _MEETS.append(self._place)

    def __getstate__(self) -> Place:
        return self._place

    def __setstate__(self, place: Place) -> None:
        self._place = place


def _remove(place: Place, process: int) -> None:
    if process == os.getpid():
        place.remove()


def _after_fork() -> None:
    """The sockets belong to the parent: as long as a copy is open, nobody notices its end."""
    for node in list(_NODES.values()):
        node.forget()
    _NODES.clear()
    _MEETS.clear()
    _LOCKS[0] = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
