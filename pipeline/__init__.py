"""The stages of pixelmill as plain functions on frozen values, independent of Prefect."""

from pixelmill.pipeline.telemetry import disable_telemetry

disable_telemetry()


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Looking it up takes longer than importing the rest of the package.
    from importlib.metadata import version

    return version("pixelmill")
