"""`pixelmill models`: registered versions and the aliases that point to them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelmill.flows.commands.compare import models_compare
from pixelmill.flows.commands.console import remember_options
from pixelmill.flows.commands.options import (
    DEFAULT_STORE,
    Json,
    Model,
    Store,
    check_store,
    describe_model,
    print_json,
    print_model,
    refuse_group_options,
)
from pixelmill.flows.text_table import render_table
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError, WorkError

if TYPE_CHECKING:
    from pixelmill.pipeline.registry import DamagedVersion, ModelVersion

models_app = typer.Typer(help="Manage registered versions and the aliases that point to them.")


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Manage registered versions; without a command, list them."""
    remember_options(context)
    if context.invoked_subcommand is None:
        models_list(store, as_json)
    else:
        refuse_group_options(context)


@models_app.command("list")
def models_list(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """List every registered version; if one is damaged, the exit code is 1."""
    check_store(store)
    from pixelmill.pipeline.registry import DamagedVersion, list_models

    found = list_models(store)
    damaged = [entry for entry in found if isinstance(entry, DamagedVersion)]
    if as_json:
        print_json({"models": [_describe_entry(entry) for entry in found]})
    elif not found:
        print(f"No models in {store}. Train one with `pixelmill retrain`.")
    else:
        print(render_table([_row_of(entry) for entry in found]))
    if damaged:
        raise WorkError(
            f"{len(damaged):,} of {len(found):,} entries cannot be read, such as {_reference(damaged[0])}",
            "versions that match their manifests",
            "Restore each from a copy, or remove its folder.",
        )


@models_app.command("show")
def models_show(model: Model, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Show the metrics, parity and location of a version."""
    check_store(store)
    from pixelmill.pipeline.registry import show_model

    print_model(show_model(store, model), as_json)


models_app.command("compare")(models_compare)


@models_app.command("promote")
def models_promote(
    model: Model,
    alias: Annotated[str, typer.Option("--alias", help="The alias to move.")] = "champion",
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the log.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even if it gets a corrected image wrong; needs --reason.")
    ] = False,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Point an alias to a version, regardless of the gate, but not of the permanent checks."""
    check_store(store)
    if force and not (reason or "").strip():
        raise RequestError("--force without --reason", "a reason for the log", 'Add --reason "...".')
    from pixelmill.pipeline.registry import find_version, promote_version
    from pixelmill.pipeline.registry.checks import has_checks

    name, version = find_version(store, model)
    if not force and has_checks(store, name):
        from pixelmill.pipeline.promotion.permanent_checks import require_checks
        from pixelmill.pipeline.registry import find_bundle

        bundle = find_bundle(store, f"{name}@{version}")
        require_checks(store, bundle, f'pixelmill models promote {model} --force --reason "..."')
    promote_version(store, name, version, alias, reason=reason or "by hand, without a gate")
    _print_alias(name, alias, version, as_json)


@models_app.command("rollback")
def models_rollback(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    alias: Annotated[str, typer.Option("--alias", help="The alias to move back.")] = "champion",
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Point an alias back to its previous version."""
    check_store(store)
    from pixelmill.pipeline.registry import rollback_alias

    _print_alias(name, alias, rollback_alias(store, name, alias), as_json)


@models_app.command("log")
def models_log(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Show every move of an alias and every refusal, the latest last; with --json, one object per line."""
    check_store(store)
    from pixelmill.pipeline.registry import read_log, require_model

    require_model(store, name)
    for entry in read_log(store, name):
        if as_json:
            print(entry.to_json())
        else:
            before = "-" if entry.before is None else entry.before
            moved = f"{before} -> {entry.to}" if entry.action != "refused" else str(entry.to)
            line = f"{entry.at}  {entry.alias:10} {entry.action:11} {moved:10} {entry.by}: {entry.reason}"
            print(printable(line))


def _describe_entry(entry: "ModelVersion | DamagedVersion") -> dict[str, Any]:
    """A version as printed by `models list --json`; `error` is None if it is intact."""
    from pixelmill.pipeline.registry import ModelVersion

    if isinstance(entry, ModelVersion):
        return {**describe_model(entry), "error": None}
    return {
        "name": entry.name,
        "version": entry.version,
        "aliases": entry.aliases,
        "folder": str(entry.folder),
        "error": entry.error,
    }


def _row_of(entry: "ModelVersion | DamagedVersion") -> list[str]:
    from pixelmill.pipeline.registry import ModelVersion

    if not isinstance(entry, ModelVersion):
        cells = ["", "", "", ", ".join([*entry.aliases, f"damaged: {entry.error}"])]
    else:
        test = entry.metrics["test"]
        numbers = [f"{name} {_rounded(test[name])}" for name in ("accuracy", "loss")]
        cells = [*numbers, entry.manifest["created_at"], ", ".join(entry.aliases)]
    return [printable(cell) for cell in (_reference(entry), *cells)]


def _reference(entry: "ModelVersion | DamagedVersion") -> str:
    return entry.name if entry.version is None else f"{entry.name}@{entry.version}"


def _rounded(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _print_alias(name: str, alias: str, version: int, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "alias": alias, "version": version})
    else:
        print(f"{name}@{alias} is now version {version}.")
