"""The thread of the serving process: it answers the others, and hands out descriptors. It copies no bytes."""

from __future__ import annotations

import itertools
import logging
import os
import selectors
import socket
import threading
import time
from contextlib import suppress

from shardkit.storage.node.memory import most_files
from shardkit.storage.node.message import BadMessageError, Kind, Message, receive, send
from shardkit.storage.node.place import Place
from shardkit.storage.node.shelf import KEEP_SECONDS, PASSED_SECONDS, TAKEOVER_SECONDS, Answer, Shelf

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""How often it looks for what takes too long, and for memory that nobody uses."""

BUSY_SECONDS = 0.05
"""The pause where no connection can be accepted, for lack of descriptors."""

_STOP = -1


class Server:
    """Serves at a place until it is stopped, or its process ends. limit: the bytes that it holds."""

    def __init__(self, place: Place, sock: socket.socket, lock: int, limit: int, quiet: float) -> None:
        self._place, self._listening, self._lock = place, sock, lock
        keep = PASSED_SECONDS if place.of_loader else KEEP_SECONDS
        self._shelf = Shelf(limit, most_files(), time.monotonic() + quiet, keep)
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, socket.socket] = {}
        self._numbers = itertools.count(1)
        self._stopped = False
        self._awake, self._waker = socket.socketpair()
        self._selector.register(self._awake, selectors.EVENT_READ, _STOP)
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, 0)
        threading.Thread(target=self._serve, name="shardkit-node", daemon=True).start()

    @classmethod
    def open(cls, place: Place, limit: int, *, after_another: bool) -> Server | None:
        """Serve there, if nobody does. after_another: another process served before. OSError."""
        found = place.served()
        return None if found is None else cls(place, *found, limit, TAKEOVER_SECONDS if after_another else 0.0)

    def stop(self) -> None:
        """End the thread: another process takes over. Takes no lock."""
        self._stopped = True
        with suppress(OSError):
            self._waker.send(b"-")

    def forget(self) -> None:
        """Close all of it: in a forked process its copies, so that the others notice the end of the server itself."""
        for sock in (self._listening, self._awake, self._waker, *self._clients.values()):
            with suppress(OSError):
                sock.close()
        with suppress(OSError):
            os.close(self._lock)
        with suppress(OSError):
            self._selector.close()
        self._shelf.clear()

    def _serve(self) -> None:
        try:
            while not self._stopped:
                quiet = self._shelf.quiet_until - time.monotonic()
                for found, _ in self._selector.select(quiet if quiet > 0 else TICK_SECONDS):
                    if found.data == 0:
                        self._accept()
                    elif found.data != _STOP:
                        self._read(found.data)
                self._send(self._shelf.overdue(time.monotonic()))
                self._send(self._shelf.make_room(time.monotonic()))
        except Exception:
            log.exception("this process no longer serves the others of the machine; one of them takes over")
        self.forget()

    def _accept(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except BlockingIOError:
            return
        except OSError as exc:  # no descriptors left
            log.debug("a process could not be accepted: %s", exc)
            time.sleep(BUSY_SECONDS)
            return
        try:
            self._place.require_allowed(sock)
        except OSError as exc:
            log.debug("a process was refused: %s", exc)
            sock.close()
            return
        sock.setblocking(False)
        client = next(self._numbers)
        self._clients[client] = sock
        self._shelf.joined(client)
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _read(self, client: int) -> None:
        sock = self._clients.get(client)
        if sock is None:
            return
        try:
            message = receive(sock)
        except BlockingIOError:
            return
        except (OSError, BadMessageError) as exc:
            log.debug("a process is no longer served: %s", exc)
            message = None
        if message is None:
            self._leave(client)
        else:
            self._send(self._answers(client, message))

    def _answers(self, client: int, message: Message) -> list[Answer]:
        now, shelf = time.monotonic(), self._shelf
        if message.kind is Kind.ASK:
            return shelf.asked(client, message.number, message.key, now)
        if message.kind is Kind.DROP:
            return shelf.dropped(client, message.key, now)
        if message.memory is not None and message.kind is Kind.PUT:
            return shelf.put(client, message.key, message.memory, now)
        if message.memory is not None:
            message.memory.close()
        return self._leave(client, quiet=True)  # it sent what only a server sends

    def _send(self, answers: list[Answer]) -> None:
        """Answer. A client that does not read its answers is left, so that nobody waits for it."""
        while answers:
            client, message = answers.pop(0)
            sock = self._clients.get(client)
            if sock is None:
                continue
            try:
                send(sock, message)
            except OSError as exc:
                log.debug("a process does not take its answers: %s", exc)
                answers += self._leave(client, quiet=True)

    def _leave(self, client: int, *, quiet: bool = False) -> list[Answer]:
        sock = self._clients.pop(client)
        self._selector.unregister(sock)
        sock.close()
        answers = self._shelf.left(client, time.monotonic())
        if not quiet:
            self._send(answers)
            return []
        return answers
