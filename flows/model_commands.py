"""`pixelmill models`: the registry's versions and the aliases that point to them."""

from typing import Annotated

import typer

from flows.options import (
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

models_app = typer.Typer(help="The registry: versions and the aliases that point to them.")


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """List the models when no other command is given."""
    if context.invoked_subcommand is None:
        models_list(store, as_json)
    else:
        refuse_group_options(context)


@models_app.command("list")
def models_list(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Every registered version."""
    check_store(store)
    from pipeline.registry import list_models

    found = list_models(store)
    if as_json:
        print_json({"models": [describe_model(model) for model in found]})
        return
    if not found:
        print(f"No models in {store}. Train one with `pixelmill retrain`.")
    for model in found:
        test = model.metrics["test"]
        print(
            f"{f'{model.name}@{model.version}':24} accuracy {test['accuracy']:.4f}  "
            f"loss {test['loss']:.4f}  {model.manifest['created_at']}  {', '.join(model.aliases)}"
        )


@models_app.command("show")
def models_show(model: Model, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """One version: metrics, parity, where it is."""
    check_store(store)
    from pipeline.registry import show_model

    print_model(show_model(store, model), as_json)


@models_app.command("promote")
def models_promote(
    model: Model,
    alias: Annotated[str, typer.Option("--alias", help="The alias to move.")] = "champion",
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Point an alias to a version, whatever the gate says."""
    check_store(store)
    from pipeline.registry import promote_version, show_model

    found = show_model(store, model)
    promote_version(store, found.name, found.version, alias)
    _say_moved(found.name, alias, found.version, as_json)


@models_app.command("rollback")
def models_rollback(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    alias: Annotated[str, typer.Option("--alias", help="The alias to move back.")] = "champion",
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Point an alias back to the version before."""
    check_store(store)
    from pipeline.registry import rollback_alias

    _say_moved(name, alias, rollback_alias(store, name, alias), as_json)


def _say_moved(name: str, alias: str, version: int, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "alias": alias, "version": version})
    else:
        print(f"{name}@{alias} is version {version} now.")
