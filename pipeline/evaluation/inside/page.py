"""Drawing the page `inside.html` from a Keras network. To be run in a separate process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from pixelmill.pipeline import __version__
from pixelmill.pipeline.artifacts import now
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import Labels, PreparedDataset
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.evaluation.inside.kernels import draw_fixed_kernels, draw_kernel_rows
from pixelmill.pipeline.evaluation.inside.maps import choose_layers, draw_sections, find_fields
from pixelmill.pipeline.evaluation.inside.pictures import draw_image, draw_overlay
from pixelmill.pipeline.evaluation.inside.probabilities import WorkedSoftmax, work_through
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.layers import summarize_layers
from pixelmill.pipeline.templates import open_templates
from pixelmill.pipeline.training.activations import (
    list_map_layers,
    predict_logits,
    read_kernels,
    record_maps,
)
from pixelmill.pipeline.training.class_activation import Method, map_classes

T = TypeVar("T")

MAX_CHANNELS = 12
MAX_MISTAKES = 6
_PICTURE_SIDE = 112


@dataclass(frozen=True)
class ShownImage:
    """A test image.

    Attributes:
        role: Why it was chosen.
        file: Its name in the dataset.
        picture: A data URL.
        true_name: The name of the true class.
        predicted: The name of the predicted class.
        probability: The probability of `predicted`, 0 to 1.
    """

    role: str
    file: str
    picture: str
    true_name: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class DrawnMistake:
    """A mistake with two class activation maps drawn over it.

    Attributes:
        image: The image.
        method: How the maps were computed.
        of_predicted: The map of the predicted class, as a data URL.
        of_true: The map of the true class, as a data URL.
    """

    image: ShownImage
    method: Method
    of_predicted: str
    of_true: str


def draw_inside(network: Any, dataset: PreparedDataset, probabilities: Probabilities, recipe: Recipe) -> str:
    """Draw the page; what cannot be drawn is left out, and the page says so.

    Args:
        network: The Keras model, as `load_model` returns it.
        dataset: The dataset with the test split, which has at least one image.
        probabilities: The model's predictions for the test split, float32 [images, classes].
        recipe: The recipe of the model.
    """
    left_out: list[str] = []

    def attempt(what: str, draw: Callable[[], T]) -> T | None:
        try:
            return draw()
        except Exception as error:  # noqa: BLE001  # The page explains the model, and must not fail a run.
            left_out.append(f"{what}: {printable(str(error)) or type(error).__name__}")
            return None

    test, names = dataset.split("test"), dataset.class_names
    chosen = choose_images(probabilities, test.labels)
    indices = list(chosen.values())
    worked = indices[min(1, len(indices) - 1)]
    pixels: Pixels = np.stack([np.asarray(test.pixels[at]) for at in indices])
    summaries = summarize_layers(recipe.model, recipe.image, len(names))
    layers = list_map_layers(network)
    shown = choose_layers(layers)
    maps = attempt("feature maps", lambda: record_maps(network, shown, pixels, MAX_CHANNELS)) or []
    kernels = attempt("kernels", lambda: read_kernels(network, MAX_CHANNELS)) or []
    fields = find_fields(layers, summaries)

    def work_softmax() -> WorkedSoftmax:
        logits = predict_logits(network, np.asarray(test.pixels[worked])[None])
        return work_through(logits[0], int(test.labels[worked]), names)

    environment = open_templates("pixelmill.pipeline.evaluation.inside")
    environment.filters["printable"] = printable
    return environment.get_template("page.html.jinja").render(
        recipe=recipe,
        images=_describe(chosen, dataset, probabilities),
        fixed=attempt("fixed kernels", lambda: draw_fixed_kernels(pixels[0])),
        rows=attempt("kernels", lambda: draw_kernel_rows(kernels, maps)) or [],
        sections=attempt("feature maps", lambda: draw_sections(maps, fields, summaries)) or [],
        layers=len(layers),
        mistakes=attempt("class activation maps", lambda: _draw_mistakes(network, dataset, probabilities)),
        wrong=int((probabilities.argmax(axis=1) != test.labels).sum()),
        softmax=attempt("softmax", work_softmax),
        worked_image=indices.index(worked),
        left_out=left_out,
        made_at=now(),
        pixelmill_version=__version__,
    )


def choose_images(probabilities: Probabilities, labels: Labels) -> dict[str, int]:
    """The indices of up to three different images, by the reason for which each was chosen."""
    predicted, surest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    two = np.sort(probabilities, axis=1)[:, -2:]
    is_right = predicted == labels
    wanted = {
        "the most certain correct prediction": (np.flatnonzero(is_right), -surest),
        "the most certain mistake": (np.flatnonzero(~is_right), -surest),
        "the least certain prediction": (np.arange(len(labels)), two[:, -1] - two[:, 0]),
    }
    chosen: dict[str, int] = {}
    for role, (candidates, score) in wanted.items():
        left = candidates[~np.isin(candidates, list(chosen.values()))]
        if len(left):
            chosen[role] = int(left[np.argmin(score[left])])
    return chosen


def _describe(
    chosen: dict[str, int], dataset: PreparedDataset, probabilities: Probabilities
) -> list[ShownImage]:
    test, names, files = dataset.split("test"), dataset.class_names, dataset.names("test")
    return [
        ShownImage(
            role=role,
            file=files[at],
            picture=draw_image(np.asarray(test.pixels[at]), _PICTURE_SIDE),
            true_name=names[test.labels[at]],
            predicted=names[int(probabilities[at].argmax())],
            probability=float(probabilities[at].max()),
        )
        for role, at in chosen.items()
    ]


def _draw_mistakes(
    network: Any, dataset: PreparedDataset, probabilities: Probabilities
) -> Sequence[DrawnMistake]:
    test = dataset.split("test")
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != test.labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:MAX_MISTAKES]
    shown = _describe({str(at): int(at) for at in worst}, dataset, probabilities)
    if not len(worst):
        return []
    pixels: Pixels = np.stack([np.asarray(test.pixels[at]) for at in worst])
    classes = [(int(predicted[at]), int(test.labels[at])) for at in worst]
    drawn = []
    for image, each, maps in zip(shown, pixels, map_classes(network, pixels, classes), strict=True):
        # One scale for both maps, so that the evidence for the two classes can be compared.
        limit = float(np.abs(maps.values).max())
        of_predicted, of_true = (draw_overlay(each, values, limit) for values in maps.values)
        drawn.append(DrawnMistake(image, maps.method, of_predicted, of_true))
    return drawn
