"""A temporary Prefect server for users without one, which ends with the command in any case."""

import atexit
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from tempfile import TemporaryFile
from typing import NoReturn

from pixelmill.pipeline.errors import ExitCode, WorkError
from pixelmill.pipeline.processes import terminate_children

_SECONDS_TO_START = 120
_SECONDS_TO_STOP = 5
_STARTS_ALLOWED = 4
_SETTINGS = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    # Prefect sets these for the servers that it starts itself; they disable the scheduler.
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


def start_server() -> str:
    """Start a server that ends with this process, and is restarted if it dies earlier.

    Returns:
        The URL of its API.

    Raises:
        WorkError: It does not start.
    """
    server = _Server()
    server.start()
    # Prefect's threads send their remaining data when the interpreter joins them, which precedes this.
    atexit.register(server.stop)
    return server.url


class _Server:
    def __init__(self) -> None:
        # The socket belongs to this process so that requests wait, and are not refused, during a restart.
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._log = TemporaryFile()  # noqa: SIM115  # Lives as long as the server.
        self._stopping = False
        self._lock = threading.Lock()
        self._starts = 0
        self._process = self._launch()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"

    def start(self) -> None:
        """Wait until the server responds, then supervise it.

        Raises:
            WorkError: It ended, or did not respond in time.
        """
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise WorkError(
                    f"Prefect's server did not start ({self._describe_failure()})",
                    "a server that responds",
                    "Choose another folder for its database with PREFECT_HOME=/tmp/prefect, or start a "
                    "server with `prefect server start` and set PREFECT_API_URL to its address.",
                )
        threading.Thread(target=self._supervise, daemon=True).start()

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
        # Terminate it first, because it still has to store the last states.
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_STOP)
        self._process.kill()
        self._process.wait()
        self._listener.close()
        self._log.close()

    def _launch(self) -> "subprocess.Popen[bytes]":
        self._starts += 1
        descriptor = self._listener.fileno()
        return subprocess.Popen(
            # Without -P, Python would import a folder `pixelmill` in the current folder.
            [sys.executable, "-P", "-m", "pixelmill.flows.server_process", str(descriptor)],
            env={**os.environ, **_SETTINGS},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[descriptor],
            # A new session shields it from Ctrl-C, because the end of the run has yet to be reported to it.
            start_new_session=True,
        )

    def _is_healthy(self) -> bool:
        """Whether the server responds within a second."""
        connection = HTTPConnection("127.0.0.1", self._listener.getsockname()[1], timeout=1)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _supervise(self) -> None:
        while True:
            code = self._process.wait()
            with self._lock:
                if self._stopping:
                    return
                if self._starts == _STARTS_ALLOWED:
                    _give_up(self._starts, code)
                _print(f"prefect   the server died with exit code {code} and is restarted")
                self._process = self._launch()

    def _describe_failure(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        output = lines[-1].strip() if lines else "no output"
        code = self._process.poll()
        return f"exit code {code}: {output}" if code is not None else f"in {_SECONDS_TO_START} s: {output}"


def _give_up(starts: int, code: int) -> NoReturn:
    _print(
        f"pixelmill: Prefect's server died {starts} times, the last time with exit code {code}; expected a "
        "server that runs until the command ends. Look for an out-of-memory kill in the system's log, and "
        "run the same command again: training resumes after the last epoch."
    )
    # The main thread may be waiting for the server or for a training process.
    terminate_children()
    os._exit(ExitCode.WORK_FAILED)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
