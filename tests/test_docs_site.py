"""The pages of the documentation site: their programs run, and their tables are those of the code."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest

import shardkit
from shardkit import errors
from shardkit.cli import main
from shardkit.images.decoder import DecodeOptions
from shardkit.reading.batches.columns import ColumnsLike
from shardkit.shards.index import NULLABLE, SEEK, schema
from shardkit.shards.manifest import LabelKind, Manifest
from shardkit.shards.quality import QUALITY

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIALS = sorted(path for path in (DOCS / "tutorials").glob("*.md") if path.stem != "index")
ALONE = sorted(path for folder in ("guides", "format", "reference") for path in (DOCS / folder).glob("*.md"))
"""Pages whose blocks run each on its own."""

NEEDS = {
    "bucket": ("moto", "obstore"), "cluster": ("ray",), "jax": ("jax",), "keras": ("keras", "tensorflow"),
    "many-gpus": ("torch",), "pytorch": ("torch",), "tensorflow": ("tensorflow", "keras"),
}  # fmt: skip
"""Packages without which a page can't run."""

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """(language, title, content) of each fenced block."""
    for found in BLOCK.finditer(page.read_text("utf-8")):
        yield found[1], found[2] or "", found[3]


def command(line: str) -> str:
    """Python that runs a line of a console block as it is typed."""
    program, *arguments = shlex.split(line)
    if program == "shardkit":
        return f"assert __import__('shardkit.cli.main').cli.main.run({arguments!r}) == 0\n"
    assert program == "torchrun"
    words = f"[__import__('sys').executable, '-m', 'torch.distributed.run', *{arguments!r}]"
    return f"__import__('subprocess').run({words}, check=True)\n"


def program(page: Path, folder: Path) -> str:
    """All blocks of a page as a program; a block with a title is written to the file of that name."""
    parts = []
    for language, title, content in blocks(page):
        if title:
            (folder / title).write_text(content, "utf-8")
        elif language == "python":
            parts.append(content)
        elif language == "console":
            parts += [command(line.removeprefix("$ ")) for line in content.splitlines() if line.startswith("$ ")]
    return "\n".join(parts)


def require(page: Path) -> None:
    """Skip the test of a page if a package that it needs is not installed."""
    for name in NEEDS.get(page.stem, ()):
        if not importlib.util.find_spec(name):
            pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    """A folder with the `data/` of the pages."""
    root = tmp_path_factory.mktemp("pages")
    splits = {"train": 10, "validation": 4, "test": 2}
    draw_tree(root / "data", {f"{split}/{name}": n for split, n in splits.items() for name in ("blue", "red")})
    return root / "data"


@pytest.fixture
def folder(tmp_path: Path, data: Path) -> Path:
    """A folder in which a page runs, with `data/` in it."""
    (tmp_path / "data").symlink_to(data)
    return tmp_path


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables of an environment in which `s3://bucket` is a new bucket of a server on this machine."""
    from storage.servers import make_bucket

    endpoint = request.getfixturevalue("s3_endpoint")
    make_bucket(endpoint, "bucket")
    return {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1", "XDG_CACHE_HOME": str(request.getfixturevalue("tmp_path")),
    }  # fmt: skip


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(
    page: Path, folder: Path, run_python: Any, request: pytest.FixtureRequest
) -> None:
    require(page)
    variables = request.getfixturevalue("bucket") if page.stem == "bucket" else {}
    text = program(page, folder)
    assert "shardkit" in text
    done = run_python("-c", text, cwd=folder, check=False, KERAS_BACKEND="tensorflow", **variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ALONE, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_the_blocks_of_a_guide_run(page: Path, folder: Path, run_python: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    require(page)
    found = [(language, content) for language, _, content in blocks(page) if language in ("python", "console")]
    if not found:
        return
    monkeypatch.chdir(folder)
    assert main.run(["pack", "data", "shards"]) == 0
    for language, content in found:
        if language == "python":
            done = run_python("-c", content, cwd=folder, check=False, KERAS_BACKEND="tensorflow")
            assert done.returncode == 0, f"{content}\n{done.stderr}"
            continue
        for line in (line for line in content.splitlines() if line.startswith("$ ")):
            name, *arguments = shlex.split(line.removeprefix("$ "))
            assert name == "shardkit" and main.run(arguments) == 0, line


def cells(page: Path) -> list[list[str]]:
    """The rows of the tables of a page, without their heads."""
    rows = re.findall(r"^\| (.+) \|$", page.read_text("utf-8"), re.MULTILINE)
    return [re.split(r" \| ", row) for row in rows]


def test_every_public_name_is_in_the_reference_once(hooks: Any) -> None:
    text = "".join(page.read_text("utf-8") for page in sorted((DOCS / "reference").glob("*.md")))
    named = re.findall(r"^::: shardkit\.(\w+)$", text, re.MULTILINE)
    extra = {*shardkit._NEED_EXTRA, *shardkit._MODULES}
    results = re.findall(r"^::: shardkit\.(\w+)$", hooks.results(), re.MULTILINE)
    assert sorted([*named, *results]) == sorted({*shardkit.__all__, *extra} - {"__version__"})
    assert [name for name in results if not isinstance(getattr(shardkit, name), type)] == []
    assert "Manifest" in results and "ShardEntry" in results


def test_the_exit_codes_are_those_of_the_code_and_its_help() -> None:
    rows = [tuple(row) for row in cells(DOCS / "reference/exit-codes.md") if row[0].isdigit()]
    assert rows == re.findall(r"^  (\d+) +(.+)$", main.EXIT_CODES, re.MULTILINE)
    real = {getattr(errors, name).exit_code for name in errors.__all__}
    assert {int(code) for code, _ in rows} == real | {0, main.BUG, main.INTERRUPTED, main.BROKEN_PIPE}


def test_every_error_has_causes_and_a_cure() -> None:
    page = DOCS / "reference/errors.md"
    rows = {row[0].strip("`"): row for row in cells(page) if re.fullmatch(r"`\w+Error`", row[0])}
    assert set(rows) == set(errors.__all__) - {"ShardkitError"}
    assert all(len(row) == 3 and all(row) for row in rows.values())
    tree = re.findall(
        r"(\w+Error) +(?:exit code )?(\d)", page.read_text("utf-8").partition("```text")[2].partition("```")[0]
    )
    assert dict(tree) == {name: str(getattr(errors, name).exit_code) for name in errors.__all__}


def test_every_option_of_decode_is_in_its_table_with_its_default() -> None:
    rows = {row[0].strip("`"): row for row in cells(DOCS / "reference/decode.md") if row[0].startswith("`")}
    parameters = inspect.signature(shardkit.Dataset.decode).parameters
    assert list(rows) == [name for name in parameters if name != "self"]
    hints = get_type_hints(DecodeOptions)
    hints["columns"] = ColumnsLike | None
    for name, (_, values, default, _) in rows.items():
        assert default.strip("`").replace('"', "'") == repr(parameters[name].default), name
        for choice in get_args(hints[name]):
            for word in get_args(choice) or (choice,):
                assert not isinstance(word, str) or f'"{word}"' in values, (name, word)
    assert rows.keys() == {each.name for each in fields(DecodeOptions)} | {"columns"}


NO_VARIABLES = {
    "ALREADY_EXISTS", "NOT_FOUND", "SPREAD", "CPU", "SOCK_SEQPACKET", "SO_PEERCRED", "SC_PAGE_SIZE", "SC_PHYS_PAGES",
    "MADV_DONTNEED", "PART_DIGEST",
}  # fmt: skip
"""Other words in capitals in these files: statuses of gRPC, terms of Ray, names of sockets, of the system and of C."""


def read_variables() -> set[str]:
    """The environment variables that the code reads: words in capitals, in the files that look at the environment."""
    found = set()
    for path in [*(ROOT / "shardkit").rglob("*.py"), ROOT / "setup.py"]:
        text = path.read_text("utf-8")
        if re.search(r"\benviron\b", text):
            found |= set(re.findall(r'"(_?[A-Z]{2,}(?:_[A-Z0-9]+)*)"', text))
    return found - NO_VARIABLES


def test_every_environment_variable_that_is_read_is_documented() -> None:
    named = set(re.findall(r"`(_?[A-Z][A-Z0-9_]+)`", (DOCS / "reference/environment.md").read_text("utf-8")))
    assert len(read_variables()) > 40
    assert read_variables() - named == set()


def schema_of_manifests() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    content = json.loads((DOCS / "format/manifest.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def test_the_schema_knows_every_key_of_a_manifest() -> None:
    content = json.loads((DOCS / "format/manifest.schema.json").read_text("utf-8"))
    assert set(content["properties"]) == set(Manifest.__struct_fields__)
    assert set(content["properties"]["options"]["properties"]["labels"]["enum"]) == set(get_args(LabelKind))


def test_manifests_of_all_writers_are_valid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    validator = schema_of_manifests()
    image = (folder / "data/train/red/0000.jpg").read_bytes()
    (folder / "bad/cat").mkdir(parents=True)
    (folder / "bad/cat/0.jpg").write_bytes(b"no image")
    (folder / "bad/cat/1.jpg").write_bytes(image)
    (folder / "list.csv").write_text("path,label\ndata/test/red/0000.jpg,0.5\ndata/test/red/0001.jpg,1.5\n")
    for line in (
        "pack data out",
        "pack data/train tfrecord/train --format tfrecord --max-count 7",
        "pack data/test flat/test --no-labels",
        "pack list.csv numbers",
        "pack bad left --on-error skip",
        "convert out/train converted/train --max-count 5 --shuffle",
        "repair out/train repaired/train",
        "index out/validation-000000.tar --overwrite",
        "delete out/train --key red/0000",
        "revert out/train 1",
        "upload out/test slow+file://" + str(folder) + "/uploaded/test",
    ):
        assert main.run(line.split()) == 0, line
    (folder / "bad/cat/2.jpg").write_bytes(image)
    assert main.run(["pack", "bad", "left", "--on-error", "skip", "--append"]) == 0
    shardkit.write([{"txt": "a", "__key__": "1"}], "written")
    found = [path for path in folder.rglob("*.json") if b'"format": "shardkit"' in path.read_bytes()]
    assert len(found) >= 11
    kinds: set[str] = set()
    for path in found:
        manifest = json.loads(path.read_text("utf-8"))
        kinds |= {name for name, value in manifest.items() if value} | set(manifest["options"])
        assert [error.message for error in validator.iter_errors(manifest)] == [], path
    assert {"skipped", "labels", "appended", "corrections", "fields", "index", "plan"} <= kinds


@pytest.mark.parametrize(
    "change",
    [
        {"version": 4}, {"shard_format": "zip"}, {"samples": -1}, {"samples": 1.5}, {"plan": "XY"}, {"format": "x"},
        {"options": {"labels": "some"}}, {"shards": [{"name": "a/b", "samples": 1, "bytes": 16, "crc32c": "00000000"}]},
        {"shards": [{"name": "a", "samples": 1, "bytes": 16, "crc32c": "0000000G"}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_manifest_is_not_valid(change: dict[str, Any]) -> None:
    import msgspec

    good = json.loads(msgspec.json.encode(Manifest(samples=0, bytes=0, shards=())))
    assert schema_of_manifests().is_valid(good)
    assert not schema_of_manifests().is_valid(good | change)


def test_the_columns_of_the_index_are_those_of_the_specification() -> None:
    page = (DOCS / "format/v1.md").read_text("utf-8").partition("## The index")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+)[^|]*\| (yes|no) \|", page, re.MULTILINE)
    kinds = {"dictionary<values=string, indices=int32, ordered=0>": "string"}
    real = [
        (each.name, kinds.get(str(each.type), str(each.type)), "yes" if each.nullable else "no")
        for each in schema(seek=True, quality=True)
    ]
    assert rows == real
    assert {name for name, _, null in rows if null == "yes"} == {*NULLABLE, *QUALITY, SEEK}


def test_the_pictures_are_those_that_the_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import docs_pictures

    for name, content in docs_pictures.drawn().items():
        assert (docs_pictures.FOLDER / name).read_text("utf-8") == content, name


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """scripts/docs_hooks.py, which needs mkdocs."""
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import docs_hooks

    return docs_hooks


def test_every_page_is_in_the_navigation_once(hooks: Any) -> None:
    import yaml

    listed = list(hooks.pages(hooks.filled(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])))
    written = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted([*written, *hooks.INCLUDED])


@pytest.mark.parametrize(
    ("target", "home", "expected"),
    [
        ("packing.md#splits", "docs", "[x](/packing.md#splits)"),
        ("../benchmarks/RESULTS.md", "docs", "[x](/benchmarks.md)"),
        ("docs/architecture.md", "", "[x](/architecture.md)"),
        ("README.md", "", "[x](/index.md)"),
        ("README.md", "benchmarks", "[x](/benchmarks-method.md)"),
        ("guard.json", "benchmarks", "x (`benchmarks/guard.json`)"),
        ("#here", "docs", "[x](#here)"),
        ("https://example.org/a.md", "docs", "[x](https://example.org/a.md)"),
    ],
)
def test_a_link_of_the_repository_becomes_one_of_the_site(hooks: Any, target: str, home: str, expected: str) -> None:
    assert hooks.link("x", target, home) == expected


def test_llms_txt_has_each_page_with_its_first_sentence(hooks: Any) -> None:
    texts = {"a.md": "# One\n\nThe **first** [page](b.md). And more.\n", "b.md": "# Two\n\n| a table |\n"}
    text = hooks.llms_text([{"Part": ["a.md", {"Inner": ["b.md"]}]}], texts)
    assert text.endswith("## Part\n\n- [One](a.md): The first page.\n- [Two](b.md)\n")


def test_parameters_that_a_docstring_describes_become_a_list(hooks: Any) -> None:
    pytest.importorskip("griffe")
    import docs_griffe

    text = "Do it.\n\nFirst this. size, crop: the size: a number.\nflip: mirror. other: no name.\n\n    size: code\n"
    expected = "Do it.\n\nFirst this.\n\n- `size`, `crop`: the size: a number.\n- `flip`: mirror. other: no name."
    assert docs_griffe.as_list(text, {"size", "crop", "flip"}) == expected + "\n\n    size: code\n"
    assert docs_griffe.as_list(text, set()) == text


def typed(page: Path) -> Iterator[tuple[str, str]]:
    """(command, option) for each option of shardkit in the code of a page."""
    text = page.read_text("utf-8")
    code = [*(content for _, _, content in blocks(page)), *re.findall(r"`([^`\n]+)`", text)]
    for line in (line for part in code for line in part.splitlines()):
        found = re.match(r"(?:\$ )?(?:shardkit )?([a-z-]+) (.*)", line.strip())
        if found and found[1] in main.COMMANDS:
            yield from ((found[1], option) for option in re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", found[2]))


PAGES = sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_each_option_that_a_page_types_is_one_of_its_command(page: Path) -> None:
    context = click.Context(main.cli)
    for name, option in typed(page):
        command_ = main.cli.get_command(context, name)
        assert command_ is not None
        known = {each for param in command_.params for each in (*param.opts, *param.secondary_opts)}
        assert option in known | {"--help", "-h"}, f"shardkit {name} {option}"


def test_options_are_found_in_the_pages() -> None:
    assert len([option for page in PAGES for option in typed(page)]) > 60
