"""Prefect flows and the command line, over the stages in `pipeline`."""

import pixelmill.pipeline  # noqa: F401  # Switches telemetry off, before a flow's module imports Prefect.
