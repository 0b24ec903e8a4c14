"""Engines that run an ONNX file: each takes a file and images, and gives probabilities.

Every one computes in float32, also where it would by itself take a shorter format for speed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from pipeline.images import Pixels
from pipeline.inference import Probabilities, load_session


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
        answer: From an ONNX file and uint8 [batch, height, width, channels] to float32 [batch, classes].
    """

    title: str
    packages: tuple[str, ...]
    answer: Callable[[Path, Pixels], Probabilities]

    def version(self) -> str | None:
        """The version installed here, or None."""
        for package in self.packages:
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        return None


def _run_onnxruntime(path: Path, images: Pixels) -> Probabilities:
    return load_session(path).probabilities(images)


def _run_reference(path: Path, images: Pixels) -> Probabilities:
    from onnx.reference import ReferenceEvaluator

    (answer,) = ReferenceEvaluator(str(path)).run(None, {"image": images})
    return np.asarray(answer, np.float32)


def _run_openvino(path: Path, images: Pixels) -> Probabilities:
    import openvino

    # By itself it takes bfloat16 on processors that have it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return np.array(compiled(images)["probabilities"], np.float32)


def _run_opencv(path: Path, images: Pixels) -> Probabilities:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(images, "image")
    return np.asarray(network.forward("probabilities"), np.float32)


def _run_tract(path: Path, images: Pixels) -> Probabilities:
    import tract

    model = tract.onnx().load(str(path)).into_model().into_runnable()
    (answer,) = model.run([images])
    return np.asarray(answer.to_numpy(), np.float32)


ENGINES: dict[EngineName, Engine] = {
    EngineName.ONNXRUNTIME: Engine("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), _run_onnxruntime),
    EngineName.REFERENCE: Engine("onnx ReferenceEvaluator", ("onnx",), _run_reference),
    EngineName.OPENVINO: Engine("OpenVINO", ("openvino",), _run_openvino),
    EngineName.OPENCV: Engine("OpenCV", ("opencv-python-headless", "opencv-python"), _run_opencv),
    EngineName.TRACT: Engine("tract", ("tract",), _run_tract),
}
