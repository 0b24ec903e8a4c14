"""The checkpoint that interrupted training resumes from."""

from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.training import checkpoints
from pixelmill.pipeline.training.checkpoints import (
    TrainingState,
    checkpoint_path,
    completed_epochs,
    lock_checkpoint,
    read_state,
    write_state,
)

DATASET = PreparedDataset(Path("store/datasets/digits-0123"), "digits", "aa", ("0", "1"), {"train": 10})
STATE = TrainingState(
    network=(np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.uint32)),
    optimizer=tuple(np.full(3, index, np.float32) for index in range(12)),
    weights=(np.array(7, np.int64),),
    history=({"epoch": 1, "val_loss": 0.1 + 0.2},),
)


def path_of(*overrides: str, dataset: PreparedDataset = DATASET) -> Path:
    recipe: Recipe = load_recipe("digits", overrides)
    return checkpoint_path(dataset, recipe, Path("store"))


def test_a_state_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    assert read_state(path) is None
    write_state(path, STATE)
    read = read_state(path)
    assert read is not None
    assert read.history == STATE.history
    assert completed_epochs(path) == 1
    for part in ("network", "optimizer", "weights"):
        for one, other in zip(getattr(read, part), getattr(STATE, part), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_damaged_checkpoint_is_logged_and_kept(
    tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.npz"
    write_state(path, STATE)
    path.write_bytes(path.read_bytes()[:size])
    assert read_state(path) is None
    assert "starts from the beginning" in caplog.text


def test_only_the_same_training_has_the_same_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = path_of()
    assert path == path_of("evaluation.worst_mistakes=3", "promotion.min_accuracy=0.5")
    moved = PreparedDataset(Path("elsewhere/digits-0123"), "digits", "aa", ("0", "1"), {"train": 10})
    assert path == path_of(dataset=moved)
    others = [
        path_of(override)
        for override in (
            "training.seed=1",
            "training.epochs=31",
            "image.height=9",
            "model.layers.0.filters=2",
        )
    ]
    data = PreparedDataset(Path("store/datasets/digits-4567"), "digits", "bb", ("0", "1"), {"train": 10})
    others.append(path_of(dataset=data))
    monkeypatch.setattr(checkpoints, "installed_packages", lambda: {"keras": "0"})
    others.append(path_of())
    assert len({path, *others}) == 7


def test_two_runs_never_share_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_LOCK_TIMEOUT_SECONDS", 0)
    path = tmp_path / "state.npz"
    with (
        lock_checkpoint(path),
        pytest.raises(WorkError, match="locked by another run"),
        lock_checkpoint(path),
    ):
        pass
    (tmp_path / ".state.npz.0a1b2c3d.pixelmill-tmp").write_bytes(b"of a run that was killed")
    with lock_checkpoint(path):
        assert not list(tmp_path.glob("*.pixelmill-tmp"))
