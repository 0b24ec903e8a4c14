"""A Prefect server for one command, where the user has none: it ends with the command, however that ends."""

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
    # What Prefect sets for the servers that it starts itself: no schedules are looked after.
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


def start_server() -> str:
    """Start a server that ends when this process does, and is started again should it die before.

    Returns:
        The address of its API.

    Raises:
        WorkError: It does not start.
    """
    server = _Server()
    server.start()
    # Prefect's threads send what they have left when the interpreter waits for them, which comes before this.
    atexit.register(server.stop)
    return server.url


class _Server:
    def __init__(self) -> None:
        # Held here, not by the server: while one is started again, requests wait and none is refused.
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
        """Wait until the server answers, and look after it from then on.

        Raises:
            WorkError: It ended, or does not answer in time.
        """
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise WorkError(
                    f"Prefect's server did not start ({self._last_words()})",
                    "it to answer",
                    "Name another folder for its database with PREFECT_HOME=/tmp/prefect, or start a server "
                    "with `prefect server start` and name it with PREFECT_API_URL.",
                )
        threading.Thread(target=self._supervise, daemon=True).start()

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
        # It has states to write down that were reported last.
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
            # Without -P a folder `flows` where the command runs would be taken for ours.
            [sys.executable, "-P", "-m", "pixelmill.flows.server_process", str(descriptor)],
            env={**os.environ, **_SETTINGS},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[descriptor],
            # A terminal's Ctrl-C is not for it: the run's end has still to be reported to it.
            start_new_session=True,
        )

    def _answers(self) -> bool:
        """Whether it is well; waits some time for the answer."""
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
                _say(f"prefect   the server died with exit code {code}; it is started again")
                self._process = self._launch()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        said = lines[-1].strip() if lines else "it said nothing"
        code = self._process.poll()
        return f"exit code {code}: {said}" if code is not None else f"in {_SECONDS_TO_START} s: {said}"


def _give_up(starts: int, code: int) -> NoReturn:
    _say(
        f"pixelmill: Prefect's server died {starts} times, the last time with exit code {code}; expected it "
        "to run until the command ends. Look for an out-of-memory kill in the system's log, and run the same "
        "command again: training resumes after the last epoch."
    )
    # The main thread may wait for that server, or for a process that trains.
    terminate_children()
    os._exit(ExitCode.WORK_FAILED)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
