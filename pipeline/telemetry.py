"""Switching off what the packages beneath report to their makers."""

import os
import sys

_VARIABLES = {
    # A session of onnxruntime 1.31 keeps a database in the user's cache and looks its collector up.
    # `disable_telemetry_events()` comes too late: the database is made when the package is imported.
    "ORT_DISABLE_TELEMETRY": "1",
    # Prefect's clients; other packages follow this convention, too.
    "DO_NOT_TRACK": "1",
    # Prefect's server, and the page that it serves.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
_REPORTING_MODULES = (
    # OpenVINO reports its own import, and has no variable against it. Where this module cannot be imported,
    # it takes a stub that reports nothing.
    "openvino_telemetry",
)


def disable_telemetry() -> None:
    """Switch off the telemetry of onnxruntime, OpenVINO and Prefect, here and in child processes.

    The package calls this when it is imported: only then it comes before every import of theirs, whichever
    function of the library is used, and in whichever process. What the user has set is overridden.
    """
    os.environ.update(_VARIABLES)
    for name in _REPORTING_MODULES:
        # The import system takes None for a module that cannot be found.
        sys.modules[name] = None  # type: ignore[assignment]
