"""The order of the classes, which is that of a model's outputs: once a version has it, it is kept."""

from collections.abc import Collection, Sequence

from pixelmill.pipeline.datasets.class_folders import natural_order
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.labels import normalize_label

_MAX_NAMES = 8


def order_classes(
    found: Collection[str],
    known: Sequence[str] = (),
    listed: Sequence[str] | None = None,
    *,
    allow_removed: bool = False,
) -> tuple[str, ...]:
    """The classes in the order of the model's outputs.

    Those of the newest version come first, in its order, then new ones as `dataset.classes` lists them, or
    in natural order. No output changes its class.

    Args:
        found: The classes that have images.
        known: The classes of the newest registered version, in the order of its outputs; empty without one.
        listed: `dataset.classes`.
        allow_removed: Whether classes of the newest version may be without images; they keep their outputs.

    Raises:
        RequestError: `listed` repeats a class, does not start with the known ones, lacks one of the data, or
            has a new one without images.
        GateRefused: A known class has no images.
    """
    present = {normalize_label(name) for name in found}
    order = _listed_order(present, known, listed) if listed is not None else ()
    gone = [name for name in known if name not in present]
    if gone and not allow_removed:
        raise GateRefused(
            f"no images of {_join(gone)}, which the newest version of the model predicts",
            f"the classes of that version: {_join(known)}",
            "Bring their images back, set dataset.allow_removed_classes=true to keep outputs that are no "
            "longer trained, or give the model another name.",
        )
    return order or (*known, *sorted(present - set(known), key=natural_order))


def _listed_order(present: set[str], known: Sequence[str], listed: Sequence[str]) -> tuple[str, ...]:
    order = tuple(normalize_label(name) for name in listed)
    repeated = [name for name in dict.fromkeys(order) if order.count(name) > 1]
    if repeated:
        raise RequestError(
            f"dataset.classes has {_join(repeated)} more than once", "each class once", "Remove the others."
        )
    if order[: len(known)] != tuple(known):
        raise RequestError(
            f"dataset.classes {_join(order)}",
            f"first the classes of the newest version, in its order: {_join(known)}",
            "Append new classes at the end, or give the model another name.",
        )
    unlisted = sorted(present - set(order), key=natural_order)
    if unlisted:
        raise RequestError(
            f"images of {_join(unlisted)}, which dataset.classes lacks",
            f"images of {_join(order)}",
            "Add the class to dataset.classes, or move its images away.",
        )
    empty = [name for name in order[len(known) :] if name not in present]
    if empty:
        raise RequestError(
            f"no images of {_join(empty)}, which dataset.classes lists",
            "images of every class",
            "Add images of the class, or remove it from dataset.classes.",
        )
    return order


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(repr(printable(name)) for name in names[:_MAX_NAMES])
    return f"{shown} and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else shown
