"""Two versions side by side: metrics on the same images, layers, sizes, speed, and the images that differ."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from pixelmill.pipeline.artifacts import scratch_folder
from pixelmill.pipeline.bundles import ONNX_FILES, ModelBundle, read_bundle_manifest
from pixelmill.pipeline.config import Bar, Recipe
from pixelmill.pipeline.config.promotion import Metric
from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.errors import PixelmillError, RequestError
from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.evaluation.paired import Level, PairedPredictions
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.layers import describe_volume, summarize_layers
from pixelmill.pipeline.promotion.bars import MEASURES
from pixelmill.pipeline.promotion.compared_images import ComparedImages, find_images
from pixelmill.pipeline.promotion.comparison import measure_drop
from pixelmill.pipeline.promotion.pictures import encode_pictures
from pixelmill.pipeline.promotion.prediction import FilePredictions, predict_files
from pixelmill.pipeline.promotion.test_images import trained_on
from pixelmill.pipeline.storage import Location

Range = tuple[float, float]
Side = Literal["a", "b", "neither"]
MAX_PICTURES = 48
_METRICS: tuple[Metric, ...] = ("accuracy", "balanced_accuracy", "loss", "calibration_error")
# A level of 2.5% on each side makes 95% intervals.
_LEVEL = Level(0.025)


@dataclass(frozen=True)
class ComparedValue:
    """A metric of both versions, with 95% intervals.

    Attributes:
        name: The metric, or the class whose recall it is.
        images: Number of images.
        a: Of the first version.
        a_interval: Its interval.
        b: Of the second version.
        b_interval: Its interval.
        difference: B minus A.
        difference_interval: The interval of the difference, from the same images; None if it is not known.
    """

    name: str
    images: int
    a: float
    a_interval: Range
    b: float
    b_interval: Range
    difference: float
    difference_interval: Range | None


@dataclass(frozen=True)
class VersionFacts:
    """What a version is made of.

    Attributes:
        reference: `name@version`.
        created_at: When it was exported.
        image: Its input, such as `28x28x1`.
        classes: Number of classes.
        parameters: Number of parameters; None if unknown.
        files: The size in bytes of each ONNX file.
        images_per_second: Of inference on this machine, its lowest and highest value over the batches.
        layers: One line for each layer; empty if there is no recipe.
    """

    reference: str
    created_at: str
    image: str
    classes: int
    parameters: int | None
    files: dict[str, int]
    images_per_second: tuple[float, float, float]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class DifferentImage:
    """An image with two different predictions; `right` is None where the true class is not known."""

    path: str
    label: str | None
    a: str
    a_probability: float
    b: str
    b_probability: float
    right: Side | None
    picture: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Images that were not compared, by reason; `unknown` names versions that do not list theirs."""

    trained_on_by_a: int
    trained_on_by_b: int
    unreadable: int
    of_other_classes: int
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class ModelComparison:
    """Two versions on the same images.

    Attributes:
        a: The first version.
        b: The second version.
        on: What the images are.
        images: Number of images that were compared.
        left_out: Those that were not.
        agreement: The share of images for which both predict the same class.
        agreement_interval: Its 95% interval (Wilson).
        metrics: Empty if the true classes are not known.
        classes: The recall of each class; empty if the true classes are not known.
        different: The images with different predictions, those first that only A has right.
    """

    a: VersionFacts
    b: VersionFacts
    on: str
    images: int
    left_out: LeftOut
    agreement: float
    agreement_interval: Range
    metrics: tuple[ComparedValue, ...]
    classes: tuple[ComparedValue, ...]
    different: tuple[DifferentImage, ...]

    def right(self) -> dict[Side, int]:
        """How many of the images with different predictions each version has right."""
        sides: tuple[Side, ...] = ("a", "b", "neither")
        return {side: sum(image.right == side for image in self.different) for side in sides}

    def to_json(self) -> dict[str, Any]:
        """The comparison without thumbnails."""
        facts = asdict(self)
        for image in facts["different"]:
            del image["picture"]
        return facts


def compare_models(
    store: Location, a: ModelBundle, b: ModelBundle, images: str | None, with_pictures: bool = False
) -> ModelComparison:
    """Predict the same images with two versions.

    Args:
        store: The artifacts root.
        a: The first version.
        b: The second version.
        images: A folder or a table, see `find_images`; None for the test images of `b`.
        with_pictures: Whether to make thumbnails of the images with different predictions.

    Raises:
        RequestError: There are no images, or none is left.
        WorkError: A version predicts something that is no probability.
    """
    known = {normalize_label(name) for name in (*a.labels(), *b.labels())}
    with scratch_folder("compared-images") as folder:
        found = find_images(store, b, images, known, folder)
        chosen, left_out = _choose(found, a, b)
        if not chosen:
            raise RequestError(
                f"none of the {len(found.names):,} images of {found.title} is left: {_describe(left_out)}",
                "images that neither version was trained on, of classes that both have",
                "Name other images with `images`.",
            )
        files = [found.files[at] for at in chosen]
        predicted = predict_files([a, b], files, "predict with both versions")
        readable = [
            at for at in range(len(files)) if not any(at in version.failures for version in predicted)
        ]
        if not readable:
            raise RequestError(
                f"none of {len(files):,} images can be read, such as {files[0]}", "images", "Check them."
            )
        names = [found.names[chosen[at]] for at in readable]
        labels = None if found.labels is None else [found.labels[chosen[at]] for at in readable]
        different = _find_different(predicted, readable, names, labels)
        if with_pictures:
            different = _add_pictures(
                different, dict(zip(names, (files[at] for at in readable), strict=True))
            )
    agreeing = len(readable) - len(different)
    metrics, classes = _measure(predicted, np.array(readable), labels) if labels else ((), ())
    return ModelComparison(
        a=_facts(predicted[0]),
        b=_facts(predicted[1]),
        on=found.title,
        images=len(readable),
        left_out=LeftOut(**{**asdict(left_out), "unreadable": len(files) - len(readable)}),
        agreement=agreeing / len(readable),
        agreement_interval=interval_of_proportion(agreeing, len(readable)),
        metrics=metrics,
        classes=classes,
        different=tuple(different),
    )


def _choose(found: ComparedImages, a: ModelBundle, b: ModelBundle) -> tuple[list[int], LeftOut]:
    """The images that neither version was trained on, of classes that both have."""
    by_a, by_b = trained_on(a), trained_on(b)
    shared = {normalize_label(name) for name in a.labels()} & {normalize_label(name) for name in b.labels()}
    chosen, others = [], 0
    for at, sha256 in enumerate(found.sha256):
        if sha256 in (by_a or ()) or sha256 in (by_b or ()):
            continue
        if found.labels is not None and found.labels[at] not in shared:
            others += 1
            continue
        chosen.append(at)
    unlisted = [bundle for bundle, known in ((a, by_a), (b, by_b)) if known is None]
    left_out = LeftOut(
        trained_on_by_a=sum(sha256 in (by_a or ()) for sha256 in found.sha256),
        trained_on_by_b=sum(sha256 in (by_b or ()) for sha256 in found.sha256),
        unreadable=0,
        of_other_classes=others,
        unknown=tuple(f"{bundle.name}@{bundle.version}" for bundle in unlisted),
    )
    return chosen, left_out


def _describe(left_out: LeftOut) -> str:
    return (
        f"A was trained on {left_out.trained_on_by_a:,}, B on {left_out.trained_on_by_b:,}, and "
        f"{left_out.of_other_classes:,} are of classes that only one of them has"
    )


def _measure(
    predicted: Sequence[FilePredictions], readable: np.ndarray, names: Sequence[str]
) -> tuple[tuple[ComparedValue, ...], tuple[ComparedValue, ...]]:
    """The metrics, and the recall of each class."""
    a, b = predicted
    known = [normalize_label(name) for name in b.labels]
    order = [*known, *(name for name in map(normalize_label, a.labels) if name not in known)]
    labels = np.array([order.index(name) for name in names], np.int64)
    pairs = PairedPredictions(b.in_order(order)[readable], a.in_order(order)[readable], labels)
    metrics = [_compare_metric(metric, metric, pairs) for metric in _METRICS]
    classes = [
        _compare_metric("recall", order[label], pairs.of(labels == label)) for label in np.unique(labels)
    ]
    return tuple(metrics), tuple(classes)


def _compare_metric(metric: Metric, name: str, pairs: PairedPredictions) -> ComparedValue:
    a, a_interval = _value(metric, pairs.reference, pairs.labels)
    b, b_interval = _value(metric, pairs.new, pairs.labels)
    interval: Range | None = None
    if metric != "calibration_error":
        drop = measure_drop(pairs, Bar(metric=metric, max_drop=0.0), _LEVEL)
        # Subtracting from 0 does not give -0.
        interval = (drop.low, drop.high) if metric == "loss" else (0.0 - drop.high, 0.0 - drop.low)
    return ComparedValue(name, len(pairs.labels), a, a_interval, b, b_interval, b - a, interval)


def _value(metric: Metric, probabilities: Probabilities, labels: Labels) -> tuple[float, Range]:
    value, (low, high) = MEASURES[metric](probabilities, labels)
    return value, (low, high)


def _find_different(
    predicted: Sequence[FilePredictions],
    readable: Sequence[int],
    names: Sequence[str],
    labels: Sequence[str] | None,
) -> list[DifferentImage]:
    a_names, b_names = (version.names() for version in predicted)
    a_best, b_best = (version.probabilities.max(axis=1) for version in predicted)
    found = []
    for row, at in enumerate(readable):
        if a_names[at] != b_names[at]:
            label = labels[row] if labels is not None else None
            right = None if label is None else _who_is_right(label, a_names[at], b_names[at])
            probabilities = (float(a_best[at]), float(b_best[at]))
            found.append(
                DifferentImage(
                    names[row], label, a_names[at], probabilities[0], b_names[at], probabilities[1], right
                )
            )
    order = {"a": 0, "b": 1, "neither": 2, None: 3}
    return sorted(found, key=lambda image: (order[image.right], -image.b_probability))


def _who_is_right(label: str, a: str, b: str) -> Side:
    return "a" if a == label else "b" if b == label else "neither"


def _add_pictures(different: list[DifferentImage], files: dict[str, Any]) -> list[DifferentImage]:
    shown = different[:MAX_PICTURES]
    pictures = encode_pictures([files[image.path] for image in shown])
    with_pictures = [
        DifferentImage(**{**asdict(image), "picture": picture})
        for image, picture in zip(shown, pictures, strict=True)
    ]
    return [*with_pictures, *different[MAX_PICTURES:]]


def _facts(version: FilePredictions) -> VersionFacts:
    bundle = version.bundle
    manifest = read_bundle_manifest(bundle.folder)
    spec = bundle.image_spec()
    return VersionFacts(
        reference=f"{bundle.name}@{bundle.version}",
        created_at=manifest["created_at"],
        image=f"{spec.height}x{spec.width}x{spec.channels}",
        classes=len(version.labels),
        parameters=manifest.get("parameters"),
        files={
            file: manifest["files"][file]["size"] for file in ONNX_FILES.values() if file in manifest["files"]
        },
        images_per_second=version.images_per_second,
        layers=_layers(manifest.get("recipe"), len(version.labels)),
    )


def _layers(recipe: dict[str, Any] | None, classes: int) -> tuple[str, ...]:
    """One line for each layer; none if the recipe is missing or of another version of pixelmill."""
    if recipe is None:
        return ()
    try:
        checked = Recipe.model_validate(recipe)
        rows = summarize_layers(checked.model, checked.image, classes)
    except (ValidationError, PixelmillError):
        return ()
    return tuple(
        f"{row.layer}{f' {row.settings}' if row.settings else ''}: {describe_volume(row.output)}, "
        f"{row.parameters:,} parameters"
        for row in rows
    )
