"""`upload` to `hf://`: one commit, and what is refused; against a repository in memory in place of the Hub."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from storage.in_memory import files, refused

import shardkit
from shardkit.errors import DamagedError, DestinationError, StorageError, UsageError
from shardkit.location import locate
from shardkit.storage.stores.hub import HubFolder, hub_folder

hub = pytest.importorskip("huggingface_hub")
fsspec = pytest.importorskip("fsspec")

REPO = "hf://datasets/someone/cars"


class Repository:
    """What a repository holds, and what was asked of it. fail: raised by the next commit."""

    def __init__(self, top: Any) -> None:
        self.top = top
        self.commits: list[tuple[str, list[str], list[str]]] = []
        self.known: dict[str, Any] = {}
        self.fail: Exception | None = None

    def files(self) -> dict[str, bytes]:
        """Path in the repository -> content."""
        found = {str(path).partition("/someone/cars/")[2]: data.getvalue() for path, data in self.top.store.items()}
        return {path: data for path, data in found.items() if path}


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The repository someone/cars, which `hf://` reads and `HfApi` writes."""
    from fsspec.implementations.memory import MemoryFileSystem

    class HubFiles(MemoryFileSystem):  # type: ignore[misc]
        """The reading side, which does not write."""

        protocol = ("hf",)
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.removeprefix("hf://").strip("/")

        def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
            if mode != "rb":
                raise AssertionError(f"{path} is written outside a commit")
            return super()._open(path, mode, **more)

    repository, real_api = Repository(HubFiles), hub.HfApi

    class Api:
        """The writing side: huggingface_hub's `HfApi`, as far as it is used."""

        def __init__(self, **known: Any) -> None:
            repository.known = known

        def create_commit(
            self, repo_id: str, operations: list[Any], *, commit_message: str, repo_type: str, revision: str | None
        ) -> None:
            asked = {"commit_message": commit_message, "repo_type": repo_type, "revision": revision}
            inspect.signature(real_api.create_commit).bind(self, repo_id, operations, **asked)
            if repository.fail is not None:
                raise repository.fail
            assert (repo_id, repo_type, revision) == ("someone/cars", "dataset", None)
            added, gone = [], []
            for step in operations:
                path = f"/datasets/{repo_id}/{step.path_in_repo}"
                if isinstance(step, hub.CommitOperationDelete):
                    del HubFiles.store[path]
                    gone.append(step.path_in_repo)
                else:
                    with step.as_file() as file:
                        MemoryFileSystem._open(HubFiles(), path, "wb").close()
                        HubFiles.store[path].write(file.read())
                    added.append(step.path_in_repo)
            repository.commits.append((commit_message, added, gone))

    real = fsspec.get_filesystem_class("hf")
    fsspec.register_implementation("hf", HubFiles, clobber=True)
    monkeypatch.setattr(hub, "HfApi", Api)
    yield repository
    fsspec.register_implementation("hf", real, clobber=True)


@pytest.fixture
def packed(splits: Path, tmp_path: Path) -> Path:
    """A folder with the datasets train, validation and test."""
    shardkit.pack(splits, tmp_path / "shards", max_count=3, workers=1)
    return tmp_path / "shards"


def test_all_datasets_and_the_card_go_up_in_one_commit_and_come_back(
    packed: Path, repository: Repository, tmp_path: Path
) -> None:
    result = shardkit.upload(packed, f"{REPO}/", export=["huggingface", "timm"])
    assert len(repository.commits) == 1
    there = repository.files()
    assert set(there) - set(files(packed)) == {"README.md", "_info.json"}
    assert {name: there[name] for name in files(packed)} == files(packed)
    assert sum(one.sent for one in result.datasets) == len(list(packed.glob("*.tar"))) + len(
        list(packed.glob("*.parquet"))
    )
    shardkit.download(f"{REPO}/", f"{tmp_path}/back/")
    assert files(tmp_path / "back") == files(packed)
    keys = [sample["__key__"] for sample in shardkit.dataset(f"{REPO}/train")]
    assert keys == [sample["__key__"] for sample in shardkit.dataset(packed / "train")]


def test_what_is_there_already_makes_no_commit(packed: Path, repository: Repository) -> None:
    shardkit.upload(packed, f"{REPO}/data/", export=["timm"])
    again = shardkit.upload(packed, f"{REPO}/data/", export=["timm"])
    assert len(repository.commits) == 1
    assert all(one.sent == 0 and one.kept > 0 for one in again.datasets)
    assert all(path.startswith("data/") for path in repository.files())


def test_another_dataset_is_replaced_only_when_asked_and_in_one_commit(
    packed: Path, tree: Path, repository: Repository
) -> None:
    shardkit.upload(packed / "train", f"{REPO}/train")
    shardkit.pack(tree, packed / "train", overwrite=True, workers=1)
    before = repository.files()
    refused(DestinationError, lambda: shardkit.upload(packed / "train", f"{REPO}/train"))
    assert repository.files() == before
    shardkit.upload(packed / "train", f"{REPO}/train", overwrite=True)
    assert len(repository.commits) == 2
    ours = {path.name for path in packed.iterdir() if path.name.startswith("train")}
    assert set(repository.files()) == ours
    assert set(repository.commits[1][2]) == set(before) - ours


def test_a_damaged_shard_is_not_committed(packed: Path, repository: Repository) -> None:
    shard = packed / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    refused(DamagedError, lambda: shardkit.upload(packed, f"{REPO}/"))
    assert repository.commits == [] and repository.files() == {}


def test_a_failure_of_the_hub_is_a_storage_error_without_the_token(packed: Path, repository: Repository) -> None:
    repository.fail = PermissionError("hf_secret is not allowed")
    options = {"token": "hf_secret", "endpoint": "http://127.0.0.1:1"}
    with pytest.raises(StorageError, match="access is denied"):
        shardkit.upload(packed, f"{REPO}/", storage_options=options)
    assert repository.known == options


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("hf://datasets/u/n/", HubFolder("dataset", "u/n", None, "")),
        ("hf://datasets/u/n/a/b/", HubFolder("dataset", "u/n", None, "a/b")),
        ("hf://datasets/u/n@refs%2Fpr%2F1/a", HubFolder("dataset", "u/n", "refs/pr/1", "a")),
        ("hf://u/n", HubFolder("model", "u/n", None, "")),
    ],
)
def test_a_url_names_a_repository_a_revision_and_a_folder(url: str, found: HubFolder) -> None:
    assert hub_folder(locate(url)) == found
    assert found.path("x") == (f"{found.folder}/x" if found.folder else "x")


def test_a_url_without_a_repository_is_refused() -> None:
    for url in ("hf://datasets/u", "hf://u", "s3://a/b"):
        assert "with a slash at the end" in refused(UsageError, lambda url=url: hub_folder(locate(url)))
