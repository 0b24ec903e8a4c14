"""`pixelmill predict`."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Model, Store, check_store, print_json
from pixelmill.flows.text_table import render_table
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import PixelmillError, WorkError
from pixelmill.pipeline.images import ImageFailure
from pixelmill.pipeline.prediction import LoadedModel, Prediction
from pixelmill.pipeline.registry import find_bundle

_Outcome = Prediction | str
"""The prediction for a file, or why there is none."""


def predict(
    model: Model,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="The image files.")],
    top_k: Annotated[
        int, typer.Option("--top-k", min=1, help="The number of classes per image, the most probable first.")
    ] = 3,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Predict a few images and print a line for each; for many images, use `score`."""
    check_store(store)
    loaded = LoadedModel.from_bundle(find_bundle(store, model))
    outcomes = {file: _predict(loaded, file) for file in dict.fromkeys(files)}
    if as_json:
        images = [_describe(loaded, file, outcomes[file], top_k) for file in files]
        print_json({"model_name": loaded.name, "model_version": loaded.version, "images": images})
    else:
        print(render_table([[printable(file), *_cells(loaded, outcomes[file], top_k)] for file in files]))
    failed = [file for file in files if isinstance(outcomes[file], str)]
    if failed:
        raise WorkError(
            f"no prediction for {len(failed):,} of {len(files):,} images, such as {printable(failed[0])}",
            "readable image files",
            "The line of each says why; the other predictions are complete.",
        )


def _predict(model: LoadedModel, file: str) -> _Outcome:
    try:
        return model.predict(Path(file))
    except PixelmillError as error:
        # A failure to decode has a code and a reason, which a prediction table would show as well.
        return str(error.__cause__) if isinstance(error.__cause__, ImageFailure) else error.received


def _cells(model: LoadedModel, outcome: _Outcome, top_k: int) -> list[str]:
    """`horse`, `0.9713` and `deer 0.0102, dog 0.0080`; or `failed`, nothing and the reason."""
    if isinstance(outcome, str):
        return ["failed", "", printable(outcome)]
    first, *others = (
        (printable(name), f"{share:.4f}") for name, share in _best_classes(model, outcome, top_k)
    )
    return [*first, ", ".join(" ".join(other) for other in others)]


def _describe(model: LoadedModel, file: str, outcome: _Outcome, top_k: int) -> dict[str, Any]:
    """One image with the columns of a prediction table."""
    if isinstance(outcome, str):
        return {"image_path": file, "status": "failed", "error": outcome, "label": None, "probability": None}
    best = _best_classes(model, outcome, top_k)
    return {
        "image_path": file,
        "status": "scored",
        "error": None,
        "label": outcome.label,
        "class_index": outcome.class_index,
        "probability": outcome.probability,
        "top_labels": [name for name, _ in best],
        "top_probabilities": [probability for _, probability in best],
    }


def _best_classes(model: LoadedModel, prediction: Prediction, top_k: int) -> list[tuple[str, float]]:
    best = np.argsort(-prediction.probabilities, kind="stable")[:top_k]
    return [(model.class_names[index], float(prediction.probabilities[index])) for index in best]
