"""Options shared by several commands, their validation, and the display of results."""

import json
import re
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelmill.pipeline.bundles import README_FILE, REPORT_FILE
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.evaluation.summary import describe_accuracy, describe_balance
from pixelmill.pipeline.storage import Location, parse_location, relative_to_here, require_reachable

if TYPE_CHECKING:
    from pixelmill.pipeline.registry import ModelVersion

Store = Annotated[
    Location,
    typer.Option(
        "--store",
        envvar="PIXELMILL_STORE",
        parser=parse_location,
        metavar="PATH",
        help="The artifacts root, a folder or an address.",
    ),
]
VerifyData = Annotated[
    bool,
    typer.Option("--verify-data", help="Read files and tensors again whose size and time have not changed."),
]
RetrainAnyway = Annotated[
    bool, typer.Option("--retrain-anyway", help="Train even if data, recipe and packages are unchanged.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to standard error.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a field of the recipe; `pixelmill recipes explain` lists them.",
    ),
]
Model = Annotated[str, typer.Argument(help="A bundle's folder, name@alias or name@version.")]
RecipeReference = Annotated[
    str, typer.Argument(metavar="RECIPE", help="The name of a built-in recipe, or a YAML file.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Hide progress, but not warnings and errors.")]
DEFAULT_STORE = Path("artifacts")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_BITS_OF_UNIT = {"K": 10, "M": 20, "G": 30, "T": 40}


def check_store(store: Location) -> None:
    """Check that a store is a folder or does not exist yet.

    Raises:
        RequestError: It is a file, an address that cannot be reached, or from a newer pixelmill.
    """
    require_reachable(store)
    if store.exists() and not store.is_dir():
        raise RequestError(f"store {store} is a file", "a folder", "Choose another with --store.")
    from pixelmill.pipeline.registry.store_format import require_store_format

    require_store_format(store)


def parse_size(option: str, text: str) -> int:
    """Convert a size such as `512MB` or `1.5GB` to bytes; the default unit is MB, of 1,048,576 bytes.

    Raises:
        RequestError: The text is not a size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise RequestError(f"{option} {text}", "a size, such as 512MB or 2GB", "Correct the option.")
    return int(float(found[1]) * (1 << _BITS_OF_UNIT[found[2].upper() or "M"]))


def format_size(size: int) -> str:
    """A number of bytes as `parse_size` reads it: `1GB`."""
    unit = max(
        (unit for unit, bits in _BITS_OF_UNIT.items() if size % (1 << bits) == 0),
        key=_BITS_OF_UNIT.__getitem__,
    )
    return f"{size >> _BITS_OF_UNIT[unit]}{unit}B"


def refuse_group_options(context: typer.Context) -> None:
    """Refuse an option before the subcommand, where it would have no effect.

    Raises:
        RequestError: There is such an option.
    """
    for name in ("store", "as_json"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise RequestError(
                f"an option before {context.invoked_subcommand!r}",
                "options after the subcommand",
                f"Write `{context.command_path} {context.invoked_subcommand} ...`, then the options.",
            )


def describe_model(model: "ModelVersion") -> dict[str, Any]:
    """A version as printed by `models show --json`."""
    return {
        "name": model.name,
        "version": model.version,
        "aliases": model.aliases,
        "folder": str(model.folder),
        "parameters": model.manifest.get("parameters"),
        "metrics": {key: model.metrics.get(key) for key in ("test", "validation", "training", "classes")},
        "parity": model.parity,
        "opset": model.manifest.get("opset"),
        "licence": model.manifest.get("licence"),
        # Models that were trained elsewhere have none of these.
        "seed": model.manifest.get("seed"),
        "run_id": model.manifest.get("run_id"),
        "dataset_fingerprint": model.manifest.get("dataset_fingerprint"),
        "git_commit": model.manifest["git_commit"],
        "created_at": model.manifest["created_at"],
        "onnx": model.manifest["files"].get("model.onnx"),
    }


def print_model(model: "ModelVersion", as_json: bool) -> None:
    """Print a version as text or as JSON."""
    if as_json:
        print_json(describe_model(model))
        return
    test, parity, manifest = model.metrics["test"], model.parity, model.manifest
    aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
    page = REPORT_FILE if REPORT_FILE in manifest["files"] else README_FILE
    run = f", run {manifest['run_id']}" if manifest.get("run_id") else ", trained elsewhere"
    parameters, balance = manifest.get("parameters"), describe_balance(test)
    lines = [
        f"{model.name}@{model.version}{aliases}",
        f"  test accuracy  {describe_test(test)}",
        *([f"  balanced       {balance}"] if balance else []),
        f"  parity         {parity['label_flips']} of {parity['images']:,} labels differ from Keras, "
        f"largest difference {parity['max_abs_difference']:.1e}",
        f"  parameters     {'unknown' if parameters is None else f'{parameters:,}'}",
        f"  created        {manifest['created_at']}{run}",
        f"  report         {shown(model.folder)}/{page}",
        f"  bundle         {shown(model.folder)}",
    ]
    # The bundle, and so the text in it, may come from an untrusted source.
    print("\n".join(printable(line) for line in lines))


def describe_test(test: dict[str, Any]) -> str:
    """Describe a model's results on held-out images."""
    if test["accuracy"] is None:
        return f"unknown: the {test['images']:,} held-out images have no labels"
    return describe_accuracy(test)


def shown(path: Location) -> str:
    """A path for display: relative if it is below the current folder."""
    return relative_to_here(path)


def how_to_call(program: str) -> str:
    """How to run a program again: by its name if it is on the PATH, otherwise by its path."""
    path, found = Path(program), which(Path(program).name)
    return path.name if found and Path(found).samefile(path) else shown(path)


def print_json(value: object) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(value))
