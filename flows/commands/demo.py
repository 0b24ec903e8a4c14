"""`pixelmill demo`."""

import sys
from typing import TYPE_CHECKING

from pixelmill.flows.commands.options import (
    DEFAULT_STORE,
    Json,
    Overrides,
    Store,
    check_store,
    describe_model,
    how_to_call,
    print_json,
    shown,
)
from pixelmill.flows.extras import require_extras
from pixelmill.flows.prefect_session import prefect_session

if TYPE_CHECKING:
    from pixelmill.flows.demo import Demonstration
    from pixelmill.pipeline.storage import Location


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
    if as_json:
        scoring = result.table.manifest
        print_json({"model": describe_model(result.model), "scoring": scoring, "agreement": result.agreement})
    else:
        _print(result, store)


def _print(result: "Demonstration", store: "Location") -> None:
    counts, test, parity = result.table.manifest, result.model.metrics["test"], result.model.parity
    reference = f"{result.model.name}@{result.model.aliases[0]}"
    images, folder = shown(result.images), shown(result.model.folder)
    command = how_to_call(sys.argv[0])
    store_option = "" if store == DEFAULT_STORE else f" --store {store}"
    print(
        f"""
Test accuracy {test["accuracy"]:.4f}, loss {test["loss"]:.4f}, on {test["images"]:,} images.
ONNX and Keras: {parity["label_flips"]} of {parity["images"]:,} labels differ, \
largest difference {parity["max_abs_difference"]:.1e}.
Scored {counts["scored"]:,} of {counts["listed"]:,} files at {counts["images_per_second"]:,.0f} images/s; \
{result.agreement:.2%} agree with their subfolder.

  report             {folder}/report/index.html
  bundle             {folder}
  prediction table   {shown(result.table.folder)}

Next:
  {command} models show {reference}{store_option}
  {command} score {reference} {images} --output scored --format csv --top-k 3{store_option}
  {command} retrain digits --set training.epochs=10{store_option}"""
    )
