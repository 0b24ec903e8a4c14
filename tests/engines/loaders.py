"""Loading an ONNX file with engines that `pixelmill verify` does not include; all compute in float32.

Most are installed in separate environments, so this module imports only NumPy outside of functions.
"""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import distribution, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Predict = Callable[[Array], Array]
"""From uint8 [batch, height, width, channels] to float32 [batch, classes]."""


@dataclass(frozen=True)
class Loader:
    """One engine.

    Attributes:
        distribution: The distribution that determines the version of the engine.
        load: Loads an ONNX file.
    """

    distribution: str
    load: Callable[[Path], Predict]

    def version(self) -> str:
        """The version installed in this environment."""
        return version(self.distribution)


def _load_onnxruntime(path: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["probabilities"], {"image": images})[0])


def _load_opencv(path: Path) -> Predict:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))
    network.enableWinograd(False)

    def predict(images: Array) -> Array:
        network.setInput(images, "image")
        return np.array(network.forward("probabilities"))

    return predict


def _load_plain_c(path: Path) -> Predict:
    # The code for a dynamic batch size applies GlobalMaxPool only to the first image.
    program_for = cache(partial(_compile_plain_c, path))
    return lambda images: program_for(len(images))(images)


def _compile_plain_c(path: Path, batch: int) -> Predict:
    """Compile the function that emx-onnx-cgen writes; its arguments are the images and the output buffer."""
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    with TemporaryDirectory() as folder:
        source, weights, library = (Path(folder, name) for name in ("model.c", "weights", "model.so"))
        code, constants = _c_compiler().compile_with_weight_data(model)
        source.write_text(code)
        weights.write_bytes(constants)
        _run("gcc", "-O2", "-shared", "-fPIC", "-o", library, source, "-lm")
        program = ctypes.CDLL(str(library))
        program.model_load(str(weights).encode())
    program.model.argtypes = [
        np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS") for dtype in (np.uint8, np.float32)
    ]

    def predict(images: Array) -> Array:
        predictions = np.empty((batch, classes), np.float32)
        program.model(images, predictions)
        return predictions

    return predict


@cache
def _c_compiler() -> Any:
    """One compiler for all files, because it caches its templates, which take most of the time."""
    from emx_onnx_cgen.compiler import Compiler, CompilerOptions

    # Weights are in a separate file, because compiling millions of them as text takes gcc minutes.
    return Compiler(CompilerOptions(large_weight_threshold=1))


def _load_tvm(path: Path) -> Predict:
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    compiled = tvm.compile(from_onnx(onnx.load(path)), tvm.target.Target("llvm"))
    machine = relax.VirtualMachine(compiled, tvm.cpu())
    return lambda images: np.asarray(machine["main"](tvm.runtime.tensor(images)).numpy())


def _load_iree(path: Path) -> Predict:
    from iree import compiler, runtime

    with TemporaryDirectory() as folder:
        imported = Path(folder, "model.mlir")
        _run(sys.executable, "-m", "iree.compiler.tools.import_onnx", path, "-o", imported)
        compiled = compiler.compile_file(str(imported), target_backends=["llvm-cpu"])
    module = runtime.load_vm_flatbuffer(compiled, driver="local-sync")
    # Named after the graph.
    run = module["pixelmill"]
    return lambda images: np.asarray(run(images).to_host())


def _load_ncnn(path: Path) -> Predict:
    import ncnn

    network = ncnn.Net()
    # By default, it uses float16 from loading the weights on.
    network.opt.use_fp16_storage = False
    network.opt.use_winograd_convolution = False
    with TemporaryDirectory() as folder:
        _convert_for_ncnn(path, Path(folder))
        network.load_param(str(Path(folder, "model.ncnn.param")))
        network.load_model(str(Path(folder, "model.ncnn.bin")))

    def predict_one(image: Array) -> Array:
        pixels = image.astype(np.float32)
        extractor = network.create_extractor()
        # A clone, because a Mat neither copies nor references its array.
        extractor.input("in0", ncnn.Mat(pixels).clone())
        _, probabilities = extractor.extract("out0")
        return np.array(probabilities)

    # It does not support batches.
    return lambda images: np.stack([predict_one(image) for image in images])


def _convert_for_ncnn(path: Path, folder: Path) -> None:
    """Write `model.ncnn.param` and `model.ncnn.bin`; pnnx writes beside the file that it reads."""
    import onnx

    (image,) = onnx.load(path).graph.input
    height, width, channels = (size.dim_value for size in image.type.tensor_type.shape.dim[1:])
    # The module and the command of the package import PyTorch, which the program in it does not need.
    program = Path(str(distribution("pnnx").locate_file("pnnx/pnnx")))
    shutil.copy(path, folder / "model.onnx")
    _run(program, folder / "model.onnx", f"inputshape=[1,{height},{width},{channels}]u8", "fp16=0")
    # ncnn has no layer for casting pixels, so they are passed as float32 and the layer does nothing.
    layers = folder / "model.ncnn.param"
    layers.write_text(layers.read_text().replace("Tensor.to ", "Noop "))


def _load_mnn(path: Path) -> Predict:
    # The command `mnnconvert` does the same, but also installs packages and sends telemetry.
    import _tools
    from MNN import expr, nn

    with TemporaryDirectory() as folder:
        converted = Path(folder, "model.mnn")
        _tools.mnnconvert(
            ["", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "none"]
        )
        names = (["image"], ["probabilities"])
        module = nn.load_module_from_file(str(converted), *names, precision_mode=expr.PrecisionMode.High)

    def predict(images: Array) -> Array:
        # NCHW keeps the shape.
        (probabilities,) = module.forward([expr.const(images, list(images.shape), expr.NCHW, expr.uint8)])
        return np.array(probabilities.read())

    return predict


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")


LOADERS = {
    "onnxruntime": Loader("onnxruntime", _load_onnxruntime),
    "opencv": Loader("opencv-python-headless", _load_opencv),
    "plain-c": Loader("emx-onnx-cgen", _load_plain_c),
    "tvm": Loader("apache-tvm", _load_tvm),
    "iree": Loader("iree-base-compiler", _load_iree),
    "ncnn": Loader("ncnn", _load_ncnn),
    "mnn": Loader("mnn", _load_mnn),
}
