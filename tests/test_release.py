"""What builds and publishes a release: wheels, workflows, the sdist, and the check of a version."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import shardkit

ROOT = Path(__file__).parents[1]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, WHEELS = CONFIGURATION["project"], CONFIGURATION["tool"]["cibuildwheel"]
WORKFLOWS = {path.stem: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
EXECUTABLE = ("libjpeg_turbo.sh", "libwebp.sh", "build_wheels.sh", "test_wheel.sh")


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOWS[name].read_text("utf-8"))
    return found


def steps(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", step.get("uses", "")) for step in job["steps"])


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# wheels


def test_wheels_are_built_and_tested_for_each_python_that_is_announced() -> None:
    announced = re.findall(r"Python :: 3\.(\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    assert WHEELS["build"].split() == [f"cp3{minor}-*" for minor in announced]
    assert PROJECT["requires-python"] == f">=3.{announced[0]}"


def test_the_stable_abi_is_that_of_the_oldest_python() -> None:
    setup = (ROOT / "setup.py").read_text("utf-8")
    minor = int(PROJECT["requires-python"].removeprefix(">=3."))
    assert f'("Py_LIMITED_API", "0x03{minor:02x}0000")' in setup
    assert f'"py_limited_api": "cp3{minor}"' in setup


def test_each_system_builds_all_c_parts_or_says_that_it_builds_none() -> None:
    assert WHEELS["environment"]["SHARDKIT_PARTS"] == WHEELS["macos"]["environment"]["SHARDKIT_PARTS"] == "all"
    assert WHEELS["windows"]["environment"]["SHARDKIT_PARTS"] == "none"
    for system in (WHEELS, WHEELS["macos"]):
        jpeg, webp = (command.split() for command in WHEELS["before-all"].split(" && "))
        assert system["environment"]["JPEG_PREFIX"] == jpeg[-1]
        assert system["environment"]["WEBP_PREFIX"] == webp[-1]


def test_the_scripts_of_the_build_exist_and_can_be_run() -> None:
    for name in EXECUTABLE:
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111
        subprocess.run(["bash", "-n", str(ROOT / "scripts" / name)], check=True)
    named = re.findall(r"scripts/([\w.]+)", WHEELS["before-all"] + WHEELS["test-command"])
    assert set(named) == {"libjpeg_turbo.sh", "libwebp.sh", "test_wheel.sh", "test_wheel.txt"}
    assert all((ROOT / "scripts" / name).is_file() for name in named)


def test_the_extra_all_names_extras_that_exist() -> None:
    extras = PROJECT["optional-dependencies"]
    (line,) = extras["all"]
    named = re.fullmatch(r"shardkit\[(.+)\]", line)
    assert named is not None
    assert set(named[1].split(",")) < set(extras)


PAGE = {path.suffix for path in (ROOT / "shardkit" / "tools" / "viewer" / "web").iterdir()}


def test_a_wheel_holds_the_library_alone(sdist: Path, tmp_path: Path) -> None:
    """Without C parts and their sources; on Windows it is named for it."""
    code = (
        "from setuptools.build_meta import build_wheel\n"
        f"print(build_wheel({str(tmp_path)!r}, {{'--build-option': ['--plat-name=win_amd64']}}))"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | WHEELS["windows"]["environment"]
    done = subprocess.run(command, cwd=sdist, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wheel = done.stdout.split()[-1]
    assert wheel == f"shardkit-{shardkit.__version__}-py3-none-win_amd64.whl"
    with zipfile.ZipFile(tmp_path / wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"shardkit", f"shardkit-{shardkit.__version__}.dist-info"}
    assert {Path(name).suffix for name in names if name.startswith("shardkit/")} == {".py", ".pyi", ".typed"} | PAGE
    assert f"shardkit-{shardkit.__version__}.dist-info/licenses/licenses/libjpeg-turbo.md" in names


# workflows


def test_ci_runs_the_whole_check() -> None:
    assert ".ci/run" in steps(workflow("ci")["jobs"]["check"]).splitlines()


def test_a_release_is_published_by_trust_and_not_by_a_token() -> None:
    jobs = workflow("release")["jobs"]
    publish = jobs["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert set(publish["needs"]) == {"sdist", "wheels"}
    assert "secrets." not in WORKFLOWS["release"].read_text("utf-8")
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})] == ["publish"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_only_read_and_keeps_no_credentials(name: str) -> None:
    found = workflow(name)
    assert found["permissions"] == {"contents": "read"}
    for job in found["jobs"].values():
        for step in job["steps"]:
            if "actions/checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
        for script in re.findall(r"(?:scripts|\.ci)/[\w.]+", steps(job)):
            assert (ROOT / script).is_file(), script


# the sdist


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this tree, unpacked."""
    work = tmp_path_factory.mktemp("sdist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is not a working tree of git")
    for name in filter(None, listed.stdout.split("\0")):
        (work / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / "tree" / name)
    code = "from setuptools.build_meta import build_sdist; print(build_sdist('..'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=work / "tree", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(work / done.stdout.split()[-1]) as tar:
        tar.extractall(work / "out", filter="data")
    (folder,) = (work / "out").iterdir()
    return folder


def test_the_sdist_holds_the_whole_project(sdist: Path) -> None:
    there = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    tree = sdist.parents[1] / "tree"
    ours = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    ours = {name for name in ours if ".egg-info" not in name and not name.startswith((".git", ".pre-commit", "llms"))}
    assert ours <= there
    assert not [name for name in there if name.endswith((".so", ".pyc"))]


def test_the_tests_in_the_sdist_run(sdist: Path, run_python: Any) -> None:
    done = run_python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_trust.py", "-k", "read or limits",
        cwd=sdist, check=False, PYTHONPATH=str(sdist),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# the version


CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-11-26

### Added

- a thing

## [1.1.0] - 2026-01-01

- x
"""


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A project whose version 1.2.0 can be released."""
    for name, text in {
        "shardkit/version.py": '__version__ = "1.2.0"\n',
        "CHANGELOG.md": CHANGELOG,
        "CITATION.cff": "title: x\nversion: 1.2.0\nlicense: y\n",
        "tests/fixtures/datasets/1.2.0/tar/train.json": "{}",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_version_that_everything_agrees_on_can_be_released(release: ModuleType, ready: Path) -> None:
    assert release.missing("1.2.0", ready) == []
    assert release.sections(CHANGELOG)["1.2.0"] == ("2026-11-26", "### Added\n\n- a thing")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("shardkit/version.py", '__version__ = "1.1.0"\n', "version.py"),
        ("CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n- a thing\n", "CHANGELOG.md has no section"),
        ("CHANGELOG.md", "## [1.2.0]\n\n- a thing\n", "CHANGELOG.md has no section"),
        ("CHANGELOG.md", "## [1.2.0] - 2026-11-26\n", "CHANGELOG.md has no section"),
        ("CITATION.cff", "version: 1.1.0\n", "CITATION.cff"),
        ("tests/fixtures/datasets/1.2.0", None, "golden_datasets.py"),
    ],
)
def test_what_a_release_lacks_is_named(
    release: ModuleType, ready: Path, name: str, text: str | None, said: str
) -> None:
    if text is None:
        shutil.rmtree(ready / name)
    else:
        (ready / name).write_text(text)
    (fact,) = release.missing("1.2.0", ready)
    assert said in fact


def test_the_golden_datasets_of_this_version_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same libraries the same bytes; so only the names are compared."""
    spec = importlib.util.spec_from_file_location("golden_datasets", ROOT / "scripts" / "golden_datasets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main() == 1  # they are there, and stay
    monkeypatch.setattr(module, "FOLDER", tmp_path / "new")
    assert module.main() == 0
    kept = ROOT / "tests" / "fixtures" / "datasets" / shardkit.__version__
    names = [sorted(str(path.relative_to(top)) for path in top.rglob("*")) for top in (kept, tmp_path / "new")]
    assert names[0] == names[1]
