"""One onnxruntime session: a model file in, probabilities out, on the device that was asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import RequestError
from pipeline.images import Pixels

if TYPE_CHECKING:
    import onnxruntime

Probabilities = npt.NDArray[np.float32]
Provider = Literal["cpu", "cuda"]
_PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}


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
            "Install onnxruntime-gpu with its CUDA libraries, or take --provider cpu.",
        )
    return name


def load_session(path: Path, provider: Provider = "cpu", threads: int = 1) -> InferenceSession:
    """Load a model for `threads` threads.

    Raises:
        RequestError: The provider is not there, or would quietly be replaced by the CPU; or the file
            cannot be loaded.
    """
    import onnxruntime

    name = require_provider(provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[name])
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
            "Check the driver and the CUDA libraries, or take --provider cpu.",
        )
    return InferenceSession(session, used)
