"""Replaying a bundle's golden vectors: on the engines installed here, and from the image files on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifacts import verify_files
from pipeline.config import ImageSpec
from pipeline.engines import ENGINES, EngineName
from pipeline.errors import GateRefused, RequestError
from pipeline.export import ONNX_FILE, ModelBundle
from pipeline.export.golden import GoldenVectors, read_golden
from pipeline.export.parity import read_allowed_difference
from pipeline.images import ImageFailure, Pixels, decode
from pipeline.inference import Probabilities


@dataclass(frozen=True)
class EngineCheck:
    """How one engine did.

    Attributes:
        engine: Its name.
        version: As installed here.
        difference: The largest difference from the golden probabilities, in one batch and one by one;
            None where the engine gave no such answer.
        allowed: What it may be at most, as the bundle's proof says.
        trouble: Why it gave none.
    """

    engine: EngineName
    version: str
    difference: float | None
    allowed: float
    trouble: str = ""

    @property
    def agrees(self) -> bool:
        """Whether its answers are the golden ones."""
        return self.difference is not None and self.difference <= self.allowed


@dataclass(frozen=True)
class Verification:
    """What a bundle was found to be.

    Attributes:
        files: How many files have the bytes that the manifest lists.
        images: How many golden images there are.
        changed_tensors: The golden images that become another tensor here.
        engines: Every engine that was asked.
        missing: Engines that are not installed here.
    """

    files: int
    images: int
    changed_tensors: tuple[str, ...]
    engines: tuple[EngineCheck, ...]
    missing: tuple[EngineName, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.changed_tensors and all(check.agrees for check in self.engines)


def verify_bundle(bundle: ModelBundle, engines: Sequence[EngineName] = ()) -> Verification:
    """Hold a bundle's files against its manifest, and its golden vectors against engines.

    Args:
        bundle: The bundle.
        engines: Those to ask; all that are installed when empty.

    Raises:
        RequestError: An engine asked for is not installed, or the bundle has no golden vectors.
        WorkError: A file's bytes are not those the manifest lists.
    """
    wanted = tuple(dict.fromkeys(engines)) or tuple(ENGINES)
    missing = tuple(name for name in wanted if ENGINES[name].version() is None)
    if engines and missing:
        package = ENGINES[missing[0]].packages[0]
        raise RequestError(
            f"--engine {missing[0]}, which is not installed",
            "an engine that is",
            f"Install it: pip install {package}.",
        )
    manifest = verify_files(bundle.folder)
    golden, allowed = read_golden(bundle.folder), read_allowed_difference(bundle.folder)
    return Verification(
        files=len(manifest["files"]),
        images=len(golden.files),
        changed_tensors=_changed_tensors(bundle, golden),
        engines=tuple(
            _ask(name, bundle.folder / ONNX_FILE, golden, allowed) for name in wanted if name not in missing
        ),
        missing=missing,
    )


def require_agreement(verification: Verification) -> None:
    """Refuse a bundle that does not give what its golden vectors say.

    Raises:
        GateRefused: An image becomes another tensor, or an engine gives other probabilities or none.
    """
    if verification.agrees:
        return
    engines = [ENGINES[check.engine].title for check in verification.engines if not check.agrees]
    allowed = max((check.allowed for check in verification.engines), default=0.0)
    raise GateRefused(
        f"other answers from {', '.join([*verification.changed_tensors, *engines])}",
        f"the golden tensors, and probabilities within {allowed:.2g} of the golden ones",
        "Do not use the model there before the difference is understood.",
    )


def _changed_tensors(bundle: ModelBundle, golden: GoldenVectors) -> tuple[str, ...]:
    spec = bundle.image_spec()
    return tuple(
        file.name
        for file, tensor in zip(golden.files, golden.tensors, strict=True)
        if not _becomes(file, tensor, spec)
    )


def _becomes(file: Path, tensor: Pixels, spec: ImageSpec) -> bool:
    try:
        return np.array_equal(decode(file.read_bytes(), spec).pixels, tensor)
    except ImageFailure:
        return False


def _ask(name: EngineName, path: Path, golden: GoldenVectors, allowed: float) -> EngineCheck:
    engine, found = ENGINES[name], ENGINES[name].version() or ""
    try:
        answer_to = engine.load(path)
        together = answer_to(golden.tensors)
        alone = [answer_to(tensor[np.newaxis]) for tensor in golden.tensors]
    except Exception as error:  # noqa: BLE001  # What an engine that cannot run the file raises is its own.
        words = " ".join(str(error).split()) or type(error).__name__
        return EngineCheck(name, found, None, allowed, words)
    answers = (together, np.concatenate(alone))
    if any(answer.shape != golden.probabilities.shape for answer in answers):
        return EngineCheck(name, found, None, allowed, f"it gave an array of shape {together.shape}")
    difference = max(_difference(answer, golden.probabilities) for answer in answers)
    return EngineCheck(name, found, difference, allowed)


def _difference(answer: Probabilities, golden: Probabilities) -> float:
    # NaN compares as False everywhere; as infinity it cannot slip through.
    return float(np.nan_to_num(np.abs(answer - golden), nan=np.inf).max())
