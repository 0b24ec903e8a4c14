"""A real Prefect server."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECONDS_TO_START = 120


@dataclass(frozen=True)
class PrefectServer:
    """A server on loopback: its address, and the environment variables for using it."""

    url: str
    environment: dict[str, str]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_until_it_responds(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer after {SECONDS_TO_START} s")


@contextmanager
def prefect_server(home: Path, **settings: str) -> Iterator[PrefectServer]:
    """Run a Prefect server with a separate home."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **settings,
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            wait_until_it_responds(f"{url}/api/health", process)
            yield PrefectServer(url, environment)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("prefect-server")) as running:
        yield running


def ask(server: PrefectServer, path: str, **body: object) -> Any:
    """Request the API of the server."""
    request = urllib.request.Request(
        f"{server.url}/api/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def newest_run(server: PrefectServer, flow: str) -> Any:
    """The flow run that started last; a deployment may have scheduled others for later."""
    (run,) = ask(
        server,
        "flow_runs/filter",
        flows={"name": {"any_": [flow]}},
        flow_runs={"start_time": {"is_null_": False}},
        sort="START_TIME_DESC",
        limit=1,
    )
    return run


@dataclass
class PostgreSql:
    """A PostgreSQL server on a free port of 127.0.0.1, which can be stopped and started."""

    place: Path
    program: Path
    user: str | None
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """Its address for Prefect."""
        return f"postgresql+asyncpg://prefect@127.0.0.1:{self.port}/prefect"

    def create(self) -> None:
        data = self.place / "data"
        self._call("initdb", "-D", data, "-U", "prefect", "--auth=trust", "-E", "UTF8")
        self.start()
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "prefect", "prefect")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.place}"
        data = self.place / "data"
        self._call("pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._call("pg_ctl", "-D", self.place / "data", "-w", "-m", mode, "stop")

    def _call(self, name: str, *arguments: str | Path) -> None:
        # Not a pipe, because the server that pg_ctl starts would keep it open.
        subprocess.run(
            [self.program / name, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self.user,
            group=self.user,
            cwd=self.place,
        )


@contextmanager
def postgresql_server() -> Iterator[PostgreSql]:
    """Run a PostgreSQL server on a free port of 127.0.0.1."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL here; install the packages in .ci/apt-packages.txt")
    # PostgreSQL refuses to run as root; Debian's package creates a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgresql-") as place:
        if user:
            shutil.chown(place, user)
        server = PostgreSql(Path(place), programs[-1].parent, user)
        server.create()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server; yields its address for Prefect."""
    with postgresql_server() as server:
        yield server.url
