"""What a person at the terminal sees of a flow: a line a stage, and one line for an error."""

import errno
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from pipeline.display import printable
from pipeline.errors import WorkError
from pipeline.processes import terminate_children

NOTHING_LOST = "what is registered and promoted stays as it is."
_INTERRUPTED = 130
_DEFAULTS = {
    # Nothing calls out on its own.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A cold start of the ephemeral server takes longer than the 20 seconds that Prefect grants.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # The console gets our lines; Prefect's page gets everything, the pipeline's warnings too.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "pipeline",
    # After Ctrl-C Python's own tidying up says what it tidied.
    "PYTHONWARNINGS": "ignore:resource_tracker",
}


class _StageLines(logging.Handler):
    """Shows what stages report; errors are left to the command, which says them once."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            return
        if record.levelno < logging.WARNING and record.name == "prefect.flow_runs":
            return  # "Beginning flow run ..."
        stage = getattr(record, "task_name", "")
        if stage and record.levelno < logging.WARNING and "Finished in state" in record.getMessage():
            return
        print(f"{stage:9} {printable(record.getMessage())}", file=sys.stderr, flush=True)


def prepare_prefect() -> None:
    """Set what Prefect and child processes read, where the user has not, and show stages on the terminal."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import prefect.main  # noqa: F401  # Sets its logging up, which must be done before ours.

    lines = _StageLines()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addHandler(lines)


@contextmanager
def telling_of_interrupts(consequence: str) -> Iterator[None]:
    """On Ctrl-C say what it means for the work, and end with the exit code of an interrupt."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\npixelmill: interrupted; {consequence}", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None


def end_on_interrupt() -> None:
    """Have Ctrl-C and SIGTERM end a flow at once where Prefect's own server runs inside this command.

    That server dies of the same Ctrl-C, and Prefect would ask it for minutes how to report the end; of a
    SIGTERM it would hear nothing, and outlive the command. With a server of its own Prefect reports the run
    as crashed, which takes no time.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return

    def end(number: int, frame: object) -> None:
        print(f"\npixelmill: interrupted; {NOTHING_LOST}", file=sys.stderr)
        terminate_children()
        for server in SubprocessASGIServer._instances.values():
            # Asked politely, it waits for this process to close its connections.
            if server.server_process is not None:
                server.server_process.kill()
        sys.stderr.flush()
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def require_home() -> None:
    """See that the server Prefect starts by itself can keep its database.

    Raises:
        WorkError: It cannot; Prefect would try for minutes.
    """
    if os.environ.get("PREFECT_API_URL"):
        return
    try:
        home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except (OSError, RuntimeError) as error:  # The latter where the user has no home at all.
        raise WorkError(
            f"Prefect cannot write to its folder ({error})",
            "a folder for its database",
            "Name one that this user may write to: PREFECT_HOME=/tmp/prefect.",
        ) from error


def require_server() -> None:
    """See that the Prefect server of the settings answers, or that one may be started.

    Raises:
        WorkError: It does not, or none is named and none may be started.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE

    url = PREFECT_API_URL.value()
    trouble: object = "PREFECT_API_URL is not set"
    if url:
        with get_client(sync_client=True) as client:
            trouble = client.api_healthcheck()
    elif PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        return
    if trouble is not None:
        raise WorkError(
            f"no Prefect server answers at {url or 'any address'} ({trouble})",
            "the server that PREFECT_API_URL names",
            "Start it with `prefect server start`, or unset PREFECT_API_URL to run without one.",
        )


def show_pipeline_warnings() -> None:
    """Have the pipeline's own messages on the terminal."""
    logger = logging.getLogger("pipeline")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_StageLines())


def explain_os_error(error: OSError) -> str:
    """One line for what the system refused: a full disk, a missing permission."""
    place = f" ({printable(str(error.filename))})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{error.strerror}{place}; expected room to write. Nothing finished is lost: free some "
            "room and run the same command again."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}{place}; expected a place this user may write to. Choose another."
    return f"{error.strerror or error}{place}; expected the system to allow it. Look at the path."


def explain_remote_trouble(error: Exception) -> str:
    """One line for what a remote store did not do, however often it was asked."""
    said = " ".join(str(error).split()) or type(error).__name__
    return (
        f"the remote store does not do its work ({said}); expected it to answer. Nothing finished is lost: "
        "run the same command again when it does."
    )
