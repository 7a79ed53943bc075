"""Leases: of several runs, on any machines, one holds a name in a store, and the others know who does.

A lease is a small object that is made on a condition (`Conditional`): its holder's random name, machine and process,
and a number that grows with each renewal. The holder writes it again every RENEWAL_SECONDS. Whoever finds a lease of
another run watches it: if it changes, its holder is alive; if it has not changed for EXPIRY_SECONDS, or if its process
ran here and is gone, it may be taken over, again on a condition. No clocks are compared, and no names of machines:
containers and virtual machines often have the same one.

In a store without conditions, runs that begin at the same time all write the lease. So each reads it again a little
later, and only the one that wrote last goes on.

A holder that could not renew for too long, or whose lease was taken over, has lost it, and `require_held` says so
before anything that depends on it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from shardkit.errors import BusyError, NotFoundError, ShardkitError
from shardkit.storage.store import Store, content_of, has_conditions, put_if
from shardkit.system import is_running, process_space

log = logging.getLogger(__name__)

RENEWAL_SECONDS = 10.0
EXPIRY_SECONDS = 45.0
"""How long a lease is watched before it is taken over. Its holder gives up earlier, after HOLDER_SECONDS."""
HOLDER_SECONDS = 30.0
LOOK_SECONDS = 1.0
SETTLING_SECONDS = 3.0
"""How long after a lease was written it is read again in a store that has no conditions, or ignores them."""
ABSENT_SECONDS = (0.02, 0.1)
"""When to look again for a lease on a disk that is not there: it is absent for a moment when it is renewed."""

WAIT = "wait until it ends, or choose another destination"


class Claim(msgspec.Struct, frozen=True):
    """The content of a lease."""

    owner: str
    machine: str
    process: int
    turn: int = 0
    space: str = ""
    """Where the process has this number (`process_space`)."""

    @property
    def is_dead(self) -> bool:
        """Whether its process ran here and is gone; this one itself holds no lease of that owner."""
        here = self.space != "" and self.space == process_space()
        return here and (self.process == os.getpid() or not is_running(self.process))

    def __str__(self) -> str:
        return f"process {self.process} on {self.machine}"


_held: dict[str, Lease] = {}
"""The leases of this process by place."""

_taking: set[str] = set()
"""The owners in this process that may have written their lease, and do not hold it yet."""


class Lease:
    """A lease that this process holds; a thread renews it. Made by `held`."""

    def __init__(self, store: Store, name: str, claim: Claim, version: str) -> None:
        self.store, self.name, self.claim, self.version = store, name, claim, version
        self.place = str(store.root.child(name))
        self.lost: str | None = None
        self._renewed = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="shardkit-lease")
        _held[self.place] = self
        self._thread.start()

    def _renew(self) -> None:
        while not self._end.wait(RENEWAL_SECONDS):
            claim = msgspec.structs.replace(self.claim, turn=self.claim.turn + 1)
            begun = time.monotonic()
            try:
                written = put_if(self.store, self.name, msgspec.json.encode(claim), version=self.version)
            except ShardkitError as exc:
                log.debug("%s: not renewed: %s", self.place, exc)
                continue
            if written is not None:
                self.claim, self.version, self._renewed = claim, written, begun
            elif not self._is_still_ours():
                self.lost = "another run has taken it over"
                return

    def _is_still_ours(self) -> bool:
        """Whether it was this run that wrote it last, in a renewal that seemed to have failed."""
        try:
            version = _version(self.store, self.name)  # before the content, as in `_Watched.look`
            if version is None or _owner(self.store, self.name) != self.claim.owner:
                return False
            self.version = version
        except ShardkitError as exc:
            log.debug("%s: not read: %s", self.place, exc)
        return True

    def require(self) -> None:
        """BusyError if the lease is lost."""
        silent = time.monotonic() - self._renewed
        if self.lost is None and silent > HOLDER_SECONDS:
            self.lost = f"it could not be renewed for {silent:.0f} seconds"
        if self.lost is not None:
            fact = f"this run no longer has the right to write here: {self.lost}"
            raise BusyError(self.place, fact, "run the same command again: finished shards are kept")

    def release(self) -> None:
        """End the renewals, and remove the lease if it is still ours."""
        self._end.set()
        self._thread.join()
        _held.pop(self.place, None)
        with suppress(ShardkitError):
            if self.lost is None and _owner(self.store, self.name) == self.claim.owner:
                self.store.delete(self.name)


@contextmanager
def held(store: Store, name: str) -> Iterator[Lease]:
    """Hold the lease `name` in a patient store during the block. Raises BusyError if another run holds it."""
    lease = _take(store, name)
    try:
        yield lease
    finally:
        lease.release()


def require_held(folder: str) -> None:
    """BusyError if this process had a lease in this folder, and has lost it."""
    for place, lease in list(_held.items()):
        if place.startswith(f"{folder}/"):
            lease.require()


def holders(store: Store, names: Iterable[str]) -> dict[str, Claim]:
    """Name -> who holds it, for those of these leases whose holder is alive. Those of dead holders are removed.

    Takes up to EXPIRY_SECONDS if a holder on another machine has ended without releasing its lease.
    """
    watched = {name: _Watched(store, name) for name in names}
    told = False
    alive: dict[str, Claim] = {}
    while watched:
        for name, each in list(watched.items()):
            state = each.look()
            if state is not None and state:
                assert each.claim is not None
                alive[name] = each.claim
            elif state is not None:
                each.remove()
            if state is not None:
                del watched[name]
        if watched:
            told = told or _tell_waiting(str(store.root), [each.claim for each in watched.values()])
            time.sleep(LOOK_SECONDS)
    return alive


def _tell_waiting(place: str, claims: Iterable[Claim | None]) -> bool:
    who = ", ".join(str(claim or "an unknown run") for claim in claims)
    log.info("%s: waiting up to %.0f seconds to see whether another run is alive: %s", place, EXPIRY_SECONDS, who)
    return True


def _take(store: Store, name: str) -> Lease:
    import platform
    import secrets

    place = str(store.root.child(name))
    claim = Claim(secrets.token_hex(8), platform.node(), os.getpid(), space=process_space())
    _taking.add(claim.owner)
    try:
        return _taken(store, name, claim, place)
    finally:
        _taking.discard(claim.owner)


def _taken(store: Store, name: str, claim: Claim, place: str) -> Lease:
    data = msgspec.json.encode(claim)
    told = False
    while True:
        other = _Watched(store, name)
        while (alive := other.look()) is None:
            told = told or _tell_waiting(place, [other.claim])
            time.sleep(LOOK_SECONDS)
        if alive:
            raise BusyError(place, f"another run ({other.claim}) is writing to this destination", WAIT)
        version = put_if(store, name, data, version=other.version)
        if version is not None and _owner(store, name) == claim.owner:
            if (again := put_if(store, name, data, version=None)) is not None:
                log.warning("%s: this store ignores conditions; make sure that no other machine writes here", place)
            if again is None and has_conditions(store):
                return Lease(store, name, claim, version)
            time.sleep(SETTLING_SECONDS)  # for those that wrote at the same time: the last one of them has it
            if _owner(store, name) == claim.owner:
                return Lease(store, name, claim, _version(store, name) or "")


class _Watched:
    """A lease that is watched."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.claim: Claim | None = None
        self.version: str | None = None
        self._first: bytes | None = None
        self._begun = time.monotonic()

    def look(self) -> bool | None:
        """Whether its holder is alive; False too if it is gone; None if that is not known yet."""
        for pause in (0.0, *ABSENT_SECONDS) if self.store.root.is_local else (0.0,):
            time.sleep(pause)
            self.version = _version(self.store, self.name)  # before the content: what is taken over is what was read
            data = None if self.version is None else content_of(self.store, self.name)
            if data is not None:
                break
        else:
            self.claim = self.version = None
            return False
        first, self._first = self._first, self._first or data
        with suppress(msgspec.MsgspecError):  # what is not a claim has no holder that renews it
            self.claim = msgspec.json.decode(data, type=Claim)
        if first is not None and data != first:
            return True
        claim = self.claim
        if claim is not None and _is_ours(str(self.store.root.child(self.name)), claim.owner):
            return True
        if claim is not None and claim.is_dead:
            return False
        return False if time.monotonic() - self._begun > EXPIRY_SECONDS else None

    def remove(self) -> None:
        """Remove the lease of a dead holder, unless it was taken over meanwhile."""
        if self.claim is not None and _owner(self.store, self.name) == self.claim.owner:
            self.store.delete(self.name)


def _is_ours(place: str, owner: str) -> bool:
    lease = _held.get(place)
    return owner in _taking or (lease is not None and lease.claim.owner == owner)


def _owner(store: Store, name: str) -> str | None:
    with suppress(msgspec.MsgspecError):
        data = content_of(store, name)
        return None if data is None else msgspec.json.decode(data, type=Claim).owner
    return None


def _version(store: Store, name: str) -> str | None:
    try:
        return store.info(name).version or ""
    except NotFoundError:
        return None
