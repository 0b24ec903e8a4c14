"""What a training that is killed goes on from: one file, replaced as a whole after every epoch."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from pixelmill.pipeline.artifacts import canonical_json, installed_packages, remove_leftovers, replacing
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.training.backends import chosen_backend

Arrays = tuple[npt.NDArray[Any], ...]
Row = dict[str, float]
_log = getLogger(__name__)
_FORMAT = 1
_SECONDS_TO_END = 30


@dataclass(frozen=True)
class TrainingState:
    """All that the rest of a training depends on, after a whole epoch.

    Attributes:
        network: The network's variables, those of its random generators among them.
        optimizer: The optimiser's variables; the step it counts is the schedule's place.
        weights: What the model would be if training ended here.
        history: A row an epoch.
    """

    network: Arrays
    optimizer: Arrays
    weights: Arrays
    history: tuple[Row, ...]


def checkpoint_path(dataset: PreparedDataset, recipe: Recipe, store: Path) -> Path:
    """Where the checkpoint of a training lies: the same for the same network, fit, data and packages."""
    depends_on = {
        "format": _FORMAT,
        "recipe": recipe.model_dump(mode="json", include={"image", "model", "training"}),
        "dataset": dataset.folder.name,  # Named for the data's fingerprint and how it is split.
        "packages": installed_packages(),
        "backend": chosen_backend(),
    }
    key = hashlib.sha256(canonical_json(depends_on).encode()).hexdigest()[:16]
    return store / "checkpoints" / f"{recipe.name}-{key}.npz"


def epochs_done(path: Path) -> int:
    """After how many epochs training would go on; 0 without a checkpoint."""
    state = read_state(path)
    return 0 if state is None else len(state.history)


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Be the only process that trains with a checkpoint.

    Raises:
        WorkError: Another one does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The child of a run that was killed may take a moment to end.
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_SECONDS_TO_END):
            remove_leftovers(path.parent, path.name)  # Of a run that was killed while it wrote.
            yield
    except Timeout:
        raise WorkError(
            f"another run holds {path}",
            "no other run of the same recipe on the same data in this store",
            "Wait for its end, or change a field of the recipe, such as training.seed.",
        ) from None


def write_state(path: Path, state: TrainingState) -> None:
    """Replace the checkpoint; whoever is killed leaves the old one or the new one."""
    arrays = {
        f"{name}/{index:05}": array
        for name in ("network", "optimizer", "weights")
        for index, array in enumerate(getattr(state, name))
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, history=np.array(json.dumps(state.history)), **arrays)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_state(path: Path) -> TrainingState | None:
    """The state that an earlier run left; None if there is none, or none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = sorted(file.files)
            parts = {
                part: tuple(file[name] for name in names if name.startswith(f"{part}/"))
                for part in ("network", "optimizer", "weights")
            }
            return TrainingState(**parts, history=tuple(json.loads(str(file["history"]))))
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        _log.warning("%s is damaged (%s): training starts from the beginning", path, error)
        return None
