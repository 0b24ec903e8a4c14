"""Prefetched batches: in order, in the form that Keras accepts, with constant memory."""

from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training.devices import import_tensorflow
from pixelmill.pipeline.training.input_pipeline import (
    Batch,
    TrainingBatches,
    ValidationBatches,
    as_keras,
    prefetch_batches,
)
from tests.pipeline.training.test_batches import batches, images, numbers, training


@pytest.mark.parametrize("first", [0, 1])
def test_the_prefetcher_returns_the_batches_of_the_current_epoch(first: int) -> None:
    made = batches()
    with prefetch_batches(made, made.steps) as feed:
        # Keras also reads the first batches to determine their shapes.
        assert numbers(feed[0]) == numbers(made[0])
        for epoch in range(first, 3):
            feed.start_epoch(epoch)
            for step in range(len(feed)):
                assert numbers(feed[step]) == numbers(made[epoch * 7 + step])


def test_an_error_while_preparing_a_batch_is_raised_on_access() -> None:
    class Broken:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Batch:
            raise OSError("the disk is gone")

    with prefetch_batches(Broken(), 2) as feed, pytest.raises(OSError, match="the disk is gone"):
        feed[0]


def as_read_by_keras() -> None:
    import_tensorflow()
    made = batches()
    with prefetch_batches(made, made.steps) as feed:
        tuned_by_nobody = feed.as_keras()
        assert not tuned_by_nobody.options().autotune.enabled
        assert int(tuned_by_nobody.cardinality()) == made.steps
        for epoch in range(2):
            feed.start_epoch(epoch)
            read = list(tuned_by_nobody.as_numpy_iterator())
            assert [numbers(batch) for batch in read] == [
                numbers(made[epoch * made.steps + step]) for step in range(made.steps)
            ]
    shorter_at_the_end = ValidationBatches(images(1234), 3, 1)
    read = list(as_keras(shorter_at_the_end.__getitem__, 3, "tensorflow").as_numpy_iterator())
    assert [numbers(batch) for batch in read] == [numbers(shorter_at_the_end[step]) for step in range(3)]
    elsewhere = as_keras(made.__getitem__, made.steps, "jax")
    assert elsewhere.num_batches == made.steps
    assert numbers(elsewhere[3]) == numbers(made[3])


def test_keras_reads_the_batches_of_the_current_epoch() -> None:
    run_in_spawned_process(as_read_by_keras)


def own_memory() -> int:
    """The private memory of this process in bytes, without pages of files, which the system can reclaim."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def test_a_large_file_streams_in_constant_memory(tmp_path: Path) -> None:
    shape = (4000, 224, 224, 3)  # 600 MB that take no space on the disk.
    np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape)
    pixels = np.load(tmp_path / "images.npy", mmap_mode="r")
    labels = np.zeros(shape[0], np.int64)
    made = TrainingBatches(Images(pixels, labels), 2, training(batch_size=32))
    with prefetch_batches(made, made.steps) as feed:
        first = feed[0][0].shape
        before = own_memory()
        most = max(own_memory() for step in range(1, made.steps) if feed[step][0].shape == first)
    assert most - before < 60e6
