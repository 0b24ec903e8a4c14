"""What a worker does before it runs a deployed flow; `deploy/prefect.yaml` names it."""

import os
from pathlib import Path
from uuid import UUID

from pixelmill.pipeline.errors import RequestError


def enter_project(variable: str) -> dict[str, str]:
    """Work in the project's folder.

    Args:
        variable: The environment variable that names the folder, on the machine of the worker.

    Raises:
        RequestError: It is not set, or names no folder.
    """
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        error = RequestError(
            f"{variable}={folder}, which is no folder" if folder else f"{variable} is not set",
            "the folder of the project, in which the worker runs the flows",
            f"Set it where the worker is started: export {variable}=/srv/pixelmill.",
        )
        _log_on_page(str(error))
        raise error
    os.chdir(folder)
    return {"directory": folder}


def _log_on_page(message: str) -> None:
    """Log for the flow run; of a step's exception Prefect's page shows the exit code alone."""
    if run_id := os.environ.get("PREFECT__FLOW_RUN_ID"):
        from prefect.logging.loggers import flow_run_logger

        flow_run_logger(flow_run_id=UUID(run_id)).error(message)
