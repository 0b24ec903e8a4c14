"""What `pixelmill worker` does before Prefect's worker takes its place."""

import contextlib
import os
import time

from pixelmill.flows.process_record import home
from pixelmill.pipeline.display import without_passwords
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.storage.temporaries import hold

_SECONDS_TO_WAIT = 60.0
_SECONDS_BETWEEN_QUESTIONS = 1.0


def require_prefect_server() -> None:
    """Wait until the server at `PREFECT_API_URL` responds: after a boot, both start together.

    Raises:
        RequestError: No server is configured.
        WorkError: It does not respond within a minute.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise RequestError(
            "PREFECT_API_URL is not set",
            "the address of a Prefect server, which tells a worker what to run",
            "Set it, for example: export PREFECT_API_URL=http://127.0.0.1:4200/api.",
        )
    deadline = time.monotonic() + _SECONDS_TO_WAIT
    while True:
        with get_client(sync_client=True) as client:
            trouble = client.api_healthcheck()
        if trouble is None:
            return
        if time.monotonic() > deadline:
            raise WorkError(
                f"no Prefect server responds at {url} ({trouble})",
                f"a server that responds within {_SECONDS_TO_WAIT:.0f} s",
                "Start it with `prefect server start`, or correct PREFECT_API_URL.",
            )
        time.sleep(_SECONDS_BETWEEN_QUESTIONS)


def hold_worker_name(name: str, required: bool) -> bool:
    """Hold the name of a worker on this host until the process ends, also when another program replaces it.

    Args:
        name: The name.
        required: Whether to refuse a name that is held.

    Returns:
        Whether no other worker on this host holds it.

    Raises:
        RequestError: It is held, and `required`.
    """
    folder = home() / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace('/', '-')}.lock"
    path.touch()
    try:
        descriptor = hold(path)
    except OSError:
        return False  # Without locks, nobody knows whether the other worker lives.
    if descriptor is not None:
        if required:
            os.set_inheritable(descriptor, True)
        return True
    if required:
        raise RequestError(
            f"a worker called {name} is at work on this host",
            "one worker of a name",
            "Stop it, or choose another name with `name`.",
        )
    return False


def prepare_environment() -> None:
    """Set for the worker and its runs what Prefect reads from the environment, unless the user has."""
    # The page of a run shows the warnings of pixelmill, not only those of Prefect.
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "pixelmill")


def apply_automations_if_possible() -> list[str]:
    """Bring pixelmill's automations up to date; returns a line for each change.

    Recipes that are files are looked for in the project's folder, where the flows run.
    """
    from pixelmill.flows.automations import apply_automations

    project = os.environ.get("PIXELMILL_HOME", ".")
    try:
        with contextlib.chdir(project):
            lines = apply_automations()
    except Exception as error:  # noqa: BLE001  # A worker without alerts is better than none.
        return [f"the automations could not be brought up to date ({without_passwords(str(error))})"]
    return [line for line in lines if not line.startswith("updated")]
