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
from tests.engines import answering
from tests.engines.cases import Case
from tests.engines.chromium import JAVASCRIPT
from tests.engines.loaders import Array

ROOT = Path(__file__).resolve().parents[2]
_GET_JAVASCRIPT = "install Node.js with npm 18 or later, and run `make test`"


class NotInstalledError(Exception):
    """An engine is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Answers:
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


def _difference(case: Case, answer: Array) -> float:
    expected = np.concatenate([case.probabilities] * 2)
    if answer.shape != expected.shape:
        raise ValueError(f"{case.name}: an answer of shape {answer.shape} instead of {expected.shape}")
    return float(np.abs(answer - expected).max())


@dataclass(frozen=True)
class MatrixEngine:
    """One engine of the matrix.

    Attributes:
        title: The name in `docs/bundle.md`.
        ask: Returns its predictions; raises NotInstalledError if it is not installed.
        needed: The settings needed for float32 predictions, for `docs/bundle.md`.
        slow: Whether it runs only in `make test-engines` and `make test-slow`.
    """

    title: str
    ask: Callable[[Sequence[Case]], Answers]
    needed: str = "nothing"
    slow: bool = False


def _ask_here(name: EngineName, cases: Sequence[Case]) -> Answers:
    """Predict with an engine like `pixelmill verify`."""
    engine = ENGINES[name]
    version = engine.version()
    if version is None:
        raise NotInstalledError("pip install '.[engines]'")
    found = {case.name: answering.ask(engine.load(case.onnx_path), case.tensors) for case in cases}
    return Answers(version, found)


def _ask_apart(environment: str, loader: str, cases: Sequence[Case]) -> Answers:
    """Predict with an engine in its own environment."""
    folder = ROOT / ".engines" / environment
    _require((folder / "installed").is_file(), f"make .engines/{environment}/installed")
    return _ask_program((folder / "bin/python", "-m", answering.__name__, loader), cases)


def _ask_plain_c(cases: Sequence[Case]) -> Answers:
    _require(find_spec("emx_onnx_cgen") is not None, "pip install '.[dev]'")
    _require(shutil.which("gcc") is not None, "install gcc from the system's packages")
    return _ask_program((sys.executable, "-m", answering.__name__, "plain-c"), cases)


def _ask_node(cases: Sequence[Case]) -> Answers:
    _require(_has_package("onnxruntime-node") and shutil.which("node") is not None, _GET_JAVASCRIPT)
    return _ask_program(("node", JAVASCRIPT / "onnxruntime_node.mjs"), cases)


def _ask_web(cases: Sequence[Case]) -> Answers:
    _require(_has_package("onnxruntime-web"), _GET_JAVASCRIPT)
    _require(find_chromium() is not None, "install the packages in .ci/apt-packages.txt")
    return _ask_program((sys.executable, "-m", "tests.engines.chromium"), cases)


def _has_package(name: str) -> bool:
    return (JAVASCRIPT / "node_modules" / name).is_dir()


def _require(there: bool, how_to_get_it: str) -> None:
    if not there:
        raise NotInstalledError(how_to_get_it)


def _ask_program(command: Sequence[str | Path], cases: Sequence[Case]) -> Answers:
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
        questions, answers = Path(folder, "questions.json"), Path(folder, "answers.json")
        questions.write_text(json.dumps(requested))
        done = subprocess.run(
            [*command, questions, answers], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stderr[-4000:]}")
        found = json.loads(answers.read_text())
    rows = {name: np.array(answer, np.float32) for name, answer in found["answers"].items()}
    return Answers(found["version"], rows)


_NO_WINOGRAD = "`enableWinograd(False)`: by default its convolutions are faster and less precise"
MATRIX = (
    MatrixEngine("onnxruntime", partial(_ask_here, EngineName.ONNXRUNTIME)),
    MatrixEngine("onnxruntime 1.16", partial(_ask_apart, "onnxruntime-1.16", "onnxruntime")),
    MatrixEngine("onnx ReferenceEvaluator", partial(_ask_here, EngineName.REFERENCE)),
    MatrixEngine(
        "OpenVINO",
        partial(_ask_here, EngineName.OPENVINO),
        "`INFERENCE_PRECISION_HINT` `f32`: by default it uses bfloat16 where the CPU has it",
    ),
    MatrixEngine("OpenCV", partial(_ask_here, EngineName.OPENCV), _NO_WINOGRAD),
    MatrixEngine("OpenCV 4.11", partial(_ask_apart, "opencv-4.11", "opencv"), _NO_WINOGRAD),
    MatrixEngine("tract", partial(_ask_here, EngineName.TRACT)),
    MatrixEngine("plain C, by emx-onnx-cgen and gcc", _ask_plain_c, "code for each size of a batch"),
    MatrixEngine("onnxruntime-node", _ask_node),
    MatrixEngine("onnxruntime-web", _ask_web),
    MatrixEngine("TVM", partial(_ask_apart, "tvm", "tvm"), slow=True),
    MatrixEngine("IREE", partial(_ask_apart, "iree", "iree"), slow=True),
    MatrixEngine(
        "ncnn, by pnnx",
        partial(_ask_apart, "ncnn", "ncnn"),
        "`fp16=0` and `use_fp16_storage = False`: by default it uses float16; "
        "`use_winograd_convolution = False`, as with OpenCV; pixels as float32, with `Noop` for `Tensor.to`; "
        "one image at a time",
        slow=True,
    ),
    MatrixEngine(
        "MNN", partial(_ask_apart, "mnn", "mnn"), "`PrecisionMode.High`, and pixels as `NCHW`", slow=True
    ),
)
"""In the order of the table in `docs/bundle.md`."""
