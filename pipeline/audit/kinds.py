"""The kinds of findings: what each is called, what to do about it, and who finds it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pixelmill.pipeline.audit import AuditInput, Finding
from pixelmill.pipeline.audit.contents import (
    find_contradictions,
    find_duplicates,
    find_leaks,
    find_near_duplicates,
)
from pixelmill.pipeline.audit.label_errors import find_label_errors
from pixelmill.pipeline.audit.properties import (
    find_blurred,
    find_bright,
    find_dark,
    find_flat,
    find_imbalance,
    find_odd_aspect_ratios,
    find_odd_sizes,
    find_unreadable,
)
from pixelmill.pipeline.config.audit import AuditSpec, FindingKind


@dataclass(frozen=True)
class Kind:
    """A kind of findings.

    Attributes:
        title: What they are, in the plural.
        advice: What they mean for a model, and what to do.
        find: Yields them, the worst first.
    """

    title: str
    advice: str
    find: Callable[[AuditInput, AuditSpec], Iterator[Finding]]


KINDS: dict[FindingKind, Kind] = {
    "unreadable": Kind(
        "unreadable files",
        "They are left out of all splits. Replace or remove them.",
        find_unreadable,
    ),
    "duplicate": Kind(
        "duplicates",
        "Files with the content and class of another. Unless the dataset has splits of its own, both are in "
        "the same one, where the image counts twice.",
        find_duplicates,
    ),
    "near_duplicate": Kind(
        "near duplicates",
        "Unless the dataset has splits of its own, both are in the same one. They tell a model little "
        "that is new.",
        find_near_duplicates,
    ),
    "contradiction": Kind(
        "contents in two classes",
        "Nothing says which class is right, so they are left out of all splits. Correct the label, or "
        "exclude the image.",
        find_contradictions,
    ),
    "leak": Kind(
        "leaks between splits",
        "An image that is tested is like one that was trained on, so the measured accuracy is too high. "
        "Remove one of the two, or let pixelmill choose the splits.",
        find_leaks,
    ),
    "imbalance": Kind(
        "small classes",
        "A model predicts them too rarely. Add images, or set training.class_weights to balanced.",
        find_imbalance,
    ),
    "odd_size": Kind(
        "odd sizes",
        "Files much larger or smaller than the median: icons, previews or scans among photographs.",
        find_odd_sizes,
    ),
    "odd_aspect_ratio": Kind(
        "odd aspect ratios",
        "They are distorted, cropped or padded most, according to image.resize.",
        find_odd_aspect_ratios,
    ),
    "dark": Kind("dark images", "Underexposed, or black.", find_dark),
    "bright": Kind("bright images", "Overexposed, or white.", find_bright),
    "blurred": Kind(
        "blurred images", "Out of focus, moved, or enlarged from a much smaller image.", find_blurred
    ),
    "flat": Kind("flat images", "Almost one colour: empty frames, covered lenses.", find_flat),
    "label_error": Kind(
        "probable label errors",
        "A model that was not trained on the image contradicts its label with confidence. Look at each: the "
        "model may be wrong.",
        find_label_errors,
    ),
}
