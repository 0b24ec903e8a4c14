"""What a worker does before it runs a deployed flow; `deploy/prefect.yaml` names it."""

import os
from pathlib import Path

from pipeline.errors import RequestError


def enter_project(variable: str) -> dict[str, str]:
    """Work in the project's folder.

    Args:
        variable: The environment variable that names the folder, on the machine of the worker.

    Raises:
        RequestError: It is not set, or names no folder.
    """
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        raise RequestError(
            f"{variable}={folder}, which is no folder" if folder else f"{variable} is not set",
            "the folder of the project, in which the worker runs the flows",
            f"Set it where the worker is started: export {variable}=/srv/pixelmill.",
        )
    os.chdir(folder)
    return {"directory": folder}
