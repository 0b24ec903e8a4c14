"""The `pixelmill` command. What a command needs is imported when it runs, so that each starts fast."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import ExitCode, PixelmillError, RequestError
from pipeline.images import DEFAULT_MAX_PIXELS
from pipeline.inference import Provider
from pipeline.predictions import TableFormat

app = typer.Typer(
    help="Retrain an image classifier, prove its ONNX file, score folders of images into tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The registry: versions and the aliases that point to them.")
recipes_app = typer.Typer(help="What a retraining run can be asked to do.")
app.add_typer(models_app, name="models", no_args_is_help=False)
app.add_typer(recipes_app, name="recipes", no_args_is_help=False)

Store = Annotated[Path, typer.Option("--store", envvar="PIXELMILL_STORE", help="The artifacts root.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to standard error.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field.")]
Model = Annotated[str, typer.Argument(help="The folder of a bundle, name@alias or name@version.")]
DEFAULT_STORE = Path("artifacts")


def main() -> None:
    """Run the command; every known error is one line and its exit code."""
    from flows.console import explain_os_error, show_pipeline_warnings

    show_pipeline_warnings()
    try:
        app()
    except PixelmillError as error:
        print(f"pixelmill: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"pixelmill: {explain_os_error(error)}", file=sys.stderr)
        sys.exit(ExitCode.WORK_FAILED)


@app.command()
def demo(store: Store = DEFAULT_STORE, overrides: Overrides = None, as_json: Json = False) -> None:
    """Retrain on MNIST, promote, score a folder of the test images; says where everything is."""
    _check_store(store)
    _require_flows()
    from flows.demo import demonstrate

    result = demonstrate(store, tuple(overrides or ()))
    counts = result.table.manifest
    if as_json:
        _print_json({"model": _describe(result.model), "scoring": counts, "agreement": result.agreement})
        return
    test = result.model.metrics["test"]
    reference = f"{result.model.name}@{result.model.aliases[0]}"
    images, table = _shown(result.images), _shown(result.table.folder)
    folder = _shown(result.model.folder)
    elsewhere = "" if store == DEFAULT_STORE else f" --store {store}"
    print(
        f"""
Test accuracy {test["accuracy"]:.4f}, loss {test["loss"]:.4f}, on {test["images"]:,} images.
ONNX equals Keras: {result.model.parity["label_flips"]} of {result.model.parity["images"]:,} labels differ, \
largest difference {result.model.parity["max_abs_difference"]:.1e}.
Scored {counts["scored"]:,} of {counts["listed"]:,} files at {counts["images_per_second"]:,.0f} images/s; \
{result.agreement:.2%} agree with their subfolder.

  report             {folder}/report/index.html
  bundle             {folder}
  prediction table   {table}

Next:
  pixelmill models show {reference}{elsewhere}
  pixelmill score {reference} {images} --output scored --format csv --top-k 3{elsewhere}
  pixelmill retrain digits --set training.epochs=10{elsewhere}"""
    )


@app.command()
def retrain(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a YAML file.")],
    overrides: Overrides = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Download, prepare, train, evaluate, export, register, promote."""
    from pipeline.recipes import load_recipe

    checked = load_recipe(recipe, tuple(overrides or ()))
    _check_store(store)
    _require_flows()
    from flows.retraining import retrain as run_flow
    from pipeline.registry import show_model

    promotion = run_flow(checked, store)
    model = show_model(store, f"{promotion.name}@{promotion.version}")
    _show_model(model, as_json)


@app.command()
def score(
    model: Model,
    images: Annotated[Path, typer.Argument(help="The folder to score, all levels of it.")],
    output: Annotated[Path, typer.Option("--output", help="The folder of the table.")],
    format: Annotated[TableFormat, typer.Option("--format")] = "parquet",  # noqa: A002
    top_k: Annotated[int, typer.Option("--top-k", help="Choices kept for each image.")] = 1,
    workers: Annotated[int | None, typer.Option("--workers", help="Default: the processors.")] = None,
    provider: Annotated[Provider, typer.Option("--provider")] = "cpu",
    max_failure_rate: Annotated[
        float, typer.Option("--max-failure-rate", help="More failed rows: exit code 3.")
    ] = 0.01,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", help="Larger images are failed rows.")
    ] = DEFAULT_MAX_PIXELS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace what the output holds.")] = False,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Score a folder of images: one row for every image, always."""
    _check_store(store)
    from pipeline.registry import find_bundle
    from pipeline.scoring import ScoringRequest
    from pipeline.scoring.committing import require_failure_rate
    from pipeline.scoring.folder import score_folder

    request = ScoringRequest(
        bundle=find_bundle(store, model),
        images=images,
        output=output,
        format=format,
        top_k=top_k,
        workers=workers,
        provider=provider,
        max_failure_rate=max_failure_rate,
        max_pixels=max_pixels,
        fresh=fresh,
    )
    try:
        table = score_folder(request)
    except KeyboardInterrupt:
        print(
            f"\npixelmill: interrupted; finished shards are kept in {output}. "
            "Run the same command again to go on.",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    counts = table.manifest
    if as_json:
        _print_json({"output": str(output), **counts})
    else:
        print(
            f"Scored {counts['scored']:,} of {counts['listed']:,} images in {counts['seconds']:.1f} s "
            f"({counts['images_per_second']:,.0f} images/s, {counts['provider']}, "
            f"{counts['threads']} processes)."
        )
        for code, count in counts["failures"].items():
            print(f"  failed: {code} {count:,}")
        print(f"Table: {output}")
    require_failure_rate(table, max_failure_rate)


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """List the models when no other command is given."""
    if context.invoked_subcommand is None:
        models_list(store, as_json)


@models_app.command("list")
def models_list(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Every registered version."""
    _check_store(store)
    from pipeline.registry import list_models

    found = list_models(store)
    if as_json:
        _print_json({"models": [_describe(model) for model in found]})
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
    _check_store(store)
    from pipeline.registry import show_model

    _show_model(show_model(store, model), as_json)


@models_app.command("promote")
def models_promote(
    model: Model,
    alias: Annotated[str, typer.Option("--alias", help="The alias to move.")] = "champion",
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Point an alias to a version, whatever the gate says."""
    _check_store(store)
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
    _check_store(store)
    from pipeline.registry import rollback_alias

    _say_moved(name, alias, rollback_alias(store, name, alias), as_json)


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """List the recipes when no other command is given."""
    if context.invoked_subcommand is None:
        recipes_list()


@recipes_app.command("list")
def recipes_list(as_json: Json = False) -> None:
    """The recipes that come with pixelmill."""
    from pipeline.recipes import shipped_recipes

    if as_json:
        _print_json({"recipes": shipped_recipes()})
    else:
        print("\n".join(shipped_recipes()))


@recipes_app.command("show")
def recipes_show(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a YAML file.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """A recipe with every default spelled out."""
    from pipeline.recipes import dump_recipe, load_recipe

    checked = load_recipe(recipe, tuple(overrides or ()))
    if as_json:
        _print_json(checked.model_dump(mode="json"))
    else:
        print(dump_recipe(checked), end="")


def _check_store(store: Path) -> None:
    if "://" in str(store) or ":/" in str(store):
        raise RequestError(
            f"store {store}", "a folder on this machine", "Remote stores are not supported yet."
        )


def _require_flows() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("prefect", "keras", "tf2onnx", "sklearn") if find_spec(name) is None]
    if missing:
        raise RequestError(
            f"an installation without {', '.join(missing)}",
            "pixelmill with its extras `flows` and `train`",
            "Install them: pip install 'pixelmill[flows,train]'.",
        )
    from flows.console import prepare_prefect

    prepare_prefect()


def _describe(model: Any) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "aliases": model.aliases,
        "folder": str(model.folder),
        "parameters": model.manifest["parameters"],
        "metrics": {key: model.metrics[key] for key in ("test", "validation", "training", "classes")},
        "parity": model.parity,
        "opset": model.manifest["opset"],
        "licence": model.manifest["licence"],
        "seed": model.manifest["seed"],
        "run_id": model.manifest["run_id"],
        "dataset_fingerprint": model.manifest["dataset_fingerprint"],
        "git_commit": model.manifest["git_commit"],
        "created_at": model.manifest["created_at"],
        "onnx": model.manifest["files"]["model.onnx"],
    }


def _show_model(model: Any, as_json: bool) -> None:
    if as_json:
        _print_json(_describe(model))
        return
    test, parity = model.metrics["test"], model.parity
    pointing = f" ({', '.join(model.aliases)})" if model.aliases else ""
    print(
        f"""{model.name}@{model.version}{pointing}
  test accuracy  {test["accuracy"]:.4f} on {test["images"]:,} images, loss {test["loss"]:.4f}
  parity         {parity["label_flips"]} of {parity["images"]:,} labels differ from Keras, \
largest difference {parity["max_abs_difference"]:.1e}
  parameters     {model.manifest["parameters"]:,}
  made           {model.manifest["created_at"]}, run {model.manifest["run_id"]}
  report         {_shown(model.folder)}/report/index.html
  bundle         {_shown(model.folder)}"""
    )


def _say_moved(name: str, alias: str, version: int, as_json: bool) -> None:
    if as_json:
        _print_json({"name": name, "alias": alias, "version": version})
    else:
        print(f"{name}@{alias} is version {version} now.")


def _shown(path: Path) -> str:
    """A path as the user can type it: relative where it is below the current folder."""
    resolved, here = path.resolve(), Path.cwd()
    return str(resolved.relative_to(here) if resolved.is_relative_to(here) else resolved)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False))


if __name__ == "__main__":
    main()
