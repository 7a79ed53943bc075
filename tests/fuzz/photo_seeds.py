"""Make fuzzing seeds of photographs of one's own: `python photo_seeds.py FOLDER OUT [COUNT]`.

Small pieces of real photographs in the kinds of JPEG that the decoder takes: baseline, progressive, gray, with restart
marks, optimised, and the four samplings; the last six bytes are what fuzz_jpeg.c asks of the decoder. The same folder
gives the same seeds.
"""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path

from PIL import Image

KINDS: tuple[tuple[str, dict[str, object]], ...] = (
    ("baseline", {"subsampling": "4:2:0"}),
    ("progressive", {"progressive": True, "subsampling": "4:2:0"}),
    ("progressive-444", {"progressive": True, "subsampling": "4:4:4"}),
    ("gray", {}),
    ("gray-progressive", {"progressive": True}),
    ("restarts", {"restart_marker_blocks": 3, "subsampling": "4:2:2"}),
    ("restarts-progressive", {"restart_marker_rows": 1, "progressive": True}),
    ("optimised", {"optimize": True, "subsampling": "4:4:4"}),
)


def make_seed(path: Path, number: int) -> tuple[str, bytes]:
    """Name and bytes of the seed that a photograph gives."""
    draw = random.Random(number)
    name, options = KINDS[number % len(KINDS)]
    width, height = draw.randint(17, 280), draw.randint(17, 280)
    image: Image.Image
    with Image.open(path) as image:
        image = image.convert("L" if name.startswith("gray") else "RGB")
        left, top = draw.randint(0, max(0, image.width - width)), draw.randint(0, max(0, image.height - height))
        image = image.crop((left, top, min(image.width, left + width), min(image.height, top + height)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=draw.randint(40, 95), **options)
    return f"{number:03}-{name}.jpg", file.getvalue() + draw.randbytes(8)


def main() -> None:
    """Write the seeds."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 48
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    out.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name, data = make_seed(paths[number * len(paths) // count], number)
        (out / name).write_bytes(data)


if __name__ == "__main__":
    main()
