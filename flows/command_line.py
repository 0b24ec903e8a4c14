"""The `pixelmill` command. Each command imports what it needs when it runs, to start quickly."""

import io
import os
import sys

import typer

from pixelmill.flows.commands.console import (
    explain_os_error,
    explain_remote_trouble,
    name_options,
    show_pipeline_warnings,
)
from pixelmill.flows.commands.explain import explain
from pixelmill.flows.commands.export import export
from pixelmill.flows.commands.models import models_app
from pixelmill.flows.commands.options import (
    DEFAULT_STORE,
    Json,
    Overrides,
    RecipeReference,
    Store,
    check_store,
    describe_model,
    how_to_call,
    print_json,
    print_model,
    shown,
)
from pixelmill.flows.commands.recipes import recipes_app
from pixelmill.flows.commands.score import score
from pixelmill.flows.commands.verify import verify
from pixelmill.flows.extras import require_extras
from pixelmill.flows.general_options import quietable, take_general_options
from pixelmill.flows.interrupts import ending_on_signals
from pixelmill.flows.prefect_session import ServerLostError, prefect_session
from pixelmill.pipeline.errors import ExitCode, PixelmillError
from pixelmill.pipeline.storage import is_remote_error

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(take_general_options)
app.command("score")(quietable(score))
app.command("explain")(quietable(explain))
app.command("export")(quietable(export))
app.command("verify")(quietable(verify))
for group in (models_app, recipes_app):
    for registered in group.registered_commands:
        if registered.callback is not None:
            registered.callback = quietable(registered.callback)
app.add_typer(models_app, name="models", no_args_is_help=False)
app.add_typer(recipes_app, name="recipes", no_args_is_help=False)


def main() -> None:
    """Run the command line; known errors are reported in one line, with their exit code."""
    show_pipeline_warnings()
    # Printing a file name that is not valid text must not fail.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with ending_on_signals():
            app()
    except PixelmillError as error:
        print(f"pixelmill: {name_options(str(error))}", file=sys.stderr, flush=True)
        if isinstance(error, ServerLostError):
            os._exit(error.exit_code)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"pixelmill: {explain_os_error(error)}", file=sys.stderr)
        sys.exit(ExitCode.WORK_FAILED)
    except Exception as error:
        if not is_remote_error(error):
            raise
        print(f"pixelmill: {explain_remote_trouble(error)}", file=sys.stderr)
        sys.exit(ExitCode.WORK_FAILED)


@app.command()
@quietable
def demo(store: Store = DEFAULT_STORE, overrides: Overrides = None, as_json: Json = False) -> None:
    """Retrain on MNIST, promote the model, score a folder of test images and print where the results are."""
    from pixelmill.pipeline.readiness import check_readiness
    from pixelmill.pipeline.recipes import load_recipe

    check_store(store)
    check_readiness(load_recipe("mnist", tuple(overrides or ())), store)
    require_extras()

    with prefect_session():
        from pixelmill.flows.demo import demonstrate

        result = demonstrate(store, tuple(overrides or ()))
    counts = result.table.manifest
    if as_json:
        print_json({"model": describe_model(result.model), "scoring": counts, "agreement": result.agreement})
        return
    test = result.model.metrics["test"]
    reference = f"{result.model.name}@{result.model.aliases[0]}"
    images, table = shown(result.images), shown(result.table.folder)
    folder = shown(result.model.folder)
    command = how_to_call(sys.argv[0])
    store_option = "" if store == DEFAULT_STORE else f" --store {store}"
    print(
        f"""
Test accuracy {test["accuracy"]:.4f}, loss {test["loss"]:.4f}, on {test["images"]:,} images.
ONNX and Keras: {result.model.parity["label_flips"]} of {result.model.parity["images"]:,} labels differ, \
largest difference {result.model.parity["max_abs_difference"]:.1e}.
Scored {counts["scored"]:,} of {counts["listed"]:,} files at {counts["images_per_second"]:,.0f} images/s; \
{result.agreement:.2%} agree with their subfolder.

  report             {folder}/report/index.html
  bundle             {folder}
  prediction table   {table}

Next:
  {command} models show {reference}{store_option}
  {command} score {reference} {images} --output scored --format csv --top-k 3{store_option}
  {command} retrain digits --set training.epochs=10{store_option}"""
    )


@app.command()
@quietable
def retrain(
    recipe: RecipeReference,
    overrides: Overrides = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Download and prepare a dataset, then train, evaluate, export, register and promote a model."""
    from pixelmill.pipeline.readiness import check_readiness
    from pixelmill.pipeline.recipes import load_recipe

    checked = load_recipe(recipe, tuple(overrides or ()))
    check_store(store)
    check_readiness(checked, store)
    require_extras()
    from pixelmill.pipeline.registry import show_model

    with prefect_session():
        from pixelmill.flows.retraining import retrain as run_flow

        promotion = run_flow(checked, str(store))
    model = show_model(store, f"{promotion.name}@{promotion.version}")
    print_model(model, as_json)


if __name__ == "__main__":
    main()
