"""The contenders, each of which predicts all files, given their names.

Each runs in a separate spawned process. Its time starts after imports, loading the model and a first batch.
"""

import contextlib
import io
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from pixelmill.pipeline.bundles import MODEL_FILE, ONNX_FILE, open_bundle
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import load_session
from pixelmill.pipeline.processes import run_in_spawned_process, spawned_pool
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.benchmarks.material import Workload

_BATCH = 64
Item = TypeVar("Item")


@dataclass(frozen=True)
class Measurement:
    """The `seconds` of the work, the `startup_seconds` before it, and the number of `predictions`."""

    seconds: float
    predictions: int
    startup_seconds: float = 0.0


def run_pixelmill(workload: Workload) -> Measurement:
    """From files to a finished table, with the defaults of the command."""
    return run_in_spawned_process(_score_folder, workload)


def run_limit(workload: Workload) -> Measurement:
    """The minimal work: one process per processor decodes bytes in memory, resizes and infers."""
    count = processor_limit().count
    barrier = multiprocessing.get_context("spawn").Barrier(count)
    with spawned_pool(count, _set_barrier, (barrier,)) as pool:
        shares = [pool.submit(_predict_share, workload, place, count) for place in range(count)]
        starts, ends, predictions = zip(*(share.result() for share in shares), strict=True)
    return Measurement(max(ends) - min(starts), sum(predictions))


def run_tf_data(workload: Workload) -> Measurement:
    """A parallel tf.data pipeline into Keras."""
    return run_in_spawned_process(_predict_tf_data, workload)


def run_keras(workload: Workload) -> Measurement:
    """`image_dataset_from_directory` into Keras."""
    return run_in_spawned_process(_predict_directory, workload)


def run_pillow(workload: Workload) -> Measurement:
    """A plain loop over Pillow and onnxruntime in one process."""
    return run_in_spawned_process(_loop_over_files, workload)


CONTENDERS: dict[str, Callable[[Workload], Measurement]] = {
    "pixelmill": run_pixelmill,
    "limit": run_limit,
    "tf.data + Keras": run_tf_data,
    "Keras predict": run_keras,
    "Pillow loop": run_pillow,
}


def _score_folder(workload: Workload) -> Measurement:
    import onnxruntime  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    bundle = open_bundle(workload.bundle)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        start = time.monotonic()
        table = score_folder(ScoringRequest(bundle, workload.images, Path(folder) / "table"))
        seconds = time.monotonic() - start
    # Only the workers know when they were ready.
    startup = float(table.manifest.get("startup_seconds", 0.0))
    return Measurement(seconds - startup, table.manifest["scored"], startup)


_barrier: Barrier | None = None


def _set_barrier(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603  # A barrier reaches a spawned process only while that is started.
    _barrier = barrier


def _predict_share(workload: Workload, place: int, count: int) -> tuple[float, float, int]:
    """Predict every `count`th file; returns the times of start and end, and the predictions."""
    from simplejpeg import decode_jpeg, decode_jpeg_header  # type: ignore[import-untyped, unused-ignore]

    session = load_session(workload.bundle / ONNX_FILE)
    contents = [Path(file).read_bytes() for file in workload.files()[place::count]]
    width, height = workload.kind.image.width, workload.kind.image.height
    # One array for all batches, because new memory costs a page fault every 4 kB.
    batch = np.empty((workload.kind.best_batch, height, width, 3), np.uint8)

    def predict(part: list[bytes]) -> int:
        for at, data in enumerate(part):
            full_height, full_width, _, _ = decode_jpeg_header(data)
            factor = 8
            while factor > 1 and (full_height < factor * height or full_width < factor * width):
                factor //= 2
            pixels = decode_jpeg(
                data,
                "RGB",
                min_height=math.ceil(full_height / factor),
                min_width=math.ceil(full_width / factor),
            )
            if pixels.shape[:2] != (height, width):
                image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.asarray(image)
            batch[at] = pixels
        return len(session.probabilities(batch[: len(part)]))

    for _ in range(3):  # onnxruntime plans its memory again after the first batch of a shape.
        predict(contents[: workload.kind.best_batch])
    assert _barrier is not None
    _barrier.wait()
    start = time.monotonic()
    predictions = sum(predict(part) for part in _batches(contents, workload.kind.best_batch))
    return start, time.monotonic(), predictions


def _predict_tf_data(workload: Workload) -> Measurement:
    model = _load_keras_model(workload)
    import tensorflow as tf

    spec = workload.kind.image

    def decode(name: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(name), channels=3)
        return tf.image.resize(image, (spec.height, spec.width), method="bilinear", antialias=False)

    def dataset(files: list[str]) -> Any:
        names = tf.data.Dataset.from_tensor_slices(files)
        decoded = names.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        return decoded.batch(_BATCH).prefetch(tf.data.AUTOTUNE)

    files = workload.files()
    model.predict(dataset(files[:_BATCH]), verbose=0)
    start = time.monotonic()
    predictions = len(model.predict(dataset(workload.files()), verbose=0))
    return Measurement(time.monotonic() - start, predictions)


def _predict_directory(workload: Workload) -> Measurement:
    model = _load_keras_model(workload)
    import keras

    def dataset() -> Any:
        return keras.utils.image_dataset_from_directory(
            workload.images,
            labels=None,
            shuffle=False,
            batch_size=_BATCH,
            image_size=(workload.kind.image.height, workload.kind.image.width),
            verbose=False,
        )

    model.predict(dataset().take(1), verbose=0)
    start = time.monotonic()
    predictions = len(model.predict(dataset(), verbose=0))
    return Measurement(time.monotonic() - start, predictions)


def _load_keras_model(workload: Workload) -> Any:
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

    import_tensorflow()
    choose_device("cpu")
    import keras

    return keras.saving.load_model(workload.bundle / MODEL_FILE, compile=False)


def _loop_over_files(workload: Workload) -> Measurement:
    import onnxruntime

    # With the default number of threads of onnxruntime.
    session = onnxruntime.InferenceSession(workload.bundle / ONNX_FILE, providers=["CPUExecutionProvider"])
    size = workload.kind.image.width, workload.kind.image.height

    def decode(file: str) -> Pixels:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))

    def predict(files: list[str]) -> int:
        (probabilities,) = session.run(None, {"image": np.stack([decode(file) for file in files])})
        return len(probabilities)

    predict(workload.files()[:_BATCH])
    start = time.monotonic()
    predictions = sum(predict(part) for part in _batches(workload.files()))
    return Measurement(time.monotonic() - start, predictions)


def _batches(items: list[Item], size: int = _BATCH) -> Iterator[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
