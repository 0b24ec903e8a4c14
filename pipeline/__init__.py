"""The stages of pixelmill as plain functions on frozen values; nothing here knows Prefect."""

from pixelmill.pipeline.telemetry import disable_telemetry

disable_telemetry()


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # To look it up takes longer than to import the rest, and each command imports this.
    from importlib.metadata import version

    return version("pixelmill")
