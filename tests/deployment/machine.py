"""A machine with Prefect's server, a worker and deployments, whose processes can be killed."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pixelmill.flows.process_record import ProcessRecord
from tests.deployment.small_disk import SmallDisk
from tests.flows.conftest import PostgreSql, free_port, wait_until_it_responds

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
PIXELMILL = Path(sys.executable).with_name("pixelmill")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
SECONDS_TO_WAIT = 240.0
# Other tests of the session create the documented pool.
POOL = "tested"


def wait_for(
    what: str, look: Callable[[], T], seconds: float = SECONDS_TO_WAIT, between_looks: float = 0.2
) -> T:
    """Look until something is there, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(between_looks)


@dataclass
class Machine:
    """A home for Prefect, its server on a fixed port, and a worker.

    Attributes:
        folder: Prefect's home and the logs.
        settings: Further environment variables, such as the address of the database.
        port: The port of the server.
        disk: The small disk that holds the folder, if one does.
    """

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    server: "subprocess.Popen[bytes] | None" = None
    worker: "subprocess.Popen[bytes] | None" = None
    database: PostgreSql | None = None
    disk: SmallDisk | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_UI_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "DO_NOT_TRACK": "1",
            "PIXELMILL_HOME": str(self.folder),
            **self.settings,
        }

    def start_server(self) -> None:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
        self.server = self._start([*command, "--port", str(self.port)], "server.log")
        wait_until_it_responds(f"{self.url}/api/health", self.server)

    def start_worker(self) -> None:
        command = [str(PIXELMILL), "worker", "--pool", POOL, "--name", "tested"]
        self.worker = self._start(command, "worker.log")

    def restart_server_after(self, seconds: float) -> None:
        """Kill the server, and start it again after some time."""
        assert self.server is not None
        self.server.kill()
        self.server.wait()
        time.sleep(seconds)
        self.start_server()

    def cancel(self, flow_run: str) -> None:
        """Cancel a run as Prefect's page does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.ask("POST", f"flow_runs/{flow_run}/set_state", {"state": state})

    def heal(self) -> str:
        """What `pixelmill worker --heal-only` says."""
        return self.call("worker", "--name", "tested", "--heal-only")

    def call(self, *arguments: str) -> str:
        """What a command of pixelmill says on standard error."""
        done = subprocess.run(
            self._inside([str(PIXELMILL), *arguments]),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def stop(self) -> None:
        # A run may have ended while its process is still sending events.
        for path in self.folder.glob("pixelmill/flow-runs/*.json"):
            record = ProcessRecord(**json.loads(path.read_text()))
            if record.is_alive:
                kill(record.pid)
        for process in (self.worker, self.server):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def _start(self, command: list[str], log: str) -> "subprocess.Popen[bytes]":
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                self._inside(command),
                env=self.environment,
                stdout=file,
                stderr=file,
                cwd=self.folder,
                start_new_session=True,
            )

    def _inside(self, command: list[str]) -> list[str]:
        return self.disk.inside(command) if self.disk else command

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Request the API of the server."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/api/{path}", content, {"Content-Type": "application/json"}, method=method
        )
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(0.5)  # The database is locked for a moment.
            else:
                return json.loads(text) if text else None

    def deploy(self, name: str, entrypoint: str, folder: Path, **parameters: object) -> str:
        """Create a deployment of a flow in a pool of its own; returns its identifier."""
        try:
            self.ask("POST", "work_pools/", {"name": POOL, "type": "process"})
        except urllib.error.HTTPError as error:
            assert error.code == 409  # noqa: PT017  # The pool is there already.
        flow = self.ask("POST", "flows/", {"name": name})["id"]
        deployment = self.ask(
            "POST",
            "deployments/",
            {
                "name": name,
                "flow_id": flow,
                "work_pool_name": POOL,
                "entrypoint": entrypoint,
                # Without it, Prefect copies the whole folder for each run, the virtual environment too.
                "pull_steps": [
                    {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
                ],
                "parameters": parameters,
            },
        )
        return str(deployment["id"])

    def begin(self, deployment: str) -> str:
        """Start a run of a deployment; returns its identifier."""
        run = self.ask("POST", f"deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})
        return str(run["id"])

    def run(self, flow_run: str) -> Any:
        return self.ask("GET", f"flow_runs/{flow_run}")

    def states(self, flow_run: str) -> list[str]:
        """The names of all states that a run had."""
        return [state["name"] for state in self.ask("GET", f"flow_run_states/?flow_run_id={flow_run}")]

    def wait_for_state(self, flow_run: str, *names: str, seconds: float = SECONDS_TO_WAIT) -> Any:
        """Wait until a run has one of these states; any other end of the run is an error."""

        def look() -> Any:
            try:
                run = self.run(flow_run)
            except OSError:
                return None  # The server is away.
            if run["state_name"] in names:
                return run
            assert run["state_type"] not in ENDED, (run["state"], self.log(flow_run))
            return None

        return wait_for(f"{flow_run} {names}", look, seconds)

    def log(self, flow_run: str) -> str:
        logs = self.ask("POST", "logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run]}}})
        return "\n".join(log["message"] for log in logs)

    def pid_of(self, flow_run: str) -> int:
        """The process of a run, from its record; 0 if there is none."""
        path = self.folder / f"pixelmill/flow-runs/{flow_run}.json"
        return int(json.loads(path.read_text())["pid"]) if path.is_file() else 0


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to processes that exist."""
    for pid in pids:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def exists(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False
