"""Which opset and IR version an ONNX file must be written in for the runtime that will load it."""

import re
from dataclasses import dataclass

from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.errors import RequestError

# The opset and IR version that each onnxruntime release reads at most. From 1.10 on as its library does when
# asked; before that by the tables of versions of onnxruntime and of ONNX.
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
# The first IR version of each opset's release, which the oldest runtimes for that opset can read.
_IR_VERSION = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class OnnxVersion:
    """The opset of the standard domain, and the IR version, that a file is written in."""

    opset: int
    ir_version: int


def choose_version(export: ExportSpec) -> OnnxVersion:
    """The newest opset, up to the recipe's, that the oldest runtime of a consumer reads.

    A model is converted to that opset from the start, never from a higher one downwards.

    Raises:
        RequestError: The runtime is older than any that can be written for, or is no version.
    """
    if export.runtime_version is None:
        return OnnxVersion(export.opset, _IR_VERSION[export.opset])
    release = _parse(export.runtime_version)
    if release < _OLDEST:
        raise RequestError(
            f"runtime version {export.runtime_version}",
            f"onnxruntime {_OLDEST[0]}.{_OLDEST[1]} or newer: older ones read no opset from 13 on",
            "Update the runtime that shall load the model.",
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
