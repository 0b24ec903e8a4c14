"""onnxruntime sessions: loading a model on the requested provider, and predicting probabilities."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.labels import MULTI_LABEL

if TYPE_CHECKING:
    import onnxruntime

Probabilities = npt.NDArray[np.float32]
Embeddings = npt.NDArray[np.float32]
EMBEDDING_OUTPUT = "embedding"
"""The second output of a file with embeddings, float32 [batch, values]."""
Provider = Literal["cpu", "cuda"]
_PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
ROUNDING = 1e-3
"""The largest deviation from 1 of the sum of an image's probabilities."""
# Measured: on a CPU, a network for large images is fastest when a batch fits the cache, and one for small
# images when calls are few. A GPU needs larger batches.
_LARGEST_BATCH: dict[Provider, int] = {"cpu": 32, "cuda": 128}
_SMALLEST_BATCH = 4
_BYTES_OF_A_BATCH = 64 << 10
# The folder in which onnxruntime looks for external weights: one that cannot exist, so that none are loaded.
_EXTERNAL_WEIGHTS = "session.model_external_initializers_file_folder_path"
_NOWHERE = "/dev/null/no-external-weights"


@dataclass(frozen=True)
class InferenceSession:
    """A loaded model. `provider` is the execution provider that onnxruntime actually uses."""

    session: "onnxruntime.InferenceSession"
    provider: str

    @cached_property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, so that its probabilities need not add up to 1."""
        return self.metadata.get(MULTI_LABEL) == "true"

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata in the model file."""
        found: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        return found

    def probabilities(self, images: Pixels) -> Probabilities:
        """Predict float32 [batch, classes] for images, uint8 [batch, height, width, channels]."""
        (result,) = self.session.run(["probabilities"], {"image": images})
        probabilities: Probabilities = result
        return probabilities

    def probabilities_and_embeddings(self, images: Pixels) -> tuple[Probabilities, Embeddings]:
        """Predict float32 [batch, classes], and give float32 [batch, values], with a file that has both."""
        probabilities, embeddings = self.session.run(["probabilities", EMBEDDING_OUTPUT], {"image": images})
        return probabilities, embeddings


def are_probabilities(rows: Probabilities, multi_label: bool = False) -> npt.NDArray[np.bool_]:
    """Mask of the rows that hold probabilities.

    Args:
        rows: float32 [batch, classes].
        multi_label: Whether each value is a probability of its own. Otherwise, a row sums to 1 within
            `ROUNDING`.

    Returns:
        bool [batch].
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if multi_label:
            return np.asarray(((rows >= 0) & (rows <= 1)).all(axis=1))
        total = rows.sum(axis=1, dtype=np.float64)
        return np.asarray((np.abs(total - 1) <= ROUNDING) & (rows.min(axis=1) >= 0))


def describe_invalid(row: Probabilities, multi_label: bool = False) -> str:
    """What is wrong with a row [classes] that does not hold probabilities; see `are_probabilities`."""
    if np.isnan(row).any():
        return f"{np.isnan(row).sum()} of {row.size} probabilities are NaN"
    if np.isinf(row).any():
        return f"{np.isinf(row).sum()} of {row.size} probabilities are infinite"
    if row.min() < 0:
        return f"a probability is {row.min():.6g}, which is below 0"
    if multi_label:
        return f"a probability is {row.max():.6g}, which is above 1"
    return f"the probabilities sum to {row.sum(dtype=np.float64):.6g} instead of 1"


def batch_size(provider: Provider, tensor_bytes: int) -> int:
    """The batch size for tensors of `tensor_bytes` bytes, a power of two."""
    largest = _LARGEST_BATCH[provider]
    if provider == "cuda":
        return largest
    fitting = max(_BYTES_OF_A_BATCH // tensor_bytes, 1)
    return max(_SMALLEST_BATCH, min(largest, 1 << (fitting.bit_length() - 1)))


def require_provider(wanted: Provider) -> str:
    """The onnxruntime name of an execution provider.

    Raises:
        RequestError: The provider is not available in this build of onnxruntime or on this machine.
    """
    import onnxruntime

    name = _PROVIDERS[wanted]
    available = onnxruntime.get_available_providers()
    if name not in available:
        raise RequestError(
            f"provider {wanted}, and onnxruntime {onnxruntime.__version__} here has only "
            f"{', '.join(available)}",
            name,
            "Install onnxruntime-gpu with its CUDA libraries, or use `provider` cpu.",
        )
    return name


def load_session(
    path: Path, provider: Provider = "cpu", threads: int = 1, sha256: str | None = None
) -> InferenceSession:
    """Load a model from a file, which is read once. External weights are not loaded.

    Args:
        path: The ONNX file.
        provider: The execution provider.
        threads: The number of threads of one inference.
        sha256: The expected SHA-256 in hexadecimal, checked on the same bytes that are loaded; None for any.

    Raises:
        RequestError: The provider is not available, onnxruntime falls back to the CPU, or the file cannot be
            loaded.
        WorkError: The SHA-256 differs.
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
    except Exception as error:  # onnxruntime's exceptions have no common base class.
        words = " ".join(str(error).split())
        raise RequestError(
            f"{path} cannot be loaded by onnxruntime {onnxruntime.__version__} ({words})",
            "a complete ONNX file of a version that this runtime supports",
            "Use a bundle exported by pixelmill, or install a newer onnxruntime.",
        ) from error
    used = session.get_providers()[0]
    if used != name:
        raise RequestError(
            f"provider {provider}, and onnxruntime fell back to {used}",
            name,
            "Check the driver and the CUDA libraries, or use `provider` cpu.",
        )
    return InferenceSession(session, used)


def _read_model(path: Path, sha256: str | None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(
            f"{path} cannot be read ({error.strerror or error})",
            "an ONNX file",
            "Use a bundle exported by pixelmill.",
        ) from error
    found = hashlib.sha256(content).hexdigest() if sha256 else None
    if found != sha256:
        raise WorkError(
            f"{path} with the SHA-256 {found}",
            f"{sha256}, the model that was verified at the start",
            "The model has been modified since: restore it and run the same command again, or score with the "
            "new one into another output.",
        )
    return content
