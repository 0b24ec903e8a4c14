"""Engines that run a file of a model and return probabilities.

All compute in float32, even those that default to a lower precision for speed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities, load_session
from pixelmill.pipeline.processes import without_native_output

Predict = Callable[[Pixels], Probabilities]
"""From uint8 [batch, height, width, channels] to float32 [batch, classes]."""


class EngineName(StrEnum):
    """The engines' names on the command line and in `parity.json`."""

    ONNXRUNTIME = "onnxruntime"
    REFERENCE = "reference"
    OPENVINO = "openvino"
    OPENCV = "opencv"
    TRACT = "tract"
    LITERT = "litert"


@dataclass(frozen=True)
class Engine:
    """An inference engine.

    Attributes:
        title: The name to display.
        packages: Distributions that provide it, the recommended one first.
        load: Loads a file and returns its prediction function; `model_files` lists who loads which file.
    """

    title: str
    packages: tuple[str, ...]
    load: Callable[[Path], Predict]

    def version(self) -> str | None:
        """The installed version, or None."""
        for package in self.packages:
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        return None


def _load_onnxruntime(path: Path) -> Predict:
    return load_session(path).probabilities


def _load_reference(path: Path) -> Predict:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))

    def predict(images: Pixels) -> Probabilities:
        (probabilities,) = evaluator.run(None, {"image": images})
        return np.asarray(probabilities, np.float32)

    return predict


def _load_openvino(path: Path) -> Predict:
    import openvino

    # The default is bfloat16 on CPUs that support it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda images: np.array(compiled(images)["probabilities"], np.float32)


def _load_opencv(path: Path) -> Predict:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))
    # Winograd convolution, the default, is faster but less precise.
    network.enableWinograd(False)

    def predict(images: Pixels) -> Probabilities:
        network.setInput(images, "image")
        return np.array(network.forward("probabilities"), np.float32)

    return predict


def _load_tract(path: Path) -> Predict:
    import tract

    model = tract.onnx().load(str(path)).into_model().into_runnable()
    return lambda images: np.asarray(model.run([images])[0].to_numpy(), np.float32)


def _load_litert(path: Path) -> Predict:
    with without_native_output():
        from ai_edge_litert.interpreter import Interpreter

        run = Interpreter(str(path), num_threads=1).get_signature_runner()
        # The first call says on standard error which delegate it creates.
        run(image=np.zeros(run.get_input_details()["image"]["shape"], np.uint8))
    return lambda images: np.array(run(image=images)["probabilities"], np.float32)


ENGINES: dict[EngineName, Engine] = {
    EngineName.ONNXRUNTIME: Engine("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), _load_onnxruntime),
    EngineName.REFERENCE: Engine("onnx ReferenceEvaluator", ("onnx",), _load_reference),
    EngineName.OPENVINO: Engine("OpenVINO", ("openvino",), _load_openvino),
    EngineName.OPENCV: Engine("OpenCV", ("opencv-python-headless", "opencv-python"), _load_opencv),
    EngineName.TRACT: Engine("tract", ("tract",), _load_tract),
    EngineName.LITERT: Engine("LiteRT", ("ai-edge-litert",), _load_litert),
}
