"""The checkpoint that interrupted training resumes from: one file, replaced atomically after every epoch."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from pixelmill.pipeline.artifacts import (
    canonical_json,
    installed_packages,
    remove_file,
    remove_leftovers,
    replacing,
)
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.training import RateSearch
from pixelmill.pipeline.training.backends import chosen_backend
from pixelmill.pipeline.training.pretrained import PretrainedWeights
from pixelmill.pipeline.training.warm_start import StartingWeights

Arrays = tuple[npt.NDArray[Any], ...]
Row = dict[str, float]
_log = getLogger(__name__)
_FORMAT = 2
_LOCK_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class TrainingState:
    """Everything needed to resume training after a complete epoch.

    Attributes:
        network: The variables of the network, including those of its random number generators.
        optimizer: The variables of the optimizer; its step also drives the learning rate schedule.
        weights: The weights of the epoch chosen so far.
        history: One row per epoch.
        search: The learning rate found before the first epoch; None if the recipe gives it.
    """

    network: Arrays
    optimizer: Arrays
    weights: Arrays
    history: tuple[Row, ...]
    search: RateSearch | None = None


def checkpoint_path(
    dataset: PreparedDataset,
    recipe: Recipe,
    store: Path,
    start: StartingWeights | None = None,
    pretrained: PretrainedWeights | None = None,
) -> Path:
    """The path of a checkpoint.

    It depends on the network, the training settings and initial weights, the data and the packages.
    """
    depends_on = {
        "format": _FORMAT,
        "recipe": recipe.model_dump(mode="json", include={"image", "model", "training"}),
        "dataset": dataset.folder.name,  # The name contains the fingerprint of the data and its splits.
        "packages": installed_packages(),
        "backend": chosen_backend(),
        "start": start and start.sha256,
        **({"pretrained": pretrained.sha256} if pretrained else {}),
    }
    key = hashlib.sha256(canonical_json(depends_on).encode()).hexdigest()[:16]
    return store / "checkpoints" / f"{recipe.name}-{key}.npz"


def head_path(path: Path) -> Path:
    """The checkpoint of the first phase of transfer learning, beside that of the second."""
    return path.with_name(f"{path.stem}.head.npz")


def completed_epochs(path: Path) -> int:
    """The number of epochs in a checkpoint, of both phases; 0 without one."""
    states = [read_state(each) for each in (head_path(path), path)]
    return sum(len(state.history) for state in states if state is not None)


def remove_checkpoint(path: Path) -> None:
    """Remove the checkpoint of a finished training, of both phases."""
    for each in (path, head_path(path)):
        remove_file(each)


@contextmanager
def lock_checkpoint(path: Path) -> Iterator[None]:
    """Hold the lock of a checkpoint, so that one process at a time trains with it.

    Raises:
        WorkError: Another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The child process of a killed run may take a moment to exit.
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_TIMEOUT_SECONDS):
            remove_leftovers(path.parent, path.name)  # A run may have been killed while writing.
            yield
    except Timeout:
        raise WorkError(
            f"{path} is locked by another run",
            "no other run of the same recipe on the same data in this store",
            "Wait for it to finish, or change a field of the recipe, such as training.seed.",
        ) from None


def write_state(path: Path, state: TrainingState) -> None:
    """Replace the checkpoint atomically: a killed process leaves either the old or the new one."""
    arrays = {
        f"{name}/{index:05}": array
        for name in ("network", "optimizer", "weights")
        for index, array in enumerate(getattr(state, name))
    }
    buffer = io.BytesIO()
    search = state.search and asdict(state.search)
    texts = {"history": json.dumps(state.history), "search": json.dumps(search)}
    np.savez(buffer, allow_pickle=False, **{name: np.array(text) for name, text in texts.items()}, **arrays)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_state(path: Path) -> TrainingState | None:
    """Read a checkpoint; None if it does not exist or cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = sorted(file.files)
            parts = {
                part: tuple(file[name] for name in names if name.startswith(f"{part}/"))
                for part in ("network", "optimizer", "weights")
            }
            search = json.loads(str(file["search"]))
            return TrainingState(
                **parts,
                history=tuple(json.loads(str(file["history"]))),
                search=search and RateSearch(search["peak"], tuple(search["rates"]), tuple(search["losses"])),
            )
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        _log.warning("%s is damaged (%s): training starts from the beginning", path, error)
        return None
