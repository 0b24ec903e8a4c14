"""The stages of pixelmill as plain functions on frozen values; nothing here knows Prefect."""

from importlib.metadata import version

__version__ = version("pixelmill")
