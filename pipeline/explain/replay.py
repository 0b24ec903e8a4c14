"""Replay of the stages from an image file to its prediction."""

import errno
import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, cast

import numpy as np

from pixelmill.pipeline.bundles import (
    MODEL_FILE,
    PREPROCESSING_FILE,
    ModelBundle,
    read_allowed_difference,
    read_bundle_manifest,
)
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.files import Decoding, decode_all_ways
from pixelmill.pipeline.errors import PixelmillError, RequestError
from pixelmill.pipeline.extras import install_command
from pixelmill.pipeline.images import (
    DecodedImage,
    FailureCode,
    FileFacts,
    ImageFailure,
)
from pixelmill.pipeline.inference import Probabilities, are_probabilities, describe_invalid, load_session
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.scoring.image_archives import find_members
from pixelmill.pipeline.scoring.listing import UNKNOWN_SIZE, ListedImage
from pixelmill.pipeline.scoring.sources import ImageSource
from pixelmill.pipeline.scoring.worker.source_reader import reader_of_source
from pixelmill.pipeline.storage import is_remote, stat_of

Facts = dict[str, Any]
TOLERANCE = 1e-6
"""The largest difference between two probabilities that count as equal."""
_SHOWN_CLASSES = 3
# The fields of `DecodingLimits`, and their names in the request.
_LIMITS = {
    "max_pixels": "max_pixels",
    "max_memory": "max_image_memory",
    "max_seconds": "max_image_seconds",
}


@dataclass
class Replay:
    """The intermediate results of one image, each computed on first use.

    Attributes:
        bundle: The model.
        source: The images that were scored.
        row: The row of the image, by column.
        request: The request in the manifest of the table.
        provider: The execution provider that the table was scored with.
    """

    bundle: ModelBundle
    source: ImageSource
    row: Facts
    request: Facts
    provider: str

    @cached_property
    def failure(self) -> str | None:
        """The failure code of the row; None for a scored row."""
        return (self.row["error"] or "").partition(":")[0] or None

    @cached_property
    def listed(self) -> ListedImage:
        """The file as it would be listed now."""
        path = self.row["image_path"]
        if self.source.kind == "archive":
            for member in find_members(self.source, [path]):
                return member
            raise ImageFailure(FailureCode.UNREADABLE, "no such member")
        try:
            place = self.source.place_of(path)
            facts = stat_of(place)
        except RequestError as error:
            raise ImageFailure(FailureCode.UNREADABLE, error.received) from error
        except OSError as error:
            is_link = error.errno in (errno.ENOENT, errno.ELOOP) and place.is_symlink()
            code = FailureCode.NOT_A_FILE if is_link else FailureCode.UNREADABLE
            raise ImageFailure(code, error.strerror or "no such file") from error
        if stat.S_ISDIR(facts.st_mode) and path.endswith("/"):
            raise ImageFailure(FailureCode.UNREADABLE, "a folder that could not be listed")
        if not stat.S_ISREG(facts.st_mode):
            raise ImageFailure(FailureCode.NOT_A_FILE, "not a regular file")
        in_list = self.source.kind == "list" and is_remote(place)
        size = UNKNOWN_SIZE if in_list else facts.st_size
        return ListedImage(path, size, facts.st_mtime_ns, facts.st_ino)

    @cached_property
    def data(self) -> bytes:
        """The bytes of the file, read as in a worker."""
        (content,) = reader_of_source(self.source)([self.listed])
        if isinstance(content, ImageFailure):
            raise content
        return content

    @cached_property
    def _decodings(self) -> dict[Decoding, FileFacts | DecodedImage | ImageFailure]:
        """All decodings of the file, made in a separate process that they may crash."""
        return decode_all_ways(self.data, self.bundle.image_spec(), self.limits)

    @property
    def file_facts(self) -> FileFacts:
        """The facts in the file's header."""
        return cast(FileFacts, self._decoding("header"))

    @property
    def decoded(self) -> DecodedImage:
        """The decoded image, as the model receives it."""
        return cast(DecodedImage, self._decoding("tensor"))

    @property
    def decoded_by_pillow(self) -> DecodedImage:
        """The image decoded by Pillow alone."""
        return cast(DecodedImage, self._decoding("pillow"))

    def _decoding(self, which: Decoding) -> FileFacts | DecodedImage:
        found = self._decodings[which]
        if isinstance(found, ImageFailure):
            raise found
        return found

    @cached_property
    def probabilities(self) -> Probabilities:
        """The probabilities of the ONNX file on the CPU, float32 [classes]."""
        session = load_session(self.bundle.onnx_path, sha256=self.bundle.onnx_sha256)
        batch = session.probabilities(self.decoded.pixels[np.newaxis])
        first: Probabilities = batch[0]
        if not are_probabilities(batch, session.multi_label)[0]:
            words = describe_invalid(first, session.multi_label)
            raise ImageFailure(FailureCode.INVALID_PREDICTION, words)
        return first

    @property
    def limits(self) -> DecodingLimits:
        """The decoding limits of the run."""
        recorded = {
            limit: self.request[name] for limit, name in _LIMITS.items() if self.request.get(name) is not None
        }
        return DecodingLimits(**recorded)

    def recorded(self, *names: str) -> Facts:
        """The columns of the row among `names` that are not null."""
        return {name: self.row[name] for name in names if self.row.get(name) is not None}


Findings = tuple[Facts, Facts]
"""The facts found by a stage, and the same facts in the row."""


def _model(replay: Replay) -> Findings:
    bundle = replay.bundle
    found = {
        "model": f"{bundle.name}@{bundle.version}",
        "precision": bundle.precision,
        "model_sha256": bundle.onnx_sha256,
        "preprocessing_sha256": bundle.sha256_of(PREPROCESSING_FILE),
    }
    row = replay.recorded("model_sha256")
    if wanted := replay.request.get("preprocessing_sha256"):
        row["preprocessing_sha256"] = wanted
    return found, row


def _listing(replay: Replay) -> Findings:
    return {"path": replay.listed.path, "size": replay.listed.size, "regular_file": True}, {}


def _bytes(replay: Replay) -> Findings:
    found = {"size": len(replay.data), "image_sha256": hashlib.sha256(replay.data).hexdigest()}
    return found, replay.recorded("image_sha256")


def _format(replay: Replay) -> Findings:
    try:
        return vars(replay.file_facts), {}
    except ImageFailure as failure:
        # Decoding either fails with the reason, or accepts a file that Pillow does not.
        _ = replay.decoded
        return {"format": None, "words": str(failure)}, {}


def _orientation(replay: Replay) -> Findings:
    try:
        found: Facts = {"width": replay.decoded.width, "height": replay.decoded.height}
    except ImageFailure as failure:
        if failure.code is FailureCode.TOO_MANY_PIXELS:
            raise
        return {"words": "unknown, because the pixels cannot be decoded"}, {}
    return found, replay.recorded("width", "height")


def _tensor(replay: Replay) -> Findings:
    pixels = replay.decoded.pixels
    found = {
        "shape": list(pixels.shape),
        "dtype": str(pixels.dtype),
        "min": int(pixels.min()),
        "max": int(pixels.max()),
        "mean": round(float(pixels.mean()), 3),
        "tensor_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "pillow_alone": _compare_with_pillow(replay),
    }
    return found, {}


def _compare_with_pillow(replay: Replay) -> str:
    pixels = replay.decoded.pixels
    try:
        other = replay.decoded_by_pillow.pixels
    except ImageFailure as failure:
        return f"fails ({failure})"
    difference = np.abs(pixels.astype(np.int16) - other)
    count = np.count_nonzero(difference)
    if not count:
        return "the same"
    return f"{count} of {pixels.size} values differ, by at most {difference.max()}"


def _onnx(replay: Replay) -> Findings:
    row = replay.recorded("label", "class_index", "probability", "top_labels", "top_probabilities")
    found = _prediction(replay, replay.probabilities, max(_SHOWN_CLASSES, len(row.get("top_labels", ()))))
    found["tolerance"] = TOLERANCE
    found["scored_with"] = replay.provider
    if "probability" in row:
        found["difference"] = abs(found["probability"] - row["probability"])
    return found, row


def _prediction(replay: Replay, probabilities: Probabilities, count: int) -> Facts:
    labels = replay.bundle.labels()
    order = [int(index) for index in np.argsort(-probabilities, kind="stable")[:count]]
    values = [float(probabilities[index]) for index in order]
    return {
        "label": labels[order[0]],
        "class_index": order[0],
        "probability": values[0],
        "top_labels": [labels[index] for index in order],
        "top_probabilities": values,
    }


def _keras(replay: Replay) -> Findings:
    if find_spec("tensorflow") is None or find_spec("keras") is None:
        return {"words": f"not installed here: {install_command('train')}"}, {}
    bundle = replay.bundle
    manifest = read_bundle_manifest(bundle.folder)
    if not (bundle.folder / MODEL_FILE).is_file() or MODEL_FILE not in manifest["files"]:
        return {"words": f"the bundle has no {MODEL_FILE}"}, {}
    sha256, wanted = bundle.sha256_of(MODEL_FILE), manifest["files"][MODEL_FILE]["sha256"]
    if sha256 != wanted:
        words = f"{MODEL_FILE} is not the file listed in the bundle's manifest"
        return {"words": words, "keras_sha256": sha256}, {"keras_sha256": wanted}
    from pixelmill.pipeline.training.prediction import predict_images

    pixels = replay.decoded.pixels[np.newaxis]
    try:
        probabilities = run_in_spawned_process(predict_images, bundle.folder / MODEL_FILE, pixels)[0]
    except PixelmillError as error:
        return {"words": str(error)}, {}
    found = _prediction(replay, probabilities, _SHOWN_CLASSES)
    # The largest difference in any class that the parity gate of the export accepts.
    found["tolerance"] = read_allowed_difference(bundle.folder)
    found["difference"] = float(np.abs(probabilities - replay.probabilities).max())
    onnx = _prediction(replay, replay.probabilities, _SHOWN_CLASSES)
    # A reduced precision gives different probabilities but should predict the same label.
    compared = ("label", "class_index", "probability")[: 3 if bundle.precision == "fp32" else 2]
    return found, {name: onnx[name] for name in compared}


# In order of execution; each raises `ImageFailure` where scoring would fail.
STAGES: dict[str, Callable[[Replay], Findings]] = {
    "model": _model,
    "listing": _listing,
    "bytes": _bytes,
    "format": _format,
    "orientation": _orientation,
    "tensor": _tensor,
    "onnx": _onnx,
    "keras": _keras,
}
# The stage in which each failure code occurs.
FAILS_IN: dict[str, str] = {
    FailureCode.BAD_PATH: "listing",
    FailureCode.NOT_A_FILE: "listing",
    FailureCode.UNREADABLE: "bytes",
    FailureCode.CHANGED: "bytes",
    FailureCode.TOO_LARGE: "bytes",
    FailureCode.EMPTY: "format",
    FailureCode.NOT_AN_IMAGE: "format",
    FailureCode.TOO_MANY_PIXELS: "orientation",
    FailureCode.CORRUPT: "tensor",
    FailureCode.UNSUPPORTED: "tensor",
    FailureCode.TOO_COSTLY: "tensor",
    FailureCode.WORKER_DIED: "tensor",
    FailureCode.INVALID_PREDICTION: "onnx",
}
