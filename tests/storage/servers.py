"""Real servers for tests, on free ports of loopback: two of S3 (moto, s3rver), a web server (nginx), Azurite.

Each runs under a guard that ends it when the tests end, however they end: the guard's standard input closes then.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hmac
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

GUARD = """
import signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
try:
    sys.stdin.read()
finally:
    child.terminate()
    try:
        child.wait(3)
    except subprocess.TimeoutExpired:
        child.kill()
"""

RANGE_SERVER = Path(__file__).with_name("range_server.py")
START_SECONDS = 60


@contextlib.contextmanager
def running(command: Callable[[int], list[str]], log: Path) -> Iterator[str]:
    """Runs the server that `command(port)` names; gives `http://127.0.0.1:PORT` once it answers."""
    for _ in range(3):  # another process may take the port first
        port = free_port()
        with log.open("wb") as output:
            guard = subprocess.Popen(
                [sys.executable, "-c", GUARD, *command(port)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        assert guard.stdin is not None
        try:
            if _answers(port, log):
                yield f"http://127.0.0.1:{port}"
                return
        finally:
            guard.stdin.close()
            guard.wait(10)
    raise RuntimeError(f"the server did not start: {log.read_text('utf-8', 'replace')[-2000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int, log: Path) -> bool:
    """Waits until something on the port speaks HTTP; False where the server ended instead."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return True
        except (OSError, http.client.HTTPException):
            if b"in use" in log.read_bytes():
                return False
            time.sleep(0.05)
        finally:
            connection.close()
    return False


def moto(port: int) -> list[str]:
    """The command of an S3 server in memory."""
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


def make_bucket(endpoint: str, name: str) -> None:
    """A new bucket on an S3 server that asks for no signature."""
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT"), timeout=30):
        pass


def node_command(name: str) -> str | None:
    """The path of a command that npm installed, on PATH or below SHARDKIT_NPM. None: it is not there."""
    folder = os.environ.get("SHARDKIT_NPM")
    return shutil.which(name, path=f"{folder}/node_modules/.bin") if folder else shutil.which(name)


def s3rver(folder: Path) -> Callable[[int], list[str]]:
    """The command of a second S3 server. Its keys are S3RVER and S3RVER."""
    program = str(node_command("s3rver"))
    options = ["-s", "-d", str(folder), "-a", "127.0.0.1"]
    return lambda port: [program, *options, "-p", str(port)]


def azurite(folder: Path) -> Callable[[int], list[str]]:
    """The command of a server that speaks Azure's blob storage."""
    program = str(node_command("azurite-blob"))
    options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "-l", str(folder), "--blobHost", "127.0.0.1"]
    return lambda port: [program, *options, "--blobPort", str(port)]


AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Both are public, and the same for every Azurite."""


def make_container(endpoint: str, name: str) -> None:
    """A new container of Azurite; obstore can make none. Signed as Azure's "Shared Key" asks for."""
    head = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    resource = f"/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + "".join(f"{key}:{value}\n" for key, value in sorted(head.items())) + resource
    digest = hmac.digest(base64.b64decode(AZURITE_KEY), text.encode(), "sha256")
    head["Authorization"] = f"SharedKey {AZURITE_ACCOUNT}:{base64.b64encode(digest).decode()}"
    url = f"{endpoint}/{AZURITE_ACCOUNT}/{name}?restype=container"
    request = urllib.request.Request(url, method="PUT", headers=head | {"Content-Length": "0"})
    with urllib.request.urlopen(request, timeout=30):
        pass


def plain(folder: Path) -> Callable[[int], list[str]]:
    """The command of a small web server for a folder, with ranges."""
    return lambda port: [sys.executable, str(RANGE_SERVER), str(port), str(folder)]


def web(folder: Path) -> Callable[[int], list[str]]:
    """The command of a web server for a folder, with ranges: nginx where it is installed."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        return plain(folder)

    def command(port: int) -> list[str]:
        work = folder.with_name(f"{folder.name}-nginx")
        work.mkdir(exist_ok=True)
        config = work / "nginx.conf"
        config.write_text(NGINX.format(work=work, port=port, folder=folder), "utf-8")
        return [nginx, "-p", str(work), "-c", str(config)]

    return command


NGINX = """
daemon off;
master_process off;
pid {work}/pid;
error_log {work}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 100000;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""
