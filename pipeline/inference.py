"""One onnxruntime session: a model file in, probabilities out, on the device that was asked for."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.images import Pixels

if TYPE_CHECKING:
    import onnxruntime

Probabilities = npt.NDArray[np.float32]
Provider = Literal["cpu", "cuda"]
_PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
ROUNDING = 1e-3
"""By how much the probabilities of one image may miss 1 in sum."""
# Where onnxruntime is told to look for weights outside the file: a place in which there are none.
_EXTERNAL_WEIGHTS = "session.model_external_initializers_file_folder_path"
_NOWHERE = "/dev/null/no-external-weights"


@dataclass(frozen=True)
class InferenceSession:
    """A loaded model. `provider` is the execution provider onnxruntime really uses."""

    session: "onnxruntime.InferenceSession"
    provider: str

    @property
    def metadata(self) -> dict[str, str]:
        """What the model's file says of itself, by name."""
        found: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        return found

    def probabilities(self, images: Pixels) -> Probabilities:
        """Classify uint8 [batch, height, width, channels]; float32 [batch, classes] comes back."""
        (answer,) = self.session.run(["probabilities"], {"image": images})
        result: Probabilities = answer
        return result


def are_probabilities(rows: Probabilities) -> npt.NDArray[np.bool_]:
    """Which rows of [batch, classes] hold numbers of 0 or more that add up to 1, within 0.001."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = rows.sum(axis=1, dtype=np.float64)
        valid: npt.NDArray[np.bool_] = (np.abs(total - 1) <= ROUNDING) & (rows.min(axis=1) >= 0)
    return valid


def describe_invalid(row: Probabilities) -> str:
    """What is wrong with one row [classes] that holds no probabilities."""
    if np.isnan(row).any():
        return f"{np.isnan(row).sum()} of {row.size} probabilities are NaN"
    if np.isinf(row).any():
        return f"{np.isinf(row).sum()} of {row.size} probabilities are infinite"
    if row.min() < 0:
        return f"a probability is {row.min():.6g}, which is below 0"
    return f"the probabilities add up to {row.sum(dtype=np.float64):.6g}, not to 1"


def require_provider(wanted: Provider) -> str:
    """The name of an execution provider that onnxruntime has here.

    Raises:
        RequestError: This build of onnxruntime or this machine does not have it.
    """
    import onnxruntime

    name = _PROVIDERS[wanted]
    available = onnxruntime.get_available_providers()
    if name not in available:
        raise RequestError(
            f"provider {wanted}, and onnxruntime {onnxruntime.__version__} here has only "
            f"{', '.join(available)}",
            name,
            "Install onnxruntime-gpu with its CUDA libraries, or choose `provider` cpu.",
        )
    return name


def load_session(
    path: Path, provider: Provider = "cpu", threads: int = 1, sha256: str | None = None
) -> InferenceSession:
    """Load a model from one reading of its file; weights outside the file are not loaded.

    Args:
        path: The ONNX file.
        provider: Where it runs.
        threads: How many threads one inference uses.
        sha256: What the file's bytes must be, in hexadecimal; the bytes that were hashed are the bytes that
            are loaded.

    Raises:
        RequestError: The provider is not there, or would quietly be replaced by the CPU; or the file
            cannot be loaded.
        WorkError: The file's bytes are not those of `sha256`.
    """
    import onnxruntime

    name = require_provider(provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(_EXTERNAL_WEIGHTS, _NOWHERE)
    content = _read_model(path, sha256)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[name])
    except Exception as error:  # onnxruntime has a type for each of its states, none with a base of its own.
        words = " ".join(str(error).split())
        raise RequestError(
            f"{path} cannot be loaded by onnxruntime {onnxruntime.__version__} ({words})",
            "an ONNX file that is whole and of a version this runtime knows",
            "Take a bundle that pixelmill exported, or install a newer onnxruntime.",
        ) from error
    used = session.get_providers()[0]
    if used != name:
        raise RequestError(
            f"provider {provider}, and onnxruntime fell back to {used}",
            name,
            "Check the driver and the CUDA libraries, or choose `provider` cpu.",
        )
    return InferenceSession(session, used)


def _read_model(path: Path, sha256: str | None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(
            f"{path} cannot be read ({error.strerror or error})",
            "an ONNX file",
            "Take a bundle that pixelmill exported.",
        ) from error
    found = hashlib.sha256(content).hexdigest() if sha256 else None
    if found != sha256:
        raise WorkError(
            f"{path} with the SHA-256 {found}",
            f"{sha256}, the model that was verified when the work began",
            "The model was changed meanwhile: restore it and run the same command again, or score with the "
            "new one into another output.",
        )
    return content
