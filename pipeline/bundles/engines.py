"""Engines that run an ONNX file: each loads one, and gives probabilities for images.

Every one computes in float32, also where it would by itself take a shorter format for speed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities, load_session

Answer = Callable[[Pixels], Probabilities]
"""From uint8 [batch, height, width, channels] to float32 [batch, classes]."""


class EngineName(StrEnum):
    """What the command line calls an engine."""

    ONNXRUNTIME = "onnxruntime"
    REFERENCE = "reference"
    OPENVINO = "openvino"
    OPENCV = "opencv"
    TRACT = "tract"


@dataclass(frozen=True)
class Engine:
    """One engine.

    Attributes:
        title: What people call it.
        packages: The distributions any of which brings it, the one to install first.
        load: Loads an ONNX file.
    """

    title: str
    packages: tuple[str, ...]
    load: Callable[[Path], Answer]

    def version(self) -> str | None:
        """The version installed here, or None."""
        for package in self.packages:
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        return None


def _load_onnxruntime(path: Path) -> Answer:
    return load_session(path).probabilities


def _load_reference(path: Path) -> Answer:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))

    def answer(images: Pixels) -> Probabilities:
        (probabilities,) = evaluator.run(None, {"image": images})
        return np.asarray(probabilities, np.float32)

    return answer


def _load_openvino(path: Path) -> Answer:
    import openvino

    # By itself it takes bfloat16 on processors that have it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda images: np.array(compiled(images)["probabilities"], np.float32)


def _load_opencv(path: Path) -> Answer:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))
    # By itself it convolves in a way (Winograd's) that is faster and loses digits.
    network.enableWinograd(False)

    def answer(images: Pixels) -> Probabilities:
        network.setInput(images, "image")
        return np.array(network.forward("probabilities"), np.float32)

    return answer


def _load_tract(path: Path) -> Answer:
    import tract

    model = tract.onnx().load(str(path)).into_model().into_runnable()
    return lambda images: np.asarray(model.run([images])[0].to_numpy(), np.float32)


ENGINES: dict[EngineName, Engine] = {
    EngineName.ONNXRUNTIME: Engine("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), _load_onnxruntime),
    EngineName.REFERENCE: Engine("onnx ReferenceEvaluator", ("onnx",), _load_reference),
    EngineName.OPENVINO: Engine("OpenVINO", ("openvino",), _load_openvino),
    EngineName.OPENCV: Engine("OpenCV", ("opencv-python-headless", "opencv-python"), _load_opencv),
    EngineName.TRACT: Engine("tract", ("tract",), _load_tract),
}
