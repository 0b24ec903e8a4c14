"""Converting a bundle's model to other formats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelmill.pipeline.config import ExportFormat
from pixelmill.pipeline.errors import PixelmillError, WorkError
from pixelmill.pipeline.export.conversion import quote_error
from pixelmill.pipeline.export.formats.litert import write_litert
from pixelmill.pipeline.export.formats.openvino_ir import write_openvino
from pixelmill.pipeline.export.formats.ort import write_ort
from pixelmill.pipeline.export.formats.triton import write_triton
from pixelmill.pipeline.images import Pixels


@dataclass(frozen=True)
class _Target:
    """One format.

    Attributes:
        title: The name to display.
        write: Writes the format's files into a bundle's folder, which contains `model.onnx`, `model.keras`
            and `labels.json`. The second argument is calibration images, uint8 [images, height, width,
            channels], or None without an int8 file.
    """

    title: str
    write: Callable[[Path, Pixels | None], None]


_TARGETS: dict[ExportFormat, _Target] = {
    "litert": _Target("LiteRT", write_litert),
    "openvino": _Target("OpenVINO", lambda folder, _: write_openvino(folder)),
    "triton": _Target("Triton", lambda folder, _: write_triton(folder)),
    "ort": _Target("onnxruntime's own format", lambda folder, _: write_ort(folder)),
}


def write_formats(folder: Path, formats: Sequence[ExportFormat], calibration: Pixels | None) -> None:
    """Write the files of several formats into a bundle's folder. Run it in a separate process.

    Args:
        folder: The bundle's folder.
        formats: The formats; `onnx`, which is there already, is skipped.
        calibration: Training images on which int8 quantization measures the ranges of activations; uint8
            [images, height, width, channels]. Without them there are no int8 files.

    Raises:
        WorkError: A format cannot express the model.
    """
    for name in formats:
        if name not in _TARGETS:
            continue
        try:
            _TARGETS[name].write(folder, calibration)
        except PixelmillError:
            raise
        except Exception as error:  # Converters raise exceptions of many types.
            raise WorkError(
                f"a model that cannot be converted to {_TARGETS[name].title} ({quote_error(error)})",
                "layers that the format can express",
                f"Leave {name} out of `formats`, or replace the layer.",
            ) from error
