"""The engine "ray" on a real Ray of several nodes on this machine, one of which is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shardkit
from shardkit import Manifest, Progress, Ray
from shardkit.cli.main import run
from shardkit.errors import BadFileError, MissingExtraError, SourceError, UsageError, WorkerError
from shardkit.formats.columns import Strings
from shardkit.packing.engine.options import EngineOptions
from shardkit.packing.engine.ray import address as address_module
from shardkit.packing.engine.ray import cluster as cluster_module
from shardkit.packing.engine.ray import engine, map
from shardkit.packing.engine.ray import task as ray_task
from shardkit.packing.engine.ray.address import require_reachable
from shardkit.packing.engine.worker import Done, Failed
from shardkit.packing.write.file_samples import FileSamples
from shardkit.packing.write.task import ShardTask
from shardkit.sources.readers import TreeFiles

Pack = Callable[..., Manifest]

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]  # Ray's own


SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that runs no tasks, and two nodes of one CPU."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    for _ in range(2):
        found.add_node(num_cpus=1, **SMALL)
    yield found
    found.shutdown()


@pytest.fixture
def many(tmp_path: Path, draw_image: Callable[..., bytes]) -> Path:
    """A tree of 40 large images: with `max_count=1` and `check="full"`, 40 shards that take a moment each."""
    images = [draw_image(seed, size=(2400, 1800)) for seed in range(2)]
    for number in range(40):
        path = tmp_path / "many" / f"class {number % 3}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images[number % 2])
    return tmp_path / "many"


def on_ray(cluster: Any, source: Path, dest: Path, **options: Any) -> Manifest:
    return shardkit.pack(source, dest, engine=Ray(cluster.address), **options).manifest


def kill_node(cluster: Any, node: Any) -> None:
    """End a node as a machine ends: all of its processes at once."""
    parent = node.all_processes["raylet"][0].process.pid
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                os.kill(int(stat.parent.name), signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


@needs_ray
def test_the_bytes_are_those_of_the_local_engine(
    cluster: Any, tree: Path, out: Path, pack_one: Pack, content_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[Progress] = []
    pack_one(tree, out / "local" / "train", max_count=2)
    on_ray(cluster, tree, out / "ray" / "train", max_count=2, progress=told.append)
    assert content_of(out / "ray") == content_of(out / "local")
    assert [each.done for each in told if each.step == "pack"][-1] == 12
    assert capfd.readouterr() == ("", "")  # Ray says nothing


@needs_ray
def test_an_archive_is_transcoded_and_split_on_ray_too(cluster: Any, tree: Path, out: Path, content_of: Any) -> None:
    archive = shutil.make_archive(str(tree), "gztar", tree.parent, tree.name)
    options: dict[str, Any] = {
        "images": shardkit.Images(resize=16),
        "split": {"train": 0.5, "test": 0.5},
        "max_count": 2,
    }
    shardkit.pack(archive, out / "local", workers=1, **options)
    shardkit.pack(archive, out / "ray", engine=Ray(cluster.address), **options)
    assert content_of(out / "ray") == content_of(out / "local")


@needs_ray
def test_a_relative_source_is_found_by_all_nodes(
    cluster: Any, tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    assert on_ray(cluster, Path(tree.name), Path("out/train"), max_count=3).samples == 12


@needs_ray
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
def test_the_tasks_of_nodes_that_are_killed_are_done_again(
    cluster: Any, many: Path, out: Path, pack_one: Pack, content_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"max_count": 1, "check": "full"}
    pack_one(many, out / "local" / "train", **options)
    nodes = list(cluster.worker_nodes)

    def kill(now: Progress) -> None:
        if now.step == "pack" and now.done >= 6 * (3 - len(nodes)) and nodes:
            kill_node(cluster, nodes.pop())
            if not nodes:  # the last one had all the tasks
                for _ in range(2):
                    cluster.add_node(num_cpus=1, **SMALL)

    on_ray(cluster, many, out / "ray" / "train", progress=kill, **options)
    assert not nodes
    assert "its worker was lost" in caplog.text and "running it again" in caplog.text
    assert content_of(out / "ray") == content_of(out / "local")


@needs_ray
def test_convert_runs_on_ray(cluster: Any, tree: Path, out: Path, pack_one: Pack, content_of: Any) -> None:
    pack_one(tree, out / "tar" / "train", max_count=3)
    shardkit.convert(out / "tar" / "train", out / "local" / "train", format="tfrecord", workers=1)
    shardkit.convert(out / "tar" / "train", out / "ray" / "train", format="tfrecord", engine=Ray(cluster.address))
    assert content_of(out / "ray") == content_of(out / "local")


@needs_ray
def test_index_writes_the_same_on_ray(
    cluster: Any, tree: Path, out: Path, pack_one: Pack, content_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_one(tree, out / "train", max_count=3)
    shardkit.index_shards(out / "train", overwrite=True)
    before = content_of(out)
    (out / "train.json").unlink()
    monkeypatch.chdir(out)
    manifest = shardkit.index_shards("train-*.tar", engine=Ray(cluster.address))
    assert manifest.samples == 12
    assert content_of(out) == before


@needs_ray
def test_verify_finds_the_same_on_ray(
    cluster: Any, tree: Path, out: Path, pack_one: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = pack_one(tree, out / "train", max_count=2)
    monkeypatch.chdir(out)
    there: dict[str, Any] = {"engine": "ray", "address": cluster.address}
    assert shardkit.verify("train", **there) == shardkit.verify("train")
    assert shardkit.verify("train", **there).sound
    names = [entry.name for entry in manifest.shards]
    (out / names[0]).unlink()
    data = (out / names[1]).read_bytes()
    (out / names[1]).write_bytes(data[:700] + b"?" + data[701:])
    (out / names[2]).write_bytes((out / names[3]).read_bytes())  # the same keys twice
    found = shardkit.verify(out / "train", decode=True, **there)
    assert {item.kind for item in found.findings} >= {"shard-missing", "shard-crc", "key-twice"}
    assert found == shardkit.verify(out / "train", decode=True)


@needs_ray
def test_an_error_of_a_task_ends_the_run_and_the_next_goes_on(
    cluster: Any, tree: Path, out: Path, draw_image: Callable[..., bytes], content_of: Any
) -> None:
    bad = tree / "red" / "0003.jpg"
    bad.write_bytes(b"no image")
    with pytest.raises(BadFileError, match=r"0003\.jpg"):
        on_ray(cluster, tree, out / "train", max_count=1)
    names = content_of(out).keys()
    assert not [name for name in names if name.endswith((".part", "ray.mark", "train.json"))]
    bad.write_bytes(draw_image(1))
    assert on_ray(cluster, tree, out / "train", max_count=1).samples == 12


@needs_ray
def test_ctrl_c_ends_the_tasks_and_keeps_what_is_finished(cluster: Any, many: Path, out: Path, content_of: Any) -> None:
    def interrupt(now: Progress) -> None:
        if now.step == "pack" and now.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_ray(cluster, many, out / "train", max_count=1, check="full", progress=interrupt)
    before = content_of(out)
    assert len([name for name in before if name.endswith(".receipt")]) >= 3
    assert not [name for name in before if name.endswith((".part", "ray.mark", "train.json"))]
    time.sleep(0.5)
    assert content_of(out) == before  # no task goes on


@needs_ray
def test_a_node_without_the_mount_is_named(
    cluster: Any, tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine._marked

    def elsewhere(folder: bytes) -> ray_task.Mark:
        mark = real(folder)
        os.unlink(mark.path)  # as a node would see it that has another folder there
        return mark

    monkeypatch.setattr(engine, "_marked", elsewhere)
    with pytest.raises(WorkerError) as caught:
        on_ray(cluster, tree, out / "train")
    text = str(caught.value)
    assert text.startswith(f"{out}/.train.packing: the node {socket.gethostname()} does not see {out}/.train.packing")
    assert "mount the destination on all nodes" in text


@needs_ray
def test_a_cluster_of_this_machine_is_started_and_ended(tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    manifest = shardkit.pack(tree, out / "train", engine=Ray(), workers=1, max_count=6)
    assert isinstance(manifest, shardkit.Packed) and manifest.samples == 12
    assert not ray.is_initialized()


@needs_ray
def test_a_worker_out_of_memory_is_an_error_with_a_cure(many: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    # Memory counts as full from the first byte on; nothing is really used.
    limits = {"memory_usage_threshold": 0.0001, "memory_monitor_refresh_ms": 20}
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False,
             object_store_memory=80 << 20, _system_config=limits)  # fmt: skip
    try:
        monkeypatch.setattr("shardkit.packing.engine.ray.cluster.MEMORY_RETRIES", 1)
        with pytest.raises(WorkerError, match=r"000000\.tar: the node that ran it ran out of memory, 2 times"):
            shardkit.pack(many, out / "train", engine=Ray(), check="full")
        assert ray.is_initialized()  # it is the caller's
    finally:
        ray.shutdown()
    assert not (out / "train.json").exists()


@needs_ray
def test_a_cluster_that_is_not_there_is_said_soon(tree: Path, out: Path) -> None:
    with pytest.raises(WorkerError, match=r"127\.0\.0\.1:1: no Ray cluster answers there \(Connection refused\)"):
        shardkit.pack(tree, out / "train", engine=Ray("127.0.0.1:1"))
    assert not out.exists()


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_another_server_is_no_cluster(reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        port = server.getsockname()[1]
        with pytest.raises(WorkerError, match=r"the server there is not the head of a Ray cluster|no Ray cluster"):
            require_reachable(f"127.0.0.1:{port}")
        thread.join()


@pytest.mark.parametrize(
    ("pieces", "ours"),
    [
        ([b"\0\0\0\4"], True), ([b"\0\0", b"\0\4"], True), ([b"\0\0\0\4\0", b""], True), ([b"\0\0\0"], False),
        ([b"\0\0\0\1"], False), ([], False),
    ],
)  # fmt: skip
def test_a_head_answers_with_its_settings_in_pieces_of_any_size(pieces: list[bytes], ours: bool) -> None:
    class Connection:
        def sendall(self, data: bytes) -> None:
            self.waiting = [*pieces, b""]

        def recv(self, size: int) -> bytes:
            return self.waiting.pop(0)

    connection: Any = Connection()
    with contextlib.nullcontext() if ours else pytest.raises(WorkerError, match="not the head of a Ray cluster"):
        address_module._require_http2(connection, "head:6379")


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardkit.packing.engine.ray.address.TIMEOUT_SECONDS", 0.05)
    silent = pytest.raises(WorkerError, match=r"no Ray cluster answers there \(timed out\)")
    with socket.create_server(("127.0.0.1", 0)) as server, silent:
        require_reachable(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", ["", "head", "ray://head:10001", "head:x", ":6379", "head:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a Ray cluster"):
        require_reachable(address)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "spark"}, "'spark' is not one of local, ray"),
        ({"address": "head:6379"}, "only a cluster has an address, and the engine is local"),
        ({"name": "ray", "workers": 0}, "0 is too small"),
    ],
)
def test_engine_options_that_make_no_sense_are_refused(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EngineOptions(**options)


def test_without_ray_the_extra_is_named(tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "shardkit\[ray\]"'):
        shardkit.pack(tree, out / "train", engine=Ray())
    assert not out.exists()


def test_a_dry_run_needs_no_engine(tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert run(["pack", str(tree), str(out / "train"), "--engine", "ray", "--dry-run", "--quiet"]) == 0


# What a node does, without Ray


def test_a_node_finds_shardkit_where_the_head_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    home = str(Path(shardkit.__file__).resolve().parent.parent)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in (home, "")])
    call = cluster_module._caller()
    for _ in range(2):
        assert call("shardkit.units:cores") >= 1  # type: ignore[operator]
        assert sys.path.count(home) == 1


@pytest.fixture
def task(tree: Path, tmp_path: Path) -> ShardTask:
    path = "red/0000.jpg"
    (tmp_path / "work").mkdir()
    samples = FileSamples(
        root=os.fsencode(tree), files=TreeFiles(os.fsencode(tree)), paths=Strings.of_texts([path]),
        sizes=array("q", [(tree / path).stat().st_size]).tobytes(), labels=bytes(8), keys=Strings.of([b"red/0000"]),
    )  # fmt: skip
    work = os.fsencode(tmp_path / "work")
    return ShardTask("a-000000.tar", work, digest="x", check="header", skip_bad=True, samples=samples)


def elsewhere(task: ShardTask) -> ShardTask:
    """The task with a source that is not mounted."""
    assert isinstance(task.samples, FileSamples)
    samples = msgspec.structs.replace(task.samples, root=b"/not/mounted", files=TreeFiles(b"/not/mounted"))
    return msgspec.structs.replace(task, samples=samples)


def ask(task: ShardTask, mark: ray_task.Mark) -> Any:
    data = ray_task.answer(msgspec.msgpack.encode(task), msgspec.msgpack.encode(mark))
    return msgspec.msgpack.decode(data, type=ray_task.Answer)


def test_a_node_that_sees_all_writes_the_shard(task: ShardTask) -> None:
    mark = engine._marked(task.work)
    assert isinstance(ask(task, mark), Done)
    assert os.path.exists(os.path.join(task.work, b"a-000000.tar"))


def test_a_node_with_another_folder_of_that_name_is_told_apart(
    task: ShardTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_task, "_TRIES", 1)
    monkeypatch.setattr(ray_task, "_PAUSE_SECONDS", 0)
    mark = engine._marked(task.work)
    with open(mark.path, "wb") as file:
        file.write(b"another run's")
    found = ask(task, mark)
    assert isinstance(found, ray_task.Unseen) and found.path == mark.path and not found.source


def test_a_node_that_does_not_see_the_source_leaves_no_file_out(task: ShardTask) -> None:
    mark = engine._marked(task.work)
    found = ask(elsewhere(task), mark)
    assert found == ray_task.Unseen(socket.gethostname(), b"/not/mounted/red/0000.jpg", source=True)
    error = engine._unseen(found)
    assert isinstance(error, SourceError) and "does not see /not/mounted/red/0000.jpg" in str(error)
    again = ask(elsewhere(task), msgspec.structs.replace(mark, sources=False))
    assert isinstance(again, Done) and "vanished" in again.receipt.skipped[0].reason


def test_a_node_that_does_not_see_a_shard_says_so(tmp_path: Path) -> None:
    import pickle

    missing = os.fsencode(tmp_path / "x.tar")
    assert pickle.loads(map.answer(b"builtins:len", pickle.dumps("abc"), missing)) == (
        socket.gethostname(), True, None,
    )  # fmt: skip
    assert pickle.loads(map.answer(b"builtins:len", pickle.dumps("abc"), b"")) == (socket.gethostname(), False, 3)


def test_a_node_with_another_shardkit_is_told_apart(task: ShardTask) -> None:
    mark = msgspec.structs.replace(engine._marked(task.work), version="0.0.1")
    assert ask(task, mark) == ray_task.Other(socket.gethostname(), shardkit.__version__)


def test_a_task_whose_run_is_over_replaces_nothing(task: ShardTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_task, "_LOOK_SECONDS", 0)
    mark = engine._marked(task.work)
    monkeypatch.setattr(ray_task, "_sees", lambda _: bool(engine._marked(task.work)))  # the next run's
    found = ask(task, mark)
    assert isinstance(found, Failed) and "has ended" in found.args[1]
    assert not os.path.exists(os.path.join(task.work, b"a-000000.tar"))
