"""Whether the engines installed here predict what Keras predicts, for a kind of model not seen before."""

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.engines import ENGINES, EngineName
from pipeline.errors import GateRefused
from pipeline.export.golden import GoldenVectors
from pipeline.export.outputs import are_probabilities
from pipeline.images import Pixels
from pipeline.inference import Probabilities

_SECONDS = 120.0
_LONGEST_TROUBLE = 200
_PREDICTIONS, _TROUBLE = "predictions.npy", "trouble.txt"


@dataclass(frozen=True)
class EngineAgreement:
    """What one engine made of a model.

    Attributes:
        engine: Its name.
        version: As installed here.
        images: How many golden images it predicted, all in one batch and one by one.
        label_flips: For how many the class differs from Keras's by more than a tie.
        invalid: For how many it gave NaN, infinity or a row that does not add up to 1.
        max_abs_difference: The largest difference from a probability of Keras; None where it gave none.
        trouble: Why it cannot run the model; empty if it can.
    """

    engine: EngineName
    version: str
    images: int
    label_flips: int
    invalid: int
    max_abs_difference: float | None
    trouble: str


def ask_engines(path: Path, golden: GoldenVectors, tie_margin: float) -> tuple[EngineAgreement, ...]:
    """Let every engine that is installed predict the golden images, each in a process of its own.

    An engine that cannot load or run the file, crashes, or takes over two minutes is one with a trouble.

    Args:
        path: The ONNX file.
        golden: Images, and what Keras predicts for them.
        tie_margin: How far apart two of Keras's probabilities may lie to be a tie.
    """
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory(prefix="pixelmill-engines-") as work:
        started = {}
        for name in (name for name in EngineName if ENGINES[name].version() is not None):
            folder = Path(work) / name
            folder.mkdir()
            arguments = (name, path, golden.tensors, folder)
            started[name] = context.Process(target=_predict, args=arguments, daemon=True)
            started[name].start()
        deadline = time.monotonic() + _SECONDS
        found = []
        for name, process in started.items():
            process.join(max(0.0, deadline - time.monotonic()))
            ended = process.exitcode is not None
            if not ended:
                process.kill()
                process.join()
            found.append(_judge(name, Path(work) / name, ended, golden.probabilities, tie_margin))
        return tuple(found)


def require_engines_agree(agreements: Sequence[EngineAgreement]) -> None:
    """Refuse a model that an engine runs and predicts other classes with.

    Raises:
        GateRefused: An engine gives another class than Keras, NaN, or something else than probabilities.
    """
    for each in agreements:
        if each.invalid or each.label_flips:
            what = (
                f"no valid probabilities for {each.invalid} of {each.images} golden images"
                if each.invalid
                else f"another label than Keras for {each.label_flips} of {each.images} golden images"
            )
            raise GateRefused(
                f"{ENGINES[each.engine].title} {each.version} gives {what}",
                "the same labels from every engine installed here that can load the file",
                "It is not published. Replace the layer that this engine computes otherwise, or export "
                "where the engine is not installed, if no one will use it.",
            )


def _predict(name: EngineName, path: Path, tensors: Pixels, folder: Path) -> None:
    """Write an engine's predictions, float32 [2, images, classes], or why there are none."""
    try:
        predict = ENGINES[name].load(path)
        alone = np.concatenate([predict(tensor[np.newaxis]) for tensor in tensors])
        np.save(folder / _PREDICTIONS, np.stack([predict(tensors), alone]))
    except Exception as error:  # noqa: BLE001  # What an engine that cannot run the file raises is its own.
        words = " ".join(str(error).split()) or type(error).__name__
        (folder / _TROUBLE).write_text(words[:_LONGEST_TROUBLE], encoding="utf-8")


def _judge(
    name: EngineName, folder: Path, ended: bool, keras: Probabilities, tie_margin: float
) -> EngineAgreement:
    version = ENGINES[name].version() or ""
    predictions = np.load(folder / _PREDICTIONS) if (folder / _PREDICTIONS).is_file() and ended else None
    if predictions is None or predictions.shape[1:] != keras.shape:
        trouble = "its process died"
        if not ended:
            trouble = f"it took longer than {_SECONDS:.0f} seconds"
        elif predictions is not None:
            trouble = f"it gave an array of shape {predictions.shape[1:]}"
        elif (folder / _TROUBLE).is_file():
            trouble = (folder / _TROUBLE).read_text(encoding="utf-8")
        return EngineAgreement(name, version, 0, 0, 0, None, trouble)
    is_valid = np.stack([are_probabilities(rows) for rows in predictions]).all(axis=0)
    rows, first = np.arange(len(keras)), keras.argmax(axis=1)
    flipped = [keras[rows, first] - keras[rows, other] > tie_margin for other in predictions.argmax(axis=2)]
    difference = np.abs(predictions.astype(np.float64) - keras)[:, is_valid].max(initial=0.0)
    return EngineAgreement(
        engine=name,
        version=version,
        images=len(keras),
        label_flips=int((np.any(flipped, axis=0) & is_valid).sum()),
        invalid=int((~is_valid).sum()),
        max_abs_difference=float(difference) if is_valid.any() else None,
        trouble="",
    )
