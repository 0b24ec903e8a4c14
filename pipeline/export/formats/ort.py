"""onnxruntime's own format, for builds that contain only the ops of one model."""

import contextlib
import io
import logging
from pathlib import Path

from pixelmill.pipeline.artifacts import scratch_folder
from pixelmill.pipeline.bundles import ONNX_FILE
from pixelmill.pipeline.bundles.model_files import ORT_FILE, ORT_OPERATORS_FILE


def write_ort(folder: Path) -> None:
    """Write `model.ort`, and the list of its ops and types with which onnxruntime is built for it.

    The graph is optimized for any CPU, with ops of onnxruntime's own. Its bytes differ from one conversion
    to the next, because onnxruntime writes tables in the order of their addresses in memory. Run this in a
    separate process: onnxruntime's tools set up logging.
    """
    logging.disable(logging.INFO)
    from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    with scratch_folder("ort") as work, contextlib.redirect_stdout(io.StringIO()):
        (work / ONNX_FILE).write_bytes((folder / ONNX_FILE).read_bytes())
        convert_onnx_models_to_ort(
            work / ONNX_FILE, work, [OptimizationStyle.Fixed], enable_type_reduction=True
        )
        (folder / ORT_FILE).write_bytes((work / ORT_FILE).read_bytes())
        lines = (work / f"model.{ORT_OPERATORS_FILE}").read_text(encoding="utf-8").splitlines()
    # The comments name a folder of this machine.
    kept = [f"# The ops and types of {ORT_FILE}", *(line for line in lines if not line.startswith("#"))]
    (folder / ORT_OPERATORS_FILE).write_text("\n".join(kept).rstrip() + "\n", encoding="utf-8")
