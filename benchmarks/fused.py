"""Compare the fused JPEG decoder with the general path and with bare loops, over a folder of JPEGs: time and pixels.

    python benchmarks/fused.py FOLDER [--size 224] [--count 640] [--batch 64] [--rounds 5] [--picture DIFF.png]
    python benchmarks/fused.py FOLDER --options [--size 32] [--count 2048] [--batch 128] [--vectors avx2] [--format png]

Time is processor time per image in one thread, with the contestants in turns, as the median of the rounds: other load
on the machine affects it little. Pixels: mean absolute difference from Pillow's decode, crop and antialiased bilinear
resize, in steps of 1/255. The picture shows some crops: Pillow's, the fused decoder's, and 32 times their difference
on gray. With --options: the rates of every other option as parts of that of a bilinear random crop; where all images
have the size, of whole ones. Crops that take another box are compared with a bilinear one of the same kind. --vectors:
as if the processor had no longer ones. --format: the images are saved so before.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from decode_accuracy import read_images

from shardkit.images import fused
from shardkit.images.crops import center_box, random_box
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.native import load

CROPS = ("resize", "center", "random")
Fill = Callable[[list[bytes], np.ndarray, Any], object]


@contextmanager
def without_fused() -> Iterator[None]:
    kept = fused.available
    fused.available = lambda part="": False
    try:
        yield
    finally:
        fused.available = kept


def bare(crop: str, size: int, *, factor: int | None) -> Fill:
    """Decode with simplejpeg (whole, or with DCT scaling by at least `factor` eighths), crop and resize with OpenCV."""
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)

    def fill(datas: list[bytes], out: np.ndarray, draws: Any) -> None:
        for i, data in enumerate(datas):
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            top, left, h, w = 0.0, 0.0, float(height), float(width)
            if crop == "center":
                top, left, h, w = center_box(height, width, (size, size))
            elif crop == "random":
                top, left, h, w = random_box(height, width, draws[i, 1:].tolist())
            least = {"min_height": math.ceil(height * size / h), "min_width": math.ceil(width * size / w)}
            image = simplejpeg.decode_jpeg(data, **({**least, "min_factor": factor} if factor else {}))
            y, x = image.shape[0] / height, image.shape[1] / width
            part = image[round(top * y) : round((top + h) * y), round(left * x) : round((left + w) * x)]
            cv2.resize(part, (size, size), dst=out[i])
            if draws is not None and draws[i, 0] < 0.5:
                cv2.flip(out[i], 1, dst=out[i])

    return fill


def contestants(crop: Any, size: int) -> dict[str, Fill]:
    decoder = ImageDecoder(DecodeOptions(size=size, crop=crop, flip=crop == "random"))

    def other_way(datas: list[bytes], out: np.ndarray, draws: Any) -> None:
        with without_fused():
            decoder.batch_into(datas, out, draws)

    return {
        "bare loop, whole image": bare(crop, size, factor=None),
        "bare loop, DCT scaling": bare(crop, size, factor=1),
        "bare loop, DCT scaling by 2 or more": bare(crop, size, factor=2),
        "simplejpeg way": other_way,
        "fused": decoder.batch_into,
    }


def microseconds(fill: Fill, datas: list[bytes], size: int, batch: int, draws: Any) -> float:
    out = np.empty((batch, size, size, 3), np.uint8)
    began = time.process_time()
    for i in range(0, len(datas), batch):
        part = datas[i : i + batch]
        fill(part, out[: len(part)], None if draws is None else draws[i : i + batch])
    return (time.process_time() - began) / len(datas) * 1e6


def speed(datas: list[bytes], size: int, batch: int, rounds: int) -> None:
    print(f"{'crop':9}{'contestant':38}{'us/image':>9}{'least':>8}{'fused is':>11}")
    for crop in CROPS:
        decoder = ImageDecoder(DecodeOptions(size=size, crop=crop, flip=crop == "random"))  # type: ignore[arg-type]
        draws, fills = decoder.draws(1, np.arange(len(datas))), contestants(crop, size)
        times: dict[str, list[float]] = {name: [] for name in fills}
        for _ in range(rounds):
            for name, fill in fills.items():
                times[name].append(microseconds(fill, datas, size, batch, draws))
        ours = statistics.median(times["fused"])
        for name, found in times.items():
            median = statistics.median(found)
            print(f"{crop:9}{name:38}{median:9.0f}{min(found):8.0f}{median / ours:10.2f}x")


VECTORS = {"sse2": 0, "avx2": 1, "vnni": 2}
FORMATS = {"jpeg": {}, "png": {"compress_level": 6}, "webp": {"quality": 90}}
IMAGENET = {"mean": "imagenet", "std": "imagenet"}
Kinds = dict[str, tuple[str, dict[str, Any]]]
"""Name -> the name of the kind that it is compared with, and the options."""


def kinds_of_options(size: int, *, whole: bool) -> Kinds:
    """What is asked of the decoder; the first is the fast path."""
    base = {"size": size} if whole else {"size": size, "crop": "random", "flip": True}
    smaller = base | {"size": size * 3 // 4} if whole else base
    fast, gray = "fast path", "gray"
    kinds: Kinds = {fast: (fast, base)}
    if whole:
        kinds |= {"no size": (fast, {}), "resized": (fast, smaller)}
    for name in ("bilinear", "bicubic", "lanczos", "area", "hamming", "nearest"):
        kinds |= {
            name: (fast, smaller | {"interpolation": name}),
            f"exact {name}": (fast, smaller | {"interpolation": name, "exact": True}),
        }
    kinds |= {
        "float32": (fast, base | {"dtype": "float32"}),
        "float32 imagenet": (fast, base | IMAGENET),
        "float32 imagenet chw": (fast, base | IMAGENET | {"layout": "chw"}),
        "uint8 chw": (fast, base | {"layout": "chw"}),
        "rescale": (fast, base | {"rescale": 1 / 255}),
        "orientation": (fast, base | {"orientation": True}),
        "vertical flip": (fast, base | {"flip": "vertical"}),
        "both flips": (fast, base | {"flip": "both"}),
        "pad": (fast, {"size": size, "crop": "pad", "padding": size // 8, "fill": (124, 116, 104)} if whole else base),
        gray: (fast, base | {"color": "gray"}),
        "exact gray": (fast, smaller | {"color": "gray", "exact": True}),
        "exact gray lanczos": (fast, smaller | {"color": "gray", "exact": True, "interpolation": "lanczos"}),
        "exact imagenet chw": (fast, smaller | IMAGENET | {"exact": True, "layout": "chw"}),
        "scale and ratio": (fast, base | {"crop": "random", "scale": (0.08, 1.0), "ratio": (0.75, 1.333)}),
    }
    for name in ("float16", "bfloat16"):
        kinds[f"{name} imagenet"] = (fast, base | IMAGENET | {"dtype": name})
    for crop in ("resize", "center", "cover", "random-cover"):
        box = {"size": smaller["size"], "crop": crop}
        kinds |= {
            crop: (crop, box),
            f"{crop} exact bicubic": (crop, box | {"exact": True, "interpolation": "bicubic"}),
            f"{crop} exact lanczos": (crop, box | {"exact": True, "interpolation": "lanczos"}),
        }
    if not whole:
        padded = {"size": size, "crop": "pad", "padding": size // 8}
        kinds |= {"pad": ("resize", padded), "pad exact": ("resize", padded | {"exact": True})}
    return kinds


def processor_time(one: ImageDecoder, datas: list[bytes], out: np.ndarray, batch: int) -> float:
    """Microseconds an image."""
    draws, began = one.draws(1, np.arange(len(datas))), time.process_time()
    for i in range(0, len(datas), batch):
        part = datas[i : i + batch]
        assert not one.batch_into(part, out[: len(part)], None if draws is None else draws[i : i + batch])
    return (time.process_time() - began) / len(datas) * 1e6


def options_speed(datas: list[bytes], size: int, batch: int, rounds: int, only: str) -> None:
    """Print the rate of each kind of options, of that of the one it is compared with."""
    from PIL import Image

    shapes = {Image.open(io.BytesIO(data)).size for data in datas}
    kinds = kinds_of_options(size, whole=shapes == {(size, size)})
    asked = {name for name in kinds if only in name}
    asked |= {kinds[name][0] for name in asked}
    decoders = {name: ImageDecoder(DecodeOptions(**kinds[name][1])) for name in kinds if name in asked}
    decoders = {name: one if one.shape else one.of_size((size, size)) for name, one in decoders.items()}
    outs = {name: np.empty((batch, *(one.shape or ())), one.dtype) for name, one in decoders.items()}
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds + 1):
        for name, one in decoders.items():
            times[name].append(processor_time(one, datas, outs[name], batch))
    print(f"{'options':28}{'us/image':>9}{'rate':>8}  of that of")
    for name, found in times.items():
        fast, own = times[kinds[name][0]][1:], found[1:]  # without the first round
        ratio = statistics.median(a / b for a, b in zip(fast, own, strict=True))
        print(f"{name:28}{statistics.median(own):9.1f}{ratio:8.2f}  {kinds[name][0]}", flush=True)


def saved_as(datas: list[bytes], name: str) -> list[bytes]:
    """The images in another format."""
    from PIL import Image

    found = []
    for data in datas:
        to = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").save(to, name, **FORMATS[name])
        found.append(to.getvalue())
    return found


def pixels(datas: list[bytes], size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Print the differences; return a few pairs (Pillow's, ours) for the picture."""
    print(f"\n{'crop':9}{'color':7}{'fused: mean':>12}{'worst 1%':>10}{'bias':>8}{'simplejpeg: mean':>18}")
    shown = []
    for crop in CROPS:
        for color in ("rgb", "gray"):
            asked: dict[str, Any] = {"size": size, "crop": crop, "flip": True, "color": color}
            fast, exact = ImageDecoder(DecodeOptions(**asked)), ImageDecoder(DecodeOptions(**asked, exact=True))
            draws = fast.draws(1, np.arange(len(datas)))
            assert draws is not None
            errors, biases, others = [], [], []
            for data, row in zip(datas, draws, strict=True):
                expected, found = exact.array(data, row).astype(int), fast.array(data, row).astype(int)
                with without_fused():
                    others.append(float(np.abs(fast.array(data, row).astype(int) - expected).mean()))
                errors.append(float(np.abs(found - expected).mean()))
                biases.append(float((found - expected).mean()))
                if color == "rgb" and len(errors) <= 2:
                    shown.append((expected, found))
            worst = float(np.mean(sorted(errors)[-max(1, len(errors) // 100) :]))
            print(
                f"{crop:9}{color:7}{np.mean(errors):12.3f}{worst:10.3f}{np.mean(biases):8.3f}{np.mean(others):18.3f}",
                flush=True,
            )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--count", type=int, default=640)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--options", action="store_true", help="compare the options of decode()")
    parser.add_argument("--only", default="", help="with --options: those that have this in their name")
    parser.add_argument("--vectors", choices=VECTORS, default="vnni")
    parser.add_argument("--format", choices=FORMATS, default="jpeg")
    options = parser.parse_args()
    if not fused.available("jpeg"):
        parser.error(f"the fused decoder is not there: {fused.build_info()['reason']}")
    datas = read_images(options.folder, options.count)
    print(f"{len(datas)} images to {options.size} x {options.size}; {fused.build_info()}")
    if options.options:
        part = load(options.format)[0]
        if options.format != "jpeg":
            datas = saved_as(datas, options.format)
        print(f"{options.format}, vectors: {list(VECTORS)[part.allow_vectors(VECTORS[options.vectors])]}")
        options_speed(datas, options.size, options.batch, options.rounds, options.only)
        return
    speed(datas, options.size, options.batch, options.rounds)
    shown = pixels(datas, options.size)
    if options.picture:
        from PIL import Image

        rows = [np.hstack((a, b, np.clip(128 + 32 * (b - a), 0, 255))) for a, b in shown]
        Image.fromarray(np.vstack(rows).astype(np.uint8)).save(options.picture)


if __name__ == "__main__":
    main()
