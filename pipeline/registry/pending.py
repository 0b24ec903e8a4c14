"""Versions that were registered and not judged yet: `models/NAME/.pending/VERSION`.

The mark is written before a version is published and removed when it was promoted or refused. A run that is
killed in between leaves it, and the next run judges that version, too.
"""

from pathlib import Path

from pixelmill.pipeline.artifacts import now, remove_file, write_text
from pixelmill.pipeline.locations import children
from pixelmill.pipeline.registry.places import model_folder, version_numbers
from pixelmill.pipeline.registry.storage import version_of

_PENDING = ".pending"


def pending_versions(store: Path, name: str) -> list[int]:
    """The registered versions that no gate has judged, in ascending order."""
    folder = model_folder(store, name) / _PENDING
    if not folder.is_dir():
        return []
    marked = {version_of(path.name) for path in children(folder)}
    return [version for version in version_numbers(store, name) if version in marked]


def mark_pending(store: Path, name: str, version: int) -> None:
    """Note that a version, published or about to be, has to be judged."""
    write_text(_mark(store, name, version), now() + "\n")


def mark_judged(store: Path, name: str, version: int) -> None:
    """Note that a version was promoted or refused."""
    remove_file(_mark(store, name, version))


def _mark(store: Path, name: str, version: int) -> Path:
    return model_folder(store, name) / _PENDING / str(version)
