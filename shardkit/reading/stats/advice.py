"""The bottleneck in one sentence, with the option that would change it."""

from __future__ import annotations

from shardkit.reading.stats.bottleneck import Bottleneck, Figures
from shardkit.reading.stats.record import Setting
from shardkit.units import format_bytes


def sentence(name: Bottleneck, figures: Figures, setting: Setting, nbytes: float) -> str:
    """What the limit is, and what to do. nbytes: those that were read."""
    if name == "none":
        return "Too few batches were read to tell what the limit is."
    waits = f"the loop waits {_share(figures.wait + figures.hand_over, figures.seconds)} of its time"
    if name == "step":
        return f"The training step is the limit: {waits}, so no option of the loader would make it faster."
    spent = {"transform": figures.transform, "decode": figures.decode}.get(name, figures.fetch)
    spend = f"{waits}, and the decoding threads spend {_share(spent, figures.busy)} of theirs"
    rate = f"{format_bytes(nbytes / figures.seconds)}/s" if figures.seconds else "0 B/s"
    if name == "store":
        again = "later epochs come from the cache" if setting.cached else 'keep a copy on this machine with `cache="…"`'
        return f"The store is the limit: {spend} waiting for it ({rate}); {again}."
    if name == "disk":
        return (
            f"The disk is the limit: {spend} reading ({rate}); "
            "move the shards to a faster one, or pack smaller images with `pack(resize=…)`."
        )
    if name == "transform":
        return f"The functions of map() and filter() are the limit: {spend} in them; {_more(setting, _FUNCTIONS)}."
    if name == "decode":
        return f"Decoding is the limit: {spend} on it; {_more(setting, _DECODING)}."
    if name == "hand-over":
        return (
            f"The hand-over is the limit: {waits} for the work around its batches, not in them; "
            "use larger batches with `batch(…)`, and call map() and filter() before take() and skip()."
        )
    return _too_little_ahead(figures, setting, waits)


_FUNCTIONS = (
    "call map() after batch(), on whole batches, or let processes run them with `to_torch().loader(num_workers=…)`"
)
_DECODING = "decode fewer pixels: a smaller `size` of decode(), or images packed with `pack(resize=…)`"


def _more(setting: Setting, otherwise: str) -> str:
    if setting.threads < setting.cores:
        return f"use `threads={setting.cores}`, one for each core"
    return otherwise


def _too_little_ahead(figures: Figures, setting: Setting, waits: str) -> str:
    if figures.requests and figures.narrow:
        fact = f"{waits} for a store whose answers take long to begin, and `ahead_bytes` allows few requests at a time"
        return f"Too little is fetched ahead: {fact}; raise `ahead_bytes`."
    idle = _share(figures.available - figures.busy, figures.available)
    fact = f"{waits}, while the decoding threads are idle {idle} of theirs"
    return f"Too few batches are made ahead: {fact}; use `ahead={2 * max(setting.ahead, setting.threads + 2)}`."


def _share(part: float, whole: float) -> str:
    return f"{min(1.0, max(0.0, part / whole)):.0%}" if whole > 0 else "0%"
