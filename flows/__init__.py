"""Prefect flows and the command line, built on the stages in `pipeline`."""

import pixelmill.pipeline  # noqa: F401  # Disables telemetry before a flow's module imports Prefect.
