"""Versions that were registered but not yet evaluated by the gate: `models/NAME/.pending/VERSION`.

The marker is written before a version is published and removed once it is promoted or refused. If a run is
killed in between, the marker remains, and the next run evaluates that version as well.
"""

from pixelmill.pipeline.artifacts import now, remove_file, write_text
from pixelmill.pipeline.registry.places import model_folder, version_numbers
from pixelmill.pipeline.registry.reservations import version_of
from pixelmill.pipeline.storage import Location, children

_PENDING = ".pending"


def pending_versions(store: Location, name: str) -> list[int]:
    """The registered versions that the gate has not evaluated, in ascending order."""
    folder = model_folder(store, name) / _PENDING
    if not folder.is_dir():
        return []
    marked = {version_of(path.name) for path in children(folder)}
    return [version for version in version_numbers(store, name) if version in marked]


def mark_pending(store: Location, name: str, version: int) -> None:
    """Record that the gate must evaluate a version, which is about to be published."""
    write_text(_mark(store, name, version), now() + "\n")


def mark_judged(store: Location, name: str, version: int) -> None:
    """Record that a version was promoted or refused."""
    remove_file(_mark(store, name, version))


def _mark(store: Location, name: str, version: int) -> Location:
    return model_folder(store, name) / _PENDING / str(version)
