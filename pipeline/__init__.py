"""The stages of pixelmill as plain functions on frozen values; nothing here knows Prefect."""

from importlib.metadata import version

from pipeline.telemetry import disable_telemetry

__version__ = version("pixelmill")

disable_telemetry()
