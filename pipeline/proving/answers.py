"""The answers that prove an export: those of a whole scoring run, and those at every batch size."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import GateRefused
from pipeline.export import ModelBundle
from pipeline.export.parity import Comparison, Parity, Tolerance
from pipeline.export.predicting import FilePredictions
from pipeline.images import ImageFailure, decode
from pipeline.inference import Probabilities, load_session
from pipeline.predictions import table_files
from pipeline.predictions.parts import read_part
from pipeline.progress import progress
from pipeline.proving.held_out import HeldOut
from pipeline.scoring import ScoringRequest
from pipeline.scoring.folder import score_folder

if TYPE_CHECKING:
    import pyarrow as pa


def measure_parity(
    bundle: ModelBundle,
    held_out: HeldOut,
    keras: FilePredictions,
    tolerance: Tolerance,
    batch_sizes: Sequence[int],
    work: Path,
) -> Parity:
    """Score the held-out files as any folder is scored, and at every batch size, and compare with Keras.

    Args:
        bundle: What is to be proven; need not have a manifest yet.
        held_out: The files.
        keras: What Keras predicts for them.
        tolerance: How far the predictions may lie apart.
        batch_sizes: The batch sizes to put the images in, beside those of the scoring run.
        work: A folder for the prediction table; must not exist yet.
    """
    class_names = bundle.labels()
    comparison = Comparison(keras, tolerance)
    start = 0
    for answers in _scored(bundle, held_out, work):
        comparison.add(slice(start, start + len(answers)), answers)
        start += len(answers)
    for start, answers in _answered_in_batches(bundle, held_out, batch_sizes):
        comparison.add(slice(start, start + len(answers)), answers)
    return comparison.conclude(held_out.origins, class_names, batch_sizes)


def _scored(bundle: ModelBundle, held_out: HeldOut, work: Path) -> Iterator[Probabilities]:
    """The answers of a whole scoring run, a part of the table at a time, in the order of the files."""
    request = ScoringRequest(bundle, held_out.folder, work, top_k=len(bundle.labels()), max_failure_rate=1.0)
    table = score_folder(request)
    start = 0
    for file in table_files(table.folder):
        rows = read_part(file)
        paths = rows["image_path"].to_pylist()
        # A row that is not where its file is would be compared with another one's answer.
        if paths != list(held_out.paths[start : start + len(paths)]):
            raise GateRefused(
                f"a prediction table whose rows from {paths[0]} on are not the files that were listed",
                "a row for every file, in their order",
                "It is not published. Keep the held-out images as they are while they are scored.",
            )
        yield _probabilities(rows, bundle.labels())
        start += len(paths)


def _probabilities(rows: "pa.Table", class_names: Sequence[str]) -> Probabilities:
    """The probabilities of all classes from a table with as many choices as classes; NaN in failed rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    answers = np.full((len(rows), len(class_names)), np.nan, np.float32)
    scored = np.array([status == "scored" for status in rows["status"].to_pylist()])
    names = rows["top_labels"].combine_chunks().flatten()
    classes = pc.index_in(names, value_set=pa.array(class_names)).to_numpy()
    values = rows["top_probabilities"].combine_chunks().flatten().to_numpy()
    places = np.repeat(np.flatnonzero(scored), len(class_names))
    answers[places, classes] = values
    return answers


def _answered_in_batches(
    bundle: ModelBundle, held_out: HeldOut, batch_sizes: Sequence[int]
) -> Iterator[tuple[int, Probabilities]]:
    """The session's answers to consecutive files, with the place of the first, at every batch size."""
    session, spec = load_session(bundle.onnx_path), bundle.image_spec()
    files, step = held_out.files(), max(batch_sizes)
    shape = (spec.height, spec.width, spec.channels)
    with progress("compare with Keras", len(files), "images") as advance:
        for start in range(0, len(files), step):
            chunk = files[start : start + step]
            tensors, is_read = np.zeros((len(chunk), *shape), np.uint8), np.zeros(len(chunk), bool)
            for place, file in enumerate(chunk):
                try:
                    tensors[place] = decode(file.read_bytes(), spec).pixels
                    is_read[place] = True
                except (ImageFailure, OSError):
                    continue
            for size in batch_sizes:
                pieces = [
                    session.probabilities(tensors[first : first + size])
                    for first in range(0, len(chunk), size)
                ]
                yield start, np.where(is_read[:, np.newaxis], np.concatenate(pieces), np.float32(np.nan))
            advance(len(chunk), "")
