"""The state of a store: the champion of each model, the disk space by kind, and the drift of tables."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pixelmill.pipeline.artifacts import MANIFEST, read_json
from pixelmill.pipeline.errors import PixelmillError
from pixelmill.pipeline.registry import aliases_of, show_model
from pixelmill.pipeline.registry.places import model_names, version_numbers
from pixelmill.pipeline.storage import Location, cache_folder, children, is_remote, workspace

_SHARE_OF_DISK_TO_KEEP = 0.05
_BYTES_TO_KEEP = 10 * 2**30
_CHAMPION = "champion"
_DAY = 24 * 3600


@dataclass(frozen=True)
class ModelStatus:
    """A model and its champion.

    Attributes:
        name: The model's name.
        versions: The number of registered versions.
        champion: The version that the alias points to; None without one.
        created_at: When it was made, in UTC, ISO 8601.
        age_days: How long ago that is.
        accuracy: On its test images; None if these have no labels.
        accuracy_interval: The confidence interval of the accuracy.
        test_images: The number of test images.
        error: What is wrong with it, in one line; None if nothing is.
    """

    name: str
    versions: int
    champion: int | None = None
    created_at: str | None = None
    age_days: float | None = None
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    test_images: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class DiskStatus:
    """The disk space of a store's files on this machine, in bytes.

    Attributes:
        folder: The local folder of the store.
        kinds: The size of everything below each folder, such as `models` and `tensors`; `bundle copies` are
            those of remote stores, which are in the user's cache.
        free: The free space of its disk.
        total: The size of its disk.
    """

    folder: str
    kinds: dict[str, int]
    free: int
    total: int

    @property
    def is_low(self) -> bool:
        """Whether too little is free for a run to end safely."""
        return self.free < min(self.total * _SHARE_OF_DISK_TO_KEEP, _BYTES_TO_KEEP)


@dataclass(frozen=True)
class DriftStatus:
    """The drift of a prediction table.

    Attributes:
        table: Its folder or address.
        model: `name@version`.
        created_at: When it was finished, in UTC, ISO 8601.
        verdict: `drifted` or `stable`, with the noise of a run of its size taken into account.
        drifted: The measures that have drifted.
    """

    table: str
    model: str
    created_at: str
    verdict: str
    drifted: tuple[str, ...]


def read_models(store: Location) -> list[ModelStatus]:
    """The champion of each model that has versions; a damaged one has an `error`."""
    return [_read_model(store, name, versions) for name, versions in _models_of(store)]


def measure_disk(store: Location) -> DiskStatus:
    """Measure the files of a store on this machine; for a remote store, those of its local workspace."""
    folder = workspace(store)
    kinds = {}
    if folder.is_dir():
        kinds = {path.name: size_below(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    copies = cache_folder() / "bundles"
    if copies.is_dir():
        kinds["bundle copies"] = size_below(copies)
    usage = shutil.disk_usage(next(path for path in (folder, *folder.resolve().parents) if path.exists()))
    return DiskStatus(str(folder), kinds, usage.free, usage.total)


def read_drift(outputs: Iterable[Location]) -> list[DriftStatus]:
    """The drift of the newest table in each output, which is a table or holds some; others are left out."""
    found = []
    for output in outputs:
        tables = [table for place in _tables_in(output) if (table := _read_table(place)) is not None]
        if tables:
            found.append(max(tables, key=lambda table: table.created_at))
    return found


def size_below(folder: Path) -> int:
    """The size in bytes of all files below a folder; links are not followed."""
    total = 0
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        with suppress(OSError):
                            total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue  # It was removed meanwhile.
    return total


def age_days(timestamp: str) -> float:
    """The number of days since a time in ISO 8601."""
    return (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds() / _DAY


def _models_of(store: Location) -> list[tuple[str, list[int]]]:
    found = [(name, version_numbers(store, name)) for name in model_names(store)]
    return [(name, versions) for name, versions in found if versions]


def _read_model(store: Location, name: str, versions: list[int]) -> ModelStatus:
    try:
        champion = aliases_of(store, name).get(_CHAMPION)
        if champion is None:
            return ModelStatus(name, len(versions), error="no version is the champion")
        model = show_model(store, f"{name}@{champion}")
    except (PixelmillError, OSError) as error:
        return ModelStatus(name, len(versions), error=" ".join(str(error).split()))
    test, created_at = model.metrics["test"], model.manifest["created_at"]
    interval = test.get("accuracy_interval")
    return ModelStatus(
        name=name,
        versions=len(versions),
        champion=champion,
        created_at=created_at,
        age_days=round(age_days(created_at), 2),
        accuracy=test["accuracy"],
        accuracy_interval=tuple(interval) if interval else None,
        test_images=test["images"],
    )


def _tables_in(output: Location) -> list[Location]:
    if (output / MANIFEST).is_file():
        return [output]
    if not output.is_dir():
        return []
    # A folder for each day, the newest last by name. The manifests of a year would take too long.
    folders = sorted((path for path in children(output) if path.name[:1] != "."), key=lambda path: path.name)
    for folder in reversed(folders):
        if (is_remote(folder) or folder.is_dir()) and (folder / MANIFEST).is_file():
            return [folder]
    return []


def _read_table(folder: Location) -> DriftStatus | None:
    try:
        manifest = read_json(folder / MANIFEST)
        drift, request = manifest["drift"], manifest["request"]
        return DriftStatus(
            table=str(folder),
            model=str(request["model"]),
            created_at=str(manifest["created_at"]),
            verdict=str(drift["verdict"]),
            drifted=tuple(row["measure"] for row in drift["measures"] if row["verdict"] == "drifted"),
        )
    except (PixelmillError, KeyError, TypeError, ValueError):
        return None  # It is no table, or one without predictions or of an older format.
