"""What a worker sends for a batch: a small message, whose tensors are in the slots of an exchange.

Small tensors are in the message itself. A tensor in a slot is sent as its place there; a larger one elsewhere is copied
into a slot, or if none is free passed in the way of torch, by a file in /dev/shm.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch

from shardkit.adapters.torch.exchange import Arena, Exchange, Place, Sender
from shardkit.adapters.torch.tensors import moved_to_shared_memory, shared, tensor_of, unpassable
from shardkit.errors import WorkerError

INLINE_BYTES = 1 << 14
"""The largest tensor that is sent in the message itself."""


@dataclass(frozen=True, slots=True)
class _Inline:
    raw: bytes
    dtype: torch.dtype
    shape: tuple[int, ...]

    def tensor(self, _: Sequence[Any]) -> torch.Tensor:
        data = bytearray(self.raw)
        whole = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return whole.view(self.dtype).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class _InSlot:
    """number: among the slots of the message."""

    number: int
    first: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def tensor(self, memory: Sequence[Any]) -> torch.Tensor:
        last = sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        raw = memory[self.number][self.first : self.first + (last + 1) * self.dtype.itemsize]
        return tensor_of(raw).view(self.dtype).as_strided(self.shape, self.strides)


@dataclass(frozen=True, slots=True)
class _Expanded:
    """A tensor that repeats another along some dimensions, without memory for it."""

    of: _Inline | _InSlot
    shape: tuple[int, ...]

    def tensor(self, memory: Sequence[Any]) -> torch.Tensor:
        return self.of.tensor(memory).expand(self.shape)


Way = _Inline | _InSlot | _Expanded
"""How a tensor is sent."""


class Parcel:
    """A packed item. Unpickled, it is the item itself."""

    def __init__(self, item: Any, sender: Sender) -> None:
        """Pack the item. WorkerError if it can't be pickled, or there is not enough memory."""
        stream = io.BytesIO()
        packer = _Packer(stream, sender)
        try:
            packer.dump(item)
        except WorkerError:
            raise
        except Exception as exc:  # pickling may call the user's own code
            shared(item)  # raises, with the part that can't be pickled
            raise unpassable(item, exc) from exc
        slots = [(arena.place, number) for arena, number in packer.slots]
        self._message = sender.token, slots, stream.getvalue()
        for arena, number in packer.slots:
            arena.sent[number] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return opened, self._message


def opened(token: int, slots: list[tuple[Place, int]], message: bytes) -> Any:
    """The item of a message, in the process of the exchange."""
    memory, copied = Exchange.of(token).received(slots) if slots else ([], False)
    return _Unpacker(io.BytesIO(message), memory, copied).load()


class _Packer(ForkingPickler):
    def __init__(self, stream: io.BytesIO, sender: Sender) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self._sender = sender
        self.slots: dict[tuple[Arena, int], int] = {}
        self._packed: dict[int, tuple[torch.Tensor, Way | None]] = {}
        self._copies: list[torch.Tensor] = []

    def persistent_id(self, item: Any) -> Way | None:
        """How a tensor is sent; None for all else, and for tensors of another kind."""
        if type(item) is not torch.Tensor or not _is_plain(item):
            return None
        if id(item) not in self._packed:
            self._packed[id(item)] = item, self._way(item)
        return self._packed[id(item)][1]

    def _way(self, tensor: torch.Tensor) -> Way | None:
        core = tensor
        for dimension, step in enumerate(tensor.stride()):
            if step == 0 and tensor.shape[dimension] > 1:
                core = core.narrow(dimension, 0, 1)
        if core is not tensor:
            way = self._way_of_core(core)
            return None if way is None else _Expanded(way, tuple(tensor.shape))
        return self._way_of_core(tensor)

    def _way_of_core(self, tensor: torch.Tensor) -> _Inline | _InSlot | None:
        if tensor.nbytes <= INLINE_BYTES:
            plain = tensor.clone(memory_format=torch.contiguous_format)  # NumPy has stride 0 where there is 1 or none
            raw = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
            return _Inline(raw, tensor.dtype, tuple(tensor.shape))
        found = self._in_slot(tensor)
        if found is None:
            memory = self._sender.empty((tensor.nbytes,), np.uint8)
            strides = torch.empty_like(tensor, device="meta").stride()
            copy = torch.from_numpy(memory).view(tensor.dtype).as_strided(tensor.shape, strides).copy_(tensor)
            self._copies.append(copy)  # keeps its slot
            found = self._in_slot(copy)
        if found is None:
            moved_to_shared_memory(tensor)
        return found

    def _in_slot(self, tensor: torch.Tensor) -> _InSlot | None:
        """Where the tensor is, if it is in a slot that can be sent."""
        address = tensor.data_ptr()
        for arena in self._sender.arenas:
            slot = arena.slot_at(address)
            if slot is not None and not arena.sent[slot]:  # else it was sent before, and is still in use
                number = self.slots.setdefault((arena, slot), len(self.slots))
                first = address - arena.address - slot * arena.size
                return _InSlot(number, first, tensor.dtype, tuple(tensor.shape), tensor.stride())
        return None


class _Unpacker(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, memory: list[Any], copied: bool) -> None:
        super().__init__(stream)
        self._memory, self._copied = memory, copied

    def persistent_load(self, way: Way) -> torch.Tensor:
        """The tensor that was sent in this way."""
        tensor = way.tensor(self._memory)
        return tensor.clone() if self._copied and isinstance(way, _InSlot) else tensor


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is nothing but numbers in the memory of the process."""
    special = tensor.requires_grad or tensor.is_quantized or tensor.is_nested or tensor.is_conj() or tensor.is_neg()
    return tensor.device.type == "cpu" and tensor.layout is torch.strided and not special
