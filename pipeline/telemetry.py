"""Disabling the telemetry of dependencies."""

import os
import sys

_VARIABLES = {
    # A session of onnxruntime 1.31 creates a database in the user's cache and looks up its collector.
    # `disable_telemetry_events()` is too late, because the database is created on import.
    "ORT_DISABLE_TELEMETRY": "1",
    # Prefect's clients. Other packages follow this convention as well.
    "DO_NOT_TRACK": "1",
    # Prefect's server and its UI.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
_REPORTING_MODULES = (
    # OpenVINO reports its own import and has no variable to disable it. If this module cannot be imported,
    # it uses a stub that reports nothing.
    "openvino_telemetry",
)


def disable_telemetry() -> None:
    """Disable the telemetry of onnxruntime, OpenVINO and Prefect, here and in child processes.

    The package calls this when it is imported, which is before any of these can be imported. Settings of the
    user are overridden.
    """
    os.environ.update(_VARIABLES)
    for name in _REPORTING_MODULES:
        # With None, the import system reports that the module cannot be found.
        sys.modules[name] = None  # type: ignore[assignment]
