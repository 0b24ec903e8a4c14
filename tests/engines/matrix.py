"""The engines that are compared with Keras, their environments, and how to run them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from tests.browsers import find_chromium
from tests.engines import predicting
from tests.engines.cases import Case
from tests.engines.chromium import JAVASCRIPT
from tests.engines.loaders import Array

ROOT = Path(__file__).resolve().parents[2]
_GET_JAVASCRIPT = "install Node.js with npm 18 or later, and run `make test`"


class NotInstalledError(Exception):
    """An engine is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of an engine.

    Attributes:
        version: The version of the engine.
        probabilities: By case, float32 [2 * images, classes]: in one batch, then image by image.
    """

    version: str
    probabilities: dict[str, Array]

    def differences(self, cases: Sequence[Case]) -> dict[str, float]:
        """The largest difference from Keras's probabilities, by the case's name.

        Raises:
            ValueError: An array has the wrong shape.
        """
        return {case.name: _difference(case, self.probabilities[case.name]) for case in cases}


def _difference(case: Case, predictions: Array) -> float:
    expected = np.concatenate([case.probabilities] * 2)
    if predictions.shape != expected.shape:
        raise ValueError(f"{case.name}: predictions of shape {predictions.shape} instead of {expected.shape}")
    return float(np.abs(predictions - expected).max())


@dataclass(frozen=True)
class MatrixEngine:
    """One engine of the matrix.

    Attributes:
        title: The name in `docs/bundle.md`.
        predict: Returns its predictions; raises NotInstalledError if it is not installed.
        needed: The settings needed for float32 predictions, for `docs/bundle.md`.
        slow: Whether it runs only in `make test-engines` and `make test-slow`.
    """

    title: str
    predict: Callable[[Sequence[Case]], Predictions]
    needed: str = "nothing"
    slow: bool = False


def _predict_here(name: EngineName, cases: Sequence[Case]) -> Predictions:
    """Predict with an engine like `pixelmill verify`."""
    engine = ENGINES[name]
    version = engine.version()
    if version is None:
        raise NotInstalledError("pip install '.[engines]'")
    found = {case.name: predicting.predict(engine.load(case.path_for(name)), case.tensors) for case in cases}
    return Predictions(version, found)


def _predict_apart(environment: str, loader: str, cases: Sequence[Case]) -> Predictions:
    """Predict with an engine in its own environment."""
    folder = ROOT / ".engines" / environment
    _require((folder / "installed").is_file(), f"make .engines/{environment}/installed")
    return _predict_program((folder / "bin/python", "-m", predicting.__name__, loader), cases)


def _predict_plain_c(cases: Sequence[Case]) -> Predictions:
    _require(find_spec("emx_onnx_cgen") is not None, "pip install '.[dev]'")
    _require(shutil.which("gcc") is not None, "install gcc from the system's packages")
    return _predict_program((sys.executable, "-m", predicting.__name__, "plain-c"), cases)


def _predict_node(cases: Sequence[Case]) -> Predictions:
    _require(_has_package("onnxruntime-node") and shutil.which("node") is not None, _GET_JAVASCRIPT)
    return _predict_program(("node", JAVASCRIPT / "onnxruntime_node.mjs"), cases)


def _predict_web(cases: Sequence[Case]) -> Predictions:
    _require(_has_package("onnxruntime-web"), _GET_JAVASCRIPT)
    _require(find_chromium() is not None, "install the packages in .ci/apt-packages.txt")
    return _predict_program((sys.executable, "-m", "tests.engines.chromium"), cases)


def _has_package(name: str) -> bool:
    return (JAVASCRIPT / "node_modules" / name).is_dir()


def _require(there: bool, how_to_get_it: str) -> None:
    if not there:
        raise NotInstalledError(how_to_get_it)


def _predict_program(command: Sequence[str | Path], cases: Sequence[Case]) -> Predictions:
    requested = [
        {
            "name": case.name,
            "model": str(case.onnx_path),
            "shape": case.tensors.shape,
            "pixels": case.tensors.ravel().tolist(),
        }
        for case in cases
    ]
    with TemporaryDirectory() as folder:
        requests, predictions = Path(folder, "requests.json"), Path(folder, "predictions.json")
        requests.write_text(json.dumps(requested))
        done = subprocess.run(
            [*command, requests, predictions], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stderr[-4000:]}")
        found = json.loads(predictions.read_text())
    by_case = {name: np.array(rows, np.float32) for name, rows in found["predictions"].items()}
    return Predictions(found["version"], by_case)


_NO_WINOGRAD = "`enableWinograd(False)`: by default its convolutions are faster and less precise"
MATRIX = (
    MatrixEngine("onnxruntime", partial(_predict_here, EngineName.ONNXRUNTIME)),
    MatrixEngine("onnxruntime 1.16", partial(_predict_apart, "onnxruntime-1.16", "onnxruntime")),
    MatrixEngine("onnx ReferenceEvaluator", partial(_predict_here, EngineName.REFERENCE)),
    MatrixEngine(
        "OpenVINO",
        partial(_predict_here, EngineName.OPENVINO),
        "`INFERENCE_PRECISION_HINT` `f32`: by default it uses bfloat16 where the CPU has it",
    ),
    MatrixEngine("OpenCV", partial(_predict_here, EngineName.OPENCV), _NO_WINOGRAD),
    MatrixEngine("OpenCV 4.11", partial(_predict_apart, "opencv-4.11", "opencv"), _NO_WINOGRAD),
    MatrixEngine("tract", partial(_predict_here, EngineName.TRACT)),
    MatrixEngine("LiteRT", partial(_predict_here, EngineName.LITERT), "`model.tflite`, from the Keras model"),
    MatrixEngine("plain C, by emx-onnx-cgen and gcc", _predict_plain_c, "code for each size of a batch"),
    MatrixEngine("onnxruntime-node", _predict_node),
    MatrixEngine("onnxruntime-web", _predict_web),
    MatrixEngine("TVM", partial(_predict_apart, "tvm", "tvm"), slow=True),
    MatrixEngine("IREE", partial(_predict_apart, "iree", "iree"), slow=True),
    MatrixEngine(
        "ncnn, by pnnx",
        partial(_predict_apart, "ncnn", "ncnn"),
        "`fp16=0` and `use_fp16_storage = False`: by default it uses float16; "
        "`use_winograd_convolution = False`, as with OpenCV; pixels as float32, with `Noop` for `Tensor.to`; "
        "one image at a time",
        slow=True,
    ),
    MatrixEngine(
        "MNN",
        partial(_predict_apart, "mnn", "mnn"),
        "`PrecisionMode.High`, and pixels as `NCHW`; on another processor, `mnist-large` differed by 3.9e-04 "
        "all the same",
        slow=True,
    ),
)
"""In the order of the table in `docs/bundle.md`."""
