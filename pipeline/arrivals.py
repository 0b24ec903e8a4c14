"""What arrived since the last retraining was asked for: new images in a folder, new rows of corrections.

A small file in the local work folder of the store remembers what was there before. An image is new if its
file is: locally, by the time of the last change of its inode, which copying, moving and renaming set;
remotely, by the time of its upload.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pixelmill.pipeline.artifacts import read_json, write_json
from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.datasets.corrections import read_corrections
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.images import EXTENSIONS
from pixelmill.pipeline.storage import Location, file_system, is_remote, parse_location

_FOLDER = "arrivals"


@dataclass(frozen=True)
class Seen:
    """What was there when a retraining was last asked for.

    Attributes:
        newest: The time of the newest image, in seconds since 1970.
        corrections: The number of corrections.
    """

    newest: float = 0.0
    corrections: int = 0


@dataclass(frozen=True)
class Arrivals:
    """What a look at the images and the corrections found.

    Attributes:
        images: The number of images that are new.
        corrections: The number of corrections that are new.
        quiet_minutes: The time since the newest image arrived.
        seen: What is there now.
    """

    images: int
    corrections: int
    quiet_minutes: float
    seen: Seen


_SEEN = TypeAdapter(Seen)


def look_for_arrivals(work: Path, name: str, images: str, corrections: str) -> Arrivals | None:
    """Compare images and corrections with what was there before.

    Args:
        work: The local work folder of the store.
        name: The name of the model.
        images: The folder or address of its images; empty to look only at the corrections.
        corrections: The file of corrections; empty to look only at the images.

    Returns:
        What is new; None on the first look, which everything later is compared with.

    Raises:
        RequestError: There is no such folder, or the corrections cannot be read.
    """
    before = _read(work, name)
    times = list(_times(parse_location(images))) if images else []
    newest = max(times, default=0.0)
    rows = sum(1 for _ in read_corrections(corrections).rows) if corrections and _exists(corrections) else 0
    seen = Seen(max(newest, before.newest if before else 0.0), rows)
    if before is None:
        remember(work, name, seen)
        return None
    return Arrivals(
        images=sum(stamp > before.newest for stamp in times),
        corrections=max(0, rows - before.corrections),
        quiet_minutes=max(0.0, time.time() - newest) / 60,
        seen=seen,
    )


def remember(work: Path, name: str, seen: Seen) -> None:
    """Count from here on what is new."""
    path = work / _FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(seen))


def _read(work: Path, name: str) -> Seen | None:
    try:
        return _SEEN.validate_python(read_json(work / _FOLDER / f"{name}.json"))
    except (RequestError, ValidationError):
        return None


def _exists(corrections: str) -> bool:
    # Nobody has corrected anything yet.
    return parse_location(corrections).exists()


def _times(folder: Location) -> Iterator[float]:
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder", "a folder of images to watch", "Correct `images`.")
    if is_remote(folder):
        system, path = file_system(folder)
        for name, facts in system.find(path, detail=True).items():
            if _is_image(Path(name).name):
                stamp = facts.get("LastModified") or facts.get("last_modified") or facts.get("mtime")
                yield stamp.timestamp() if hasattr(stamp, "timestamp") else float(stamp or 0)
        return
    for place, _, files in os.walk(folder):
        for name in files:
            if _is_image(name):
                try:
                    yield Path(place, name).stat().st_ctime
                except FileNotFoundError:
                    continue  # Moved away since it was listed.


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS and not is_clutter(name) and not name.startswith(".")
