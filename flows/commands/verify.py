"""`pixelmill verify`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Model, Store, check_store, print_json
from pixelmill.flows.text_table import render_table
from pixelmill.pipeline.bundles.engine_runs import DEFAULT_SECONDS
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.verification import (
    EngineCheck,
    SignatureCheck,
    Verification,
    require_agreement,
    verify_bundle,
)
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.registry import find_bundle

_SIGNATURES: dict[SignatureCheck, str] = {
    "none": "There is no signature.",
    "not checked": "There is a signature, which was not checked: that needs --key.",
    "valid": "The signature is valid.",
}


def verify(
    model: Model,
    engines: Annotated[
        list[EngineName] | None, typer.Option("--engine", help="Run only this engine; may be repeated.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--timeout", min=1, metavar="SECONDS", help="The time limit of each engine.")
    ] = DEFAULT_SECONDS,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="PUB",
            help="Refuse a bundle that was not signed with the key of this file (PEM).",
        ),
    ] = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Check a bundle's files, signature and golden vectors on all engines; exit code 3 on a difference."""
    check_store(store)
    verification = verify_bundle(find_bundle(store, model), engines or (), seconds, key)
    if as_json:
        print_json({**asdict(verification), "agrees": verification.agrees})
    else:
        _print(verification)
    require_agreement(verification)


def _print(verification: Verification) -> None:
    same = verification.images - len(verification.changed_tensors)
    print(f"{verification.files} files match the manifest.")
    print(_SIGNATURES[verification.signature])
    print(f"{same} of {verification.images} golden images match their golden tensor.\n")
    rows = [
        (
            ENGINES[check.engine].title,
            check.version,
            check.file,
            "-" if check.difference is None else f"{check.difference:.1e}",
            _verdict(check),
        )
        for check in verification.engines
    ]
    if rows:
        print(render_table(rows, ("engine", "version", "file", "largest difference", "verdict")))
    if verification.missing:
        print(f"not installed: {', '.join(ENGINES[name].title for name in verification.missing)}")


def _verdict(check: EngineCheck) -> str:
    if check.difference is None:
        return printable(f"cannot run the model: {check.error}")
    return "agrees" if check.agrees else "differs"
