"""What the serving process knows: the memory that is there, who makes what is not, and who waits for it. No socket."""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import takewhile
from typing import NamedTuple

import msgspec

from shardkit.storage.node.memory import Memory
from shardkit.storage.node.message import Kind, Message

MAKE_SECONDS = 10.0
"""How long anybody waits for a process that makes something; then it makes it, too."""

ROOM_SHARE = 7 / 8
"""How much is kept where there was no room: what to free is looked for once in a while, and not for each memory."""

TAKEOVER_SECONDS = 0.05
"""How long a server that takes over waits for what the others made, before it lets anybody make that again."""

KEEP_SECONDS = 120.0
"""Memory for which nobody asked for so long is freed: a program may live on long after its training."""


PASSED_SECONDS = 5.0
"""The same among the workers of a loader, which keep step, for what all of them have."""

_NOBODY = 0
"""No client has this number."""


class Answer(NamedTuple):
    """What a client is told."""

    client: int
    message: Message


class _Held(msgspec.Struct):
    maker: int
    memory: Memory
    used: float
    passed: set[int] = set()
    """The clients that have it."""


class _Made(msgspec.Struct):
    client: int
    until: float
    waiting: deque[tuple[int, int, float]] = msgspec.field(default_factory=deque)
    """(client, number, when) of those who asked for it."""


class Shelf:
    """Memory by key, of at most `limit_bytes` in at most `limit_files` descriptors. Not thread-safe.

    What all clients have is freed first where there is no room, then what was used least recently.
    """

    def __init__(
        self, limit_bytes: int, limit_files: int, quiet_until: float = 0.0, keep_passed: float = KEEP_SECONDS
    ) -> None:
        """quiet_until: nobody is told to make anything before. keep_passed: how long to keep what all clients have."""
        self.limit_bytes, self.limit_files = limit_bytes, limit_files
        self.quiet_until, self.keep_passed = quiet_until, keep_passed
        self.bytes = 0
        self._clients: set[int] = set()
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        self._made: dict[bytes, _Made] = {}

    def __len__(self) -> int:
        return len(self._held)

    def joined(self, client: int) -> None:
        """A new client."""
        self._clients.add(client)

    def left(self, client: int, now: float) -> list[Answer]:
        """A client is gone: others make what it was to make."""
        self._clients.discard(client)
        answers = []
        for key, made in list(self._made.items()):
            made.waiting = deque(one for one in made.waiting if one[0] != client)
            if made.client == client:
                answers += self._next(key, made, now)
        return answers

    def asked(self, client: int, number: int, key: bytes, now: float) -> list[Answer]:
        """A question: answered at once, unless somebody is making it."""
        held = self._held.get(key)
        if held is not None:
            return [self._given(key, held, client, number, now)]
        made = self._made.get(key)
        if made is None and now < self.quiet_until:
            made = self._made[key] = _Made(_NOBODY, self.quiet_until)
        if made is None:
            self._made[key] = _Made(client, now + MAKE_SECONDS)
            return [Answer(client, Message(Kind.YOURS, number, key))]
        made.waiting.append((client, number, now))
        return self.overdue(now)

    def put(self, client: int, key: bytes, memory: Memory, now: float) -> list[Answer]:
        """Memory for a key, which closes with the shelf's use of it. The first of two is kept."""
        made = self._made.pop(key, None)
        held = self._held.get(key)
        answers = []
        if held is None:
            held = self._held[key] = _Held(client, memory, now)
            self.bytes += memory.bytes
        else:
            memory.close()
            answers.append(Answer(client, Message(Kind.FREED, 0, key)))
        held.passed.add(client)
        waiting = made.waiting if made else ()
        return answers + [self._given(key, held, other, number, now) for other, number, _ in waiting]

    def dropped(self, client: int, key: bytes, now: float) -> list[Answer]:
        """A client does not make it, or found that what is there is wrong."""
        answers = [self._free(key)] if key in self._held else []
        made = self._made.get(key)
        return answers + (self._next(key, made, now) if made is not None and made.client == client else [])

    def overdue(self, now: float) -> list[Answer]:
        """Give what takes too long to the next who waits for it, and to all who have waited too long."""
        answers = []
        for key, made in list(self._made.items()):
            answers += self._next(key, made, now) if made.until < now else []
            while made.waiting and made.waiting[0][2] < now - MAKE_SECONDS:
                answers += self._next(key, made, now)
        return answers

    def make_room(self, now: float) -> list[Answer]:
        """Free memory: what nobody needs any more, and where there is too much, more. After the answers were sent."""
        old = takewhile(lambda item: item[1].used < now - self.keep_passed, self._held.items())  # least recent first
        unwanted = [key for key, held in old if held.used < now - KEEP_SECONDS or self._all_have(held)]
        answers = [self._free(key) for key in unwanted]
        if self._holds_more(1.0):
            passed = [key for key, held in self._held.items() if self._all_have(held)]
            for key in dict.fromkeys([*passed, *self._held]):
                if not self._holds_more(ROOM_SHARE):
                    break
                answers.append(self._free(key))
        return answers

    def _holds_more(self, share: float) -> bool:
        return self.bytes > share * self.limit_bytes or len(self._held) > share * self.limit_files

    def clear(self) -> None:
        """Free everything."""
        for key in list(self._held):
            self._free(key)

    def _all_have(self, held: _Held) -> bool:
        return held.passed >= self._clients

    def _given(self, key: bytes, held: _Held, client: int, number: int, now: float) -> Answer:
        held.used = now
        held.passed.add(client)
        self._held.move_to_end(key)
        return Answer(client, Message(Kind.HERE, number, key, held.memory))

    def _next(self, key: bytes, made: _Made, now: float) -> list[Answer]:
        """The next who waits makes it."""
        if not made.waiting:
            del self._made[key]
            return []
        client, number, _ = made.waiting.popleft()
        made.client, made.until = client, now + MAKE_SECONDS
        return [Answer(client, Message(Kind.YOURS, number, key))]

    def _free(self, key: bytes) -> Answer:
        held = self._held.pop(key)
        self.bytes -= held.memory.bytes
        held.memory.close()
        return Answer(held.maker, Message(Kind.FREED, 0, key))
