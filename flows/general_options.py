"""General options: `--version`, and `--quiet` before or after a command's name."""

import inspect
import os
import platform
from collections.abc import Callable
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from pixelmill.flows.commands.console import remember_options
from pixelmill.flows.commands.options import Quiet
from pixelmill.pipeline.progress import QUIET_VARIABLE

_PACKAGES = {
    "onnxruntime": "onnxruntime",
    "Prefect": "prefect",
    "Keras": "keras",
    "TensorFlow": "tensorflow",
    "TensorFlow for CPUs": "tensorflow-cpu",
}


def _print_versions(wanted: bool) -> None:
    if not wanted:
        return
    print(f"pixelmill {version('pixelmill')}")
    print(f"Python {platform.python_version()}")
    for name, package in _PACKAGES.items():
        try:
            print(f"{name} {version(package)}")
        except PackageNotFoundError:
            continue
    raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_versions, is_eager=True, help="Show the installed versions and exit."
    ),
]


def take_general_options(show_version: Version = False, quiet: Quiet = False) -> None:
    """Retrain image classifiers, check their ONNX files against Keras, and score folders of images."""
    _apply(quiet)


def quietable(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option `--quiet` to a command."""

    @wraps(command)
    def run(*args: Any, quiet: bool, context: typer.Context, **kwargs: Any) -> None:
        remember_options(context)
        _apply(quiet)
        command(*args, **kwargs)

    signature = inspect.signature(command)
    kind = inspect.Parameter.KEYWORD_ONLY
    more = (
        inspect.Parameter("quiet", kind, default=False, annotation=Quiet),
        inspect.Parameter("context", kind, annotation=typer.Context),
    )
    vars(run)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), *more])
    run.__annotations__ = {**command.__annotations__, "quiet": Quiet, "context": typer.Context}
    return run


def _apply(quiet: bool) -> None:
    if quiet:
        os.environ[QUIET_VARIABLE] = "1"
