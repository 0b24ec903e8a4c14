"""What a bundle says of its model to people: `MODEL_CARD.md`, from the recipe and the results alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import (
    LABELS_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    PARITY_FILE,
    PREPROCESSING_FILE,
    TRAINING_IMAGES_FILE,
)
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.templates import open_templates

UNSPECIFIED = "unspecified"
"""The licence of a model whose owner names none."""
_TEMPLATE = "model_card.md.jinja"
# What could begin a format, a link, a tag or the next cell.
_MARKDOWN = re.compile(r"[\\`*_\[\]<>&|#~:]")
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TrainingData:
    """The images that a model was made with.

    Attributes:
        source: The kind of the data set in the recipe, and its path or address if it has one.
        fingerprint: SHA-256 over the images with their labels and splits, in hexadecimal; empty if unknown.
        images: The number of different images in each split; empty if unknown.
        per_class: The number of different training images of each class, in the order of the labels.
    """

    source: str
    fingerprint: str
    images: dict[str, int]
    per_class: dict[str, int]


@dataclass(frozen=True)
class ModelCard:
    """The facts of a model card.

    Attributes:
        name: The model's name.
        version: The version number in the registry.
        licence: The licence in the recipe; `unspecified` if there is none.
        image: The model's input.
        class_names: The class names, in the order of the probabilities.
        parameters: The number of parameters.
        multi_label: Whether an image may have several labels.
        intended_use: What its owner says it is for; empty if nothing.
        limits: What its owner says of its limits; empty if nothing.
        data: The images that it was made with; None if it was trained elsewhere.
        metrics: The content of `metrics.json`.
        parity: The content of `parity.json`.
    """

    name: str
    version: int
    licence: str
    image: ImageSpec
    class_names: tuple[str, ...]
    parameters: int
    multi_label: bool
    intended_use: str
    limits: str
    data: TrainingData | None
    metrics: dict[str, Any]
    parity: dict[str, Any]


def gather_card(folder: Path, facts: Mapping[str, Any]) -> ModelCard:
    """Gather what is known of a model from its bundle.

    Args:
        folder: The bundle's folder, with its results and its proof.
        facts: The content of its manifest.
    """
    recipe = facts.get("recipe")
    class_names = tuple(read_json(folder / LABELS_FILE))
    words = (recipe or {}).get("card", {})
    return ModelCard(
        name=facts["name"],
        version=facts["version"],
        licence=facts["licence"],
        image=ImageSpec.model_validate(read_json(folder / PREPROCESSING_FILE)["spec"]),
        class_names=class_names,
        parameters=facts["parameters"],
        multi_label=facts.get("multi_label", False),
        intended_use=words.get("intended_use", ""),
        limits=words.get("limits", ""),
        data=_training_data(folder, facts, recipe, class_names) if recipe else None,
        metrics=read_json(folder / METRICS_FILE),
        parity=read_json(folder / PARITY_FILE),
    )


def write_card(folder: Path, card: ModelCard) -> None:
    """Write `MODEL_CARD.md` into the folder of a bundle."""
    environment = open_templates("pixelmill.pipeline.export", autoescape=False)
    environment.keep_trailing_newline = True
    environment.filters["cell"] = _cell
    environment.filters["prose"] = _prose
    environment.filters["interval"] = _interval
    text = environment.get_template(_TEMPLATE).render(card=card, test=card.metrics["test"], splits=_SPLITS)
    (folder / MODEL_CARD_FILE).write_text(text, encoding="utf-8")


def _training_data(
    folder: Path, facts: Mapping[str, Any], recipe: dict[str, Any], class_names: tuple[str, ...]
) -> TrainingData:
    dataset = recipe["dataset"]
    where = next((dataset[key] for key in ("path", "url", "address") if dataset.get(key)), None)
    path = folder / TRAINING_IMAGES_FILE
    rows = pq.read_table(path, columns=["label", "split"]) if path.is_file() else None
    images: dict[str, int] = {}
    per_class: dict[str, int] = {}
    if rows is not None:
        images = {split: pc.sum(pc.equal(rows["split"], split)).as_py() or 0 for split in _SPLITS}
        of_training = rows.filter(pc.equal(rows["split"], "train"))["label"]
        counts = {each["values"]: each["counts"] for each in pc.value_counts(of_training).to_pylist()}
        per_class = {name: counts.get(name, 0) for name in class_names}
    return TrainingData(
        source=f"{dataset['source']}, {where}" if where else dataset["source"],
        fingerprint=facts.get("dataset_fingerprint", ""),
        images=images,
        per_class=per_class,
    )


def _cell(text: str) -> str:
    """A name or value that cannot be read as Markdown or HTML."""
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", printable(text))


def _prose(text: str) -> str:
    """The owner's words: Markdown is theirs to use, HTML is not."""
    lines = (printable(line) for line in text.strip().splitlines())
    return "\n".join(lines).replace("&", "&amp;").replace("<", "&lt;")


def _interval(ends: list[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
