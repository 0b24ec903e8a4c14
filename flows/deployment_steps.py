"""Steps that a worker runs before a deployed flow; see `deploy/prefect.yaml`."""

import os
from pathlib import Path
from uuid import UUID

from pixelmill.pipeline.errors import RequestError


def enter_project(variable: str) -> dict[str, str]:
    """Change to the project's folder.

    Args:
        variable: The environment variable with the folder's path on the worker's machine.

    Raises:
        RequestError: It is not set, or is not the path of a folder.
    """
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        error = RequestError(
            f"{variable}={folder}, which is not a folder" if folder else f"{variable} is not set",
            "the project's folder, in which the worker runs the flows",
            f"Set it before starting the worker: export {variable}=/srv/pixelmill.",
        )
        _log_for_flow_run(str(error))
        raise error
    os.chdir(folder)
    return {"directory": folder}


def _log_for_flow_run(message: str) -> None:
    """Log an error for the flow run, because Prefect's UI shows only the exit code of a step's exception."""
    if run_id := os.environ.get("PREFECT__FLOW_RUN_ID"):
        from prefect.logging.loggers import flow_run_logger

        flow_run_logger(flow_run_id=UUID(run_id)).error(message)
