"""The types of shardkit, as an editor sees them: the programs of README and docs pass mypy and pyright in strict mode.

Packages other than shardkit and NumPy are `Any` here: most have no types, and it is shardkit's that are checked. In a
program of a framework, the `RELAXED` rules are off: they would report that framework's own values. So is the rule about
names that a loop over nothing would leave without a value. The programs are those that are printed, without a comment
that would silence anything.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import shardkit

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TYPED = {"shardkit", "numpy", "typing_extensions", *sys.stdlib_module_names}
"""Packages whose types are used."""

SHARDKITS = ("accelerate", "fsspec", "h5py", "keras", "lightning", "obstore", "pyarrow", "ray", "tensorflow", "torch")
"""Packages in shardkit's own signatures and bases."""

FRAMEWORKS = re.compile(r"\b(?:jax|keras|lightning|tensorflow|tf|torch|transformers)\b")
"""Frameworks whose values programs handle, and from whose classes they derive their own; also as `to_torch()`."""

RELAXED = re.compile(r"reportUnknown\w+|reportMissingParameterType|reportOptionalMemberAccess|no-untyped-(?:def|call)")
"""Rules of the checkers that concern the types of frameworks."""

Checker = Callable[[Mapping[str, str], Path], list[str]]
"""Checks programs by name, in a folder; returns its errors, as `name.py:line: …`."""


def programs() -> Iterator[tuple[str, str]]:
    """(name, text) of each Python block; the blocks of a tutorial are one program, but for those that are files."""
    for page in PAGES:
        text, whole = page.read_text("utf-8"), []
        name = "of_" + re.sub(r"[^a-z]+", "_", page.stem.lower())
        for match in re.finditer(r"^```python( title=.*)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if page.parent.name == "tutorials" and not match[1]:
                whole.append(match[2])
            else:
                yield f"{name}_{text[: match.start(2)].count(chr(10)) + 1}", match[2]
        if whole:
            yield name, "\n".join(whole)


PROGRAMS = dict(programs())


def imported(text: str) -> set[str]:
    """The modules without types that a program imports, with those that contain them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            parts = name.split(".")
            if parts[0] not in TYPED:
                found |= {".".join(parts[: n + 1]) for n in range(len(parts))}
    return found


def untyped(texts: Mapping[str, str]) -> set[str]:
    """The modules that are `Any`: those of the programs, and those of shardkit."""
    found = set(SHARDKITS).union(*map(imported, texts.values()))
    for path in Path(shardkit.__file__).parent.rglob("*.py"):
        found |= imported(path.read_text("utf-8"))
    return found


def write(texts: Mapping[str, str], folder: Path) -> None:
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, "utf-8")


def is_shardkits(error: str, texts: Mapping[str, str]) -> bool:
    """Whether an error is not one of a relaxed rule in a program of a framework."""
    program, rule = texts[error.partition(".py:")[0]], re.split(r"[([]", error)[-1].rstrip("])")
    named = "\n".join(re.findall(r"(?m)^(?:import|from) .*|\.to_\w+", program)).replace(".to_", ".")
    return not (RELAXED.fullmatch(rule) and FRAMEWORKS.search(named))


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = {"MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **path, **environment}, capture_output=True, text=True, timeout=280
    )


def mypy(texts: Mapping[str, str], folder: Path) -> list[str]:
    write(texts, folder)
    packages = sorted({name.partition(".")[0] for name in untyped(texts)})
    (folder / "mypy.ini").write_text(
        "[mypy]\nstrict = true\npython_version = 3.11\nallow_subclassing_any = true\n"
        + "".join(f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = true\n" for name in packages)
    )
    cache = Path(os.environ.get("MYPY_CACHE_DIR", ROOT / ".mypy_cache")) / "programs"
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "--no-error-summary", "--hide-error-context"]
    done = run([*command, *(f"{name}.py" for name in texts)], folder)
    assert done.returncode in (0, 1), done.stderr + done.stdout
    return [line for line in done.stdout.splitlines() if ": error: " in line and is_shardkits(line, texts)]


def pyright(texts: Mapping[str, str], folder: Path) -> list[str]:
    if shutil.which("pyright") is None:
        pytest.skip("pyright is not installed")
    write(texts, folder)
    for name in untyped(texts):
        file = folder / "stubs" / Path(*name.split(".")) / "__init__.pyi"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("from typing import Any\ndef __getattr__(name: str) -> Any: ...\n")
    settings = {
        "typeCheckingMode": "strict", "pythonVersion": "3.11", "stubPath": "stubs", "extraPaths": [str(ROOT)],
        "reportPossiblyUnboundVariable": False, "include": [f"{name}.py" for name in texts],
    }  # fmt: skip
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    done = run(["pyright", "--pythonpath", sys.executable, "--outputjson"], folder)
    try:
        found = json.loads(done.stdout)["generalDiagnostics"]
    except json.JSONDecodeError:  # its program is fetched at the first use
        pytest.skip(f"pyright does not run here: {done.stderr.strip()[-200:]}")
    errors = [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']} ({each.get('rule')})"
        for each in found
        if each["severity"] == "error"
    ]
    return [error for error in errors if is_shardkits(error, texts)]


CHECKERS = pytest.mark.parametrize("check", [mypy, pyright])


@CHECKERS
def test_the_programs_of_the_docs_have_no_type_errors(check: Checker, tmp_path: Path) -> None:
    assert len(PROGRAMS) >= 20
    assert check(PROGRAMS, tmp_path) == []


def test_no_program_of_the_docs_silences_a_type_checker() -> None:
    assert [name for name, text in PROGRAMS.items() if re.search(r"type:\s*ignore|pyright:|mypy:", text)] == []


RIGHT = """
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import shardkit
from shardkit import Batch, Dataset, DecodedSample, Sample

Array = NDArray[Any]

stored = shardkit.dataset("shards/train", shuffle=1000)
assert_type(stored, Dataset[Sample])
for sample in stored:
    assert_type(sample["__key__"], str)
    assert_type(sample["cls"], int)
assert_type(stored[0], Sample)
assert_type(stored["key"], Sample)
assert_type(stored[:10].select("cat").take(3), Dataset[Sample])
assert_type(stored[np.arange(3)], Dataset[Sample])
assert_type(stored.split({"train": 0.5, "test": 0.5}), dict[str, Dataset[Sample]])
assert_type(stored.split(5)[0][1], Dataset[Sample])
assert_type(stored.batch(4), Dataset[dict[str, Any]])
assert_type(shardkit.mix([stored, stored], [1, 2]), Dataset[Sample])

decoded = stored.decode(size=224, flip=True)
assert_type(decoded, Dataset[DecodedSample])
for image in decoded:
    assert_type(image["jpg"], Array)
batches = decoded.batch(64, drop_last=True).repeat(2)
assert_type(batches, Dataset[Batch])
for images, labels in batches:
    assert_type(images, Array)
    assert_type(labels, Array)
for batch in batches:
    assert_type(batch.images, Array)
    assert_type(batch.keys, list[str])
    assert_type(batch[1], Array)


def flipped(sample: DecodedSample, rng: np.random.Generator) -> DecodedSample:
    if rng.random() < 0.5:
        sample["jpg"] = sample["jpg"][:, ::-1]
    return sample


def plain(sample: dict[str, Any]) -> dict[str, Any]:
    return sample


def anything(dataset: Dataset) -> None:
    assert_type(dataset.batch(8), Dataset[Any])


assert_type(decoded.map(flipped, rng=True).batch(8), Dataset[Batch])
assert_type(decoded.map(plain), Dataset[dict[str, Any]])
assert_type(decoded.map(lambda sample: (sample["__key__"], sample["__url__"])), Dataset[tuple[str, str]])
assert_type(decoded.map(lambda sample, seed: seed, rng="seed"), Dataset[int])
assert_type(batches.map(lambda batch: batch.labels.sum() > 1).filter(bool).batch_size, int | None)
anything(decoded)
anything(batches)
shardkit.write(({"jpg": b"", "cls": n} for n in range(3)), "shards/made", max_count=100)
"""

WRONG = """
import shardkit
import shardkit.keras
import shardkit.lightning
import shardkit.tensorflow

data = shardkit.dataset("shards/train")
shardkit.dataset("shards/train", shuffel=True)
data.decode(sise=224)
data.decode(interpolation="cubic")
data.batch(64, drop_remainder=True)
data.map(len, prng=True)
data.shuffle(buffer_size=10)
data.to_torch(batch_size=3)
data.to_torch().loader(workers=3)
data.to_keras(weights="age")
data.to_tf(grah=True)
data.prefetch(3)
data.split({"train": "most"})
shardkit.pack("data", "shards", num_workers=3)
shardkit.write([], "shards", maxcount=3)
shardkit.ShardWriter("shards", maxcount=3)
shardkit.convert("a", "b", max_cuont="tar")
shardkit.mix([data], weight=[1])
shardkit.mix([data.decode().batch(3)])
shardkit.keras.flow_from_shards("shards/train", target_sise=(3, 3))
shardkit.keras.image_dataset_from_shards("shards/train", img_size=3)
shardkit.keras.ImageDataGenerator(rotation=3)
shardkit.keras.ImageDataGenerator().flow_from_dataframe(None, has_extension=True)
shardkit.lightning.DataModule(trains=data)
shardkit.tensorflow.to_tf(data, grah=True)
for sample in data:
    sample["cls"].upper()
for images, labels, more in data.decode().batch(3):
    pass
"""


def lines_of(errors: list[str]) -> set[int]:
    return {int(error.split(":")[1]) for error in errors}


@CHECKERS
def test_items_have_their_types(check: Checker, tmp_path: Path) -> None:
    assert check({"right": RIGHT}, tmp_path) == []


@CHECKERS
def test_a_misspelled_option_is_an_error_in_the_editor(check: Checker, tmp_path: Path) -> None:
    """Each line of the program but its imports, its data and the heads of its loops is wrong."""
    right = re.compile(r"import |data = |for sample |    pass|$")
    wrong = {number for number, line in enumerate(WRONG.splitlines(), 1) if not right.match(line)}
    found = check({"wrong": WRONG}, tmp_path)
    assert wrong - lines_of(found) == set()
    assert len(wrong) > 20


def test_only_values_of_frameworks_are_not_checked() -> None:
    texts = {"of_keras": "import keras\n", "of_torch": "data.to_torch()\n", "plain": "import pyarrow\n"}
    lambdas, option = "(reportUnknownLambdaType)", "(reportCallIssue)"
    assert [is_shardkits(f"{name}.py:1: x {rule}", texts) for name in texts for rule in (lambdas, option)] == [
        False, True, False, True, True, True,
    ]  # fmt: skip
    assert not is_shardkits("of_keras.py:1: error: x  [no-untyped-def]", texts)


def test_the_package_says_that_it_has_types() -> None:
    assert (Path(shardkit.__file__).parent / "py.typed").exists()
