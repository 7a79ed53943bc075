"""Does the choice of decoder affect training? A small network, trained with either one and with the same crops.

    python benchmarks/decode_model.py SHARDS [--size 64] [--epochs 10] [--seeds 4]

For each seed there are two trainings, with the same split, initial weights, order, boxes and flips: with images decoded
by the fused decoder, and exactly, by Pillow. Each network is then evaluated on the held-out fifth of the photographs
(centre crops), decoded either way. The output is the accuracy per seed, its mean and standard deviation, and the
difference within each seed. Needs torch.
"""

from __future__ import annotations

import argparse
import time
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch import nn

import shardkit
from shardkit.images import fused

WAYS = {"fused": False, "exact": True}


def network(classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for width, stride in ((32, 2), (64, 2), (128, 2), (128, 1)):
        layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(before, classes))


def normal(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def held_out(part: Any, size: int, exact: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = part.decode(size=size, crop="center", exact=exact).batch(128, drop_last=False)
    return [(torch.from_numpy(np.array(images)), torch.from_numpy(labels)) for images, labels in batches]


def accuracy(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(int((model(normal(images)).argmax(1) == labels).sum()) for images, labels in batches)
    return 100 * right / sum(len(labels) for _, labels in batches)


def trained(shards: str, seed: int, exact: bool, options: argparse.Namespace) -> nn.Module:
    """Train a network for all epochs. The seed determines its initial weights, the order, the boxes and the flips."""
    torch.manual_seed(seed)
    data = shardkit.dataset(shards, shuffle=10_000, seed=seed)
    part = data.split({"train": 0.8, "held out": 0.2}, seed=0)["train"]
    batches = part.decode(size=options.size, crop="random", flip=True, exact=exact).batch(64)
    model = network(len(data.classes))
    steps = options.epochs * len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(options.epochs):
        model.train()
        for images, labels in batches:
            loss = nn.functional.cross_entropy(model(normal(torch.from_numpy(images))), torch.from_numpy(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def spread(values: list[float]) -> str:
    return f"{mean(values):6.2f} ± {stdev(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    if not fused.available("jpeg"):
        parser.error(f"the fused decoder is not there: {fused.build_info()['reason']}")
    torch.set_num_threads(1)  # the other cores decode
    part = shardkit.dataset(options.shards).split({"train": 0.8, "held out": 0.2}, seed=0)["held out"]
    asked = {way: held_out(part, options.size, exact) for way, exact in WAYS.items()}
    found: dict[tuple[str, str], list[float]] = {}
    print(f"{'seed':>5}{'trained with':>14}{'asked with fused':>18}{'with exact':>12}{'seconds':>9}")
    for seed in range(options.seeds):
        for way, exact in WAYS.items():
            began = time.perf_counter()
            model = trained(options.shards, seed, exact, options)
            results = [accuracy(model, asked[other]) for other in WAYS]
            for other, result in zip(WAYS, results, strict=True):
                found.setdefault((way, other), []).append(result)
            seconds = time.perf_counter() - began
            print(f"{seed:5}{way:>14}{results[0]:18.2f}{results[1]:12.2f}{seconds:9.0f}", flush=True)
    if options.seeds < 2:
        return
    print("\naccuracy in %, mean ± standard deviation over the seeds")
    for (way, other), values in found.items():
        print(f"  trained with {way}, asked with {other}: {spread(values)}")
    pairs = zip(found["fused", "fused"], found["exact", "exact"], strict=True)
    print(f"  fused less exact, seed by seed: {spread([ours - theirs for ours, theirs in pairs])}")


if __name__ == "__main__":
    main()
