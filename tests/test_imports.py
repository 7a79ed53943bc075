"""What loading shardkit costs and offers: nothing heavy, every public name, and the tree of errors."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import errors

HEAVY = {
    "PIL", "boto3", "cv2", "fsspec", "google_crc32c", "jax", "keras", "obstore", "pyarrow", "ray", "simplejpeg",
    "tensorflow", "torch", "tqdm", "webdataset", "yaml",
}  # fmt: skip


Loaded = Callable[[str], set[str]]


@pytest.fixture
def loaded_by(run_python: Any, tmp_path: Path) -> Loaded:
    """The top-level modules that a new interpreter has after some code."""
    report = "\nimport json, sys\nprint('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    return lambda code: set(json.loads(run_python("-c", code + report, cwd=tmp_path).stdout.splitlines()[-1]))


def test_importing_shardkit_loads_nothing_of_others(loaded_by: Loaded) -> None:
    loaded = loaded_by("import shardkit")
    assert loaded & (HEAVY | {"numpy", "msgspec", "click"}) == set()


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["pack", "--help"], ["info", "--help"], ["demo", "--help"], [], ["pakc"], ["pack"]],
    ids=" ".join,
)
def test_the_help_and_a_wrong_command_line_load_no_heavy_package(arguments: list[str], loaded_by: Loaded) -> None:
    code = f"from shardkit.cli.main import run\nrun({arguments!r})"
    assert loaded_by(code) & (HEAVY | {"numpy", "msgspec"}) == set()


def test_the_help_of_each_command_loads_no_heavy_package(loaded_by: Loaded) -> None:
    code = "from shardkit.cli.main import COMMANDS, run\nfor name in COMMANDS: assert run([name, '--help']) == 0"
    assert loaded_by(code) & (HEAVY | {"numpy", "msgspec"}) == set()


@pytest.mark.parametrize("name", ["pack", "dataset", "Dataset", "Manifest", "info"])
def test_a_public_name_loads_no_training_framework_and_no_decoder(name: str, loaded_by: Loaded) -> None:
    loaded = loaded_by(f"import shardkit\nshardkit.{name}")
    assert loaded & HEAVY == set()


def test_reading_an_epoch_loads_only_the_parts_of_arrow_that_read_an_index(
    run_python: Any, cars: str, tmp_path: Path
) -> None:
    code = "import shardkit, sys\nfor _ in shardkit.dataset(sys.argv[1], shuffle=True): pass\nprint(*sys.modules)"
    loaded = run_python("-c", code, cars, cwd=tmp_path).stdout.split()
    assert "pyarrow.parquet" in loaded
    assert {"pyarrow.compute", "pandas"}.isdisjoint(loaded)


def test_packing_a_list_loads_no_pandas(tree: Path, tmp_path: Path, loaded_by: Loaded) -> None:
    """Arrow loads it for lists of Python, which takes longer than a list of many thousand files."""
    rows = [f"{path.relative_to(tree)},{path.parent.name}" for path in sorted(tree.rglob("*.jpg"), reverse=True)]
    (tree / "list.csv").write_text("\n".join(["path,label", *rows]))
    code = f"import shardkit\nshardkit.pack({str(tree / 'list.csv')!r}, {str(tmp_path / 'out' / 'x')!r}, workers=1)"
    assert "pandas" not in loaded_by(code)


def test_all_equals_what_is_exported() -> None:
    assert sorted(shardkit.__all__) == sorted({*shardkit._HOME, "__version__"})
    for name in shardkit.__all__:
        assert getattr(shardkit, name) is not None


def test_every_public_name_is_listed_and_imported_for_type_checkers() -> None:
    typed = Path(shardkit.__file__).with_name("__init__.pyi").read_text("utf-8")
    names = set(re.findall(r"^from [\w.]+ import \w+ as (\w+)$", typed, re.MULTILINE))
    assert names - set(shardkit._NEED_EXTRA) - set(shardkit._MODULES) == set(shardkit._HOME)
    assert set(shardkit.__all__) <= set(dir(shardkit))


def test_a_public_name_knows_where_it_lives() -> None:
    for name, module in shardkit._HOME.items():
        assert getattr(shardkit, name).__module__ == module


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'shardkit' has no attribute 'packs'"):
        _ = shardkit.packs  # type: ignore[attr-defined]


def test_the_package_runs_as_a_module(run_python: Any, tmp_path: Path) -> None:
    run = run_python("-m", "shardkit", "--version", cwd=tmp_path)
    assert (run.stdout, run.stderr) == (f"shardkit {shardkit.__version__}\n", "")


def test_every_error_is_public() -> None:
    assert set(errors.__all__) <= set(shardkit.__all__)
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert set(errors.__all__) == defined


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    drawn: dict[str, tuple[str, int]] = {}
    parents = ["Exception"]
    for marks, name, code in re.findall(r"^    ([│├└─ ]*)(\w+Error) +(\d+) ", errors.__doc__ or "", re.MULTILINE):
        depth = len(marks) // 4
        drawn[name] = (parents[depth], int(code))
        parents[depth + 1 :] = [name]
    real = {name: getattr(errors, name) for name in errors.__all__}
    assert drawn == {name: (cls.__bases__[0].__name__, cls.exit_code) for name, cls in real.items()}


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_survives_a_process_pool(name: str) -> None:
    error = getattr(errors, name)("a.tar", "cut", "pack again", 512, "cat/1")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.args == error.args == ("a.tar", "cut", "pack again", 512, "cat/1")
    assert (again.place, again.fact, again.cure, again.offset, again.key) == error.args
    assert str(again) == "a.tar: at byte 512: sample cat/1: cut; pack again"


def test_the_text_of_an_error_is_one_line_whatever_the_names_hold() -> None:
    text = str(errors.BadFileError("cat/\n\x1b[31m\udcff.jpg", "no image"))
    assert text == "cat/\\n\\x1b[31m\\udcff.jpg: no image"
