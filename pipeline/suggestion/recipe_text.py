"""The recipe for a folder of images, as YAML with a comment for each choice."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pixelmill.pipeline.config.sources import name_after_folder
from pixelmill.pipeline.recipes.yaml_text import dump_yaml
from pixelmill.pipeline.suggestion import FolderFacts

PRETRAINED = "imagenet"
FROM_NOTHING = "none"
_SMALL_SIDE = 64
_MOSTLY_GREY = 0.95
_FEW_PER_CLASS = 30
_MANY_CLASSES = 200
_SAME_RATIO = 1.15
_IMBALANCED = 3
_STEPS = 4000


@dataclass(frozen=True)
class _Choice:
    """One line of the recipe, after the reason for it."""

    reason: str
    line: str

    def lines(self, indent: str) -> Iterator[str]:
        yield f"{indent}# {self.reason}"
        yield f"{indent}{self.line}"


def write_recipe(facts: FolderFacts, weights: str = PRETRAINED) -> str:
    """A complete recipe for a folder.

    Args:
        facts: What was found in the folder.
        weights: Where the weights of a pretrained network come from, as in a recipe: `imagenet`, a path, a
            URL with its SHA-256; `none` for networks that are trained from nothing.
    """
    pretrained = is_pretrained(facts, weights)
    side = 160 if pretrained else _side(facts)
    sections = [
        *_describe(facts),
        f"name: {_text(name_after_folder(facts.path))}",
        *_dataset(facts),
        *_image(facts, side, pretrained),
        *(_pretrained_model(facts, weights) if pretrained else _plain_model(side)),
        *_training(facts, pretrained),
    ]
    return "\n".join(sections) + "\n"


def is_pretrained(facts: FolderFacts, weights: str) -> bool:
    """Whether the recipe starts from pretrained weights: for images in colour that are not tiny."""
    return weights != FROM_NOTHING and facts.longer_side > _SMALL_SIDE and not _is_grey(facts)


def _is_grey(facts: FolderFacts) -> bool:
    return facts.grey >= _MOSTLY_GREY


def _side(facts: FolderFacts) -> int:
    """The side of the images for a network that is trained from nothing: at most 96 pixels."""
    if facts.longer_side > _SMALL_SIDE:
        return 96 if _is_grey(facts) else 64
    return max(8, math.ceil(facts.longer_side / 8) * 8)


def _describe(facts: FolderFacts) -> Iterator[str]:
    sample = "" if facts.sampled >= facts.images else f", of {facts.sampled} drawn at random"
    unreadable = f"; {facts.unreadable} of them cannot be read" if facts.unreadable else ""
    yield (
        f"# {facts.images:,} images in {facts.classes:,} classes of {facts.smallest:,} to {facts.largest:,}; "
        f"median {facts.width}x{facts.height} pixels,"
    )
    yield (
        f"# width / height from {facts.narrowest:.2f} to {facts.widest:.2f}, {facts.grey:.0%} without colour"
        f"{sample}{unreadable}."
    )


def _dataset(facts: FolderFacts) -> Iterator[str]:
    path = _text(facts.path)
    yield "dataset:"
    yield "  source: folder"
    yield f"  path: {path}"
    if facts.smallest < _FEW_PER_CLASS:
        yield from _Choice(
            f"A class has only {facts.smallest} images: more of them to validate on, so that a choice of the "
            "epoch means something.",
            "validation_fraction: 0.2",
        ).lines("  ")


def _image(facts: FolderFacts, side: int, pretrained: bool) -> Iterator[str]:
    if pretrained:
        reason = "The size that the pretrained network has weights for; 224 is slower and sees more detail."
    elif side <= _SMALL_SIDE and facts.longer_side <= _SMALL_SIDE:
        reason = "The size of the images: enlarging them would add nothing."
    else:
        reason = "Small enough to train on a processor; larger sees more detail, and takes as much longer."
    yield "image:"
    yield from _Choice(reason, f"height: {side}").lines("  ")
    yield f"  width: {side}"
    if _is_grey(facts):
        yield from _Choice("The images have no colour.", "channels: 1").lines("  ")
    else:
        yield from _Choice("The images have colours.", "channels: 3").lines("  ")
    if facts.widest / facts.narrowest <= _SAME_RATIO:
        choice = _Choice(
            "All images have about the same shape: stretching cuts nothing off.", "resize: stretch"
        )
    elif _is_grey(facts):
        choice = _Choice(
            "The images differ in shape: padding keeps proportions, as in scans of text.", "resize: pad"
        )
    else:
        choice = _Choice(
            "The images differ in shape: cropping would cut off what matters.", "resize: stretch"
        )
    yield from choice.lines("  ")


def _pretrained_model(facts: FolderFacts, weights: str) -> Iterator[str]:
    few = facts.per_class < _FEW_PER_CLASS
    frozen = ", frozen_layers: all" if few else ""
    source = _text(weights)
    yield "model:"
    yield "  layers:"
    reason = (
        f"{facts.per_class:.0f} images a class are too few to train the network itself: it stays as it is."
        if few
        else "A pretrained network knows edges, textures and parts of objects already."
    )
    yield from _Choice(
        reason,
        f"- {{layer: application, name: MobileNetV2, weights: {source}, frozen_normalization: true{frozen}}}",
    ).lines("    ")
    yield "    - {layer: global_average_pooling}"
    yield "    # The network gives many features for few images: half of them are left out at a time."
    yield "    - {layer: dropout, rate: 0.5}"
    yield from _end()


def _plain_model(side: int) -> Iterator[str]:
    yield "model:"
    yield "  layers:"
    yield "    # Each block sees twice as far as the one before, and has more channels."
    filters, grid = 32, side
    if side > 48:
        yield from _convolution(filters, 2)
        filters, grid = 48, side // 2
    while grid > 8:
        yield from _convolution(filters)
        yield "    - {layer: max_pooling, size: 2}"
        filters, grid = min(2 * filters, 192), grid // 2
    yield from _convolution(filters)
    yield "    # The strongest response of each channel counts, wherever it is in the image."
    yield "    - {layer: global_max_pooling}"
    yield "    - {layer: dropout, rate: 0.3}"
    yield from _end()


def _convolution(filters: int, stride: int = 1) -> Iterator[str]:
    step = f", stride: {stride}" if stride > 1 else ""
    yield f"    - {{layer: convolution, filters: {filters}, kernel_size: 3{step}}}"
    yield "    - {layer: batch_normalization}"
    yield "    - {layer: activation, function: relu}"


def _end() -> Iterator[str]:
    yield "    - {layer: dense, units: classes}"
    yield "    - {layer: softmax}"


def _training(facts: FolderFacts, pretrained: bool) -> Iterator[str]:
    batch = (
        64 if facts.classes >= _MANY_CLASSES or facts.images > 20_000 else 16 if facts.images < 500 else 32
    )
    steps = math.ceil(facts.images / batch)
    yield "training:"
    if pretrained:
        yield from _Choice(
            "First the layers after the network, on its output, which is computed once and kept.",
            f"head: {{epochs: {_within(_STEPS / steps, 10, 60)}, peak: 0.001}}",
        ).lines("  ")
        yield from _Choice(
            "Then all layers that are not frozen, with a lower rate.",
            f"epochs: {_within(_STEPS / 8 / steps, 3, 10)}",
        ).lines("  ")
        rate = 0.0002
    else:
        yield from _Choice(
            f"About {_STEPS:,} steps: {steps:,} cover all images once.",
            f"epochs: {_within(_STEPS / steps, 10, 60)}",
        ).lines("  ")
        rate = 0.003
    yield f"  batch_size: {batch}"
    yield f"  learning_rate: {{schedule: cosine, peak: {rate}}}"
    yield from _Choice(
        "The weights with the lowest validation loss are kept, and training stops when it falls no more.",
        f"early_stopping: {5 if pretrained else 12}",
    ).lines("  ")
    yield from _Choice("Labels are never quite certain.", "label_smoothing: 0.1").lines("  ")
    if facts.largest >= _IMBALANCED * facts.smallest:
        yield from _Choice(
            f"The largest class has {facts.largest / facts.smallest:.1f} times the images of the smallest.",
            "class_weights: balanced",
        ).lines("  ")
    yield from _augmentation(facts, pretrained).lines("  ")


def _augmentation(facts: FolderFacts, pretrained: bool) -> _Choice:
    if _is_grey(facts):
        return _Choice(
            "Scans are not mirrored: a mirrored letter is another one. `flip: horizontal` if yours may be.",
            "augmentation: {shift: 0.06, rotation: 5, zoom: 0.1}",
        )
    if facts.longer_side <= _SMALL_SIDE:
        return _Choice(
            "Small moves; add `flip: horizontal` if a mirrored image is of the same class.",
            "augmentation: {shift: 0.06, zoom: 0.1}",
        )
    return _Choice(
        "A mirrored photograph shows the same; so does one that is a little closer or to the side.",
        f"augmentation: {{flip: horizontal, shift: {0.08 if pretrained else 0.1}, zoom: 0.15}}",
    )


def _text(value: str) -> str:
    """A text as YAML, quoted where that is needed."""
    return dump_yaml([value], flow=True).strip()[1:-1]


def _within(value: float, least: int, most: int) -> int:
    return min(most, max(least, round(value)))
