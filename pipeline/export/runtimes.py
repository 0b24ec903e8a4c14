"""Choosing the opset and IR version of an ONNX file for the runtime that will load it."""

import re
from dataclasses import dataclass

from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.errors import RequestError

# The newest opset and IR version that each onnxruntime release supports: from 1.10 on as found by loading
# files with that release, before that according to the version tables of onnxruntime and ONNX.
_READS = {
    (1, 6): (13, 7),
    (1, 7): (13, 7),
    (1, 8): (14, 7),
    (1, 9): (15, 7),
    (1, 10): (15, 8),
    (1, 11): (16, 8),
    (1, 12): (17, 8),
    (1, 13): (17, 8),
    (1, 14): (18, 8),
}
_OLDEST, _NEWEST_LISTED = min(_READS), max(_READS)
# The IR version of the ONNX release that introduced each opset, which every runtime for the opset supports.
_IR_VERSION = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class OnnxVersion:
    """The standard domain's opset and the IR version of an ONNX file."""

    opset: int
    ir_version: int


def choose_version(export: ExportSpec) -> OnnxVersion:
    """The newest opset, up to the recipe's, that the oldest target runtime supports.

    A model is converted directly to that opset, never downgraded from a higher one.

    Raises:
        RequestError: The runtime version is too old or malformed.
    """
    if export.runtime_version is None:
        return OnnxVersion(export.opset, _IR_VERSION[export.opset])
    release = _parse(export.runtime_version)
    if release < _OLDEST:
        raise RequestError(
            f"runtime version {export.runtime_version}",
            f"onnxruntime {_OLDEST[0]}.{_OLDEST[1]} or newer, which supports opset 13",
            "Update the runtime that will load the model.",
        )
    opset, ir_version = _READS[min(release, _NEWEST_LISTED)]
    chosen = min(opset, export.opset)
    return OnnxVersion(chosen, min(ir_version, _IR_VERSION[chosen]))


def _parse(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)*", text, re.ASCII)
    if found is None:
        raise RequestError(
            f"runtime version {text!r}", "a release of onnxruntime such as 1.16", "Correct the version."
        )
    return int(found[1]), int(found[2])
