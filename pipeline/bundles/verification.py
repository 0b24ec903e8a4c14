"""Verifying a bundle: its files, its preprocessing and its predictions on every installed engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import read_verified, require_only_listed, scratch_folder, verify_files
from pixelmill.pipeline.bundles import ONNX_FILE, ONNX_FILES, ModelBundle, read_allowed_difference
from pixelmill.pipeline.bundles.engine_runs import DEFAULT_SECONDS, run_engine
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.external_data import require_embedded_weights
from pixelmill.pipeline.bundles.golden import GoldenVectors, read_golden
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import GateRefused, RequestError, WorkError
from pixelmill.pipeline.extras import pip_install
from pixelmill.pipeline.images import ImageFailure, Pixels, decode
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.limited_process import LimitExceeded, Limits, run_limited

# Decoding the golden images may allocate this many bytes.
_MEMORY = 4 * 2**30


@dataclass(frozen=True)
class EngineCheck:
    """The result of one engine.

    Attributes:
        engine: The engine.
        version: The installed version.
        difference: The largest difference from the golden probabilities, in one batch or image by image;
            None if the engine returned no predictions.
        allowed: The largest difference that the bundle's `parity.json` allows.
        error: Why the engine returned no predictions; empty otherwise.
    """

    engine: EngineName
    version: str
    difference: float | None
    allowed: float
    error: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the predictions match the golden probabilities."""
        return self.difference is not None and self.difference <= self.allowed


@dataclass(frozen=True)
class Verification:
    """The result of verifying a bundle.

    Attributes:
        files: The number of files, all of which match the manifest.
        images: The number of golden images.
        changed_tensors: The golden images that decode to a different tensor here.
        engines: The result of each engine that was run.
        missing: Engines that are not installed.
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


def verify_bundle(
    bundle: ModelBundle, engines: Sequence[EngineName] = (), seconds: float = DEFAULT_SECONDS
) -> Verification:
    """Check a bundle's files against its manifest, and engines against its golden vectors.

    Each file is read once: engines load, and images are decoded from, the bytes that were hashed. Both run
    in processes with limits, because a malicious model may loop or allocate any amount of memory.

    Args:
        bundle: The bundle.
        engines: The engines to run; all installed ones when empty.
        seconds: The time limit of each engine.

    Raises:
        RequestError: A requested engine is not installed, or the bundle has no golden vectors.
        WorkError: A file does not match the manifest or is not listed in it, the model stores weights in
            another file, or the golden images cannot be decoded within the limits.
    """
    wanted = tuple(dict.fromkeys(engines)) or tuple(ENGINES)
    missing = tuple(name for name in wanted if ENGINES[name].version() is None)
    if engines and missing:
        package = ENGINES[missing[0]].packages[0]
        raise RequestError(
            f"`engines` {missing[0]}, which is not installed",
            "an installed engine",
            f"Install it: {pip_install(package)}",
        )
    manifest = verify_files(bundle.folder)
    require_only_listed(bundle.folder, manifest)
    read = partial(read_verified, bundle.folder, manifest=manifest)
    models = {name: read(name) for name in ONNX_FILES.values() if name in manifest["files"]}
    for name, content in models.items():
        require_embedded_weights(content, str(bundle.folder / name))
    golden, allowed = read_golden(bundle.folder, read), read_allowed_difference(bundle.folder)
    with scratch_folder("verify") as folder:
        # A copy of the hashed bytes: the bundle's own file could change before an engine opens it.
        (folder / ONNX_FILE).write_bytes(models[ONNX_FILE])
        checks = tuple(
            _check_engine(name, folder / ONNX_FILE, golden, allowed, seconds)
            for name in wanted
            if name not in missing
        )
    return Verification(
        files=len(manifest["files"]),
        images=len(golden.files),
        changed_tensors=_changed_tensors(bundle, golden, read, Limits(seconds, _MEMORY)),
        engines=checks,
        missing=missing,
    )


def require_agreement(verification: Verification) -> None:
    """Refuse a bundle that does not reproduce its golden vectors.

    Raises:
        GateRefused: An image decodes to a different tensor, or an engine returns different probabilities or
            none.
    """
    if verification.agrees:
        return
    engines = [ENGINES[check.engine].title for check in verification.engines if not check.agrees]
    allowed = max((check.allowed for check in verification.engines), default=0.0)
    raise GateRefused(
        f"different results from {', '.join([*verification.changed_tensors, *engines])}",
        f"the golden tensors, and probabilities within {allowed:.2g} of the golden ones",
        "Do not use the model there until the difference is understood.",
    )


def _changed_tensors(
    bundle: ModelBundle, golden: GoldenVectors, read: Callable[[str], bytes], limits: Limits
) -> tuple[str, ...]:
    names = [file.relative_to(bundle.folder).as_posix() for file in golden.files]
    contents = [read(name) for name in names]
    try:
        same = run_limited(limits, _match_tensors, contents, golden.tensors, bundle.image_spec())
    except LimitExceeded as error:
        raise WorkError(
            f"the golden images of {bundle.folder} cannot be decoded: {error.received}",
            "golden images that decode within the limits",
            "Get the bundle from its source again, or export the model again.",
        ) from error
    return tuple(file.name for file, is_same in zip(golden.files, same, strict=True) if not is_same)


def _match_tensors(contents: Sequence[bytes], tensors: Pixels, spec: ImageSpec) -> list[bool]:
    """Whether each image file decodes to its golden tensor."""
    return [_matches(content, tensor, spec) for content, tensor in zip(contents, tensors, strict=True)]


def _matches(content: bytes, tensor: Pixels, spec: ImageSpec) -> bool:
    try:
        return np.array_equal(decode(content, spec).pixels, tensor)
    except (ImageFailure, MemoryError):
        return False


def _check_engine(
    name: EngineName, path: Path, golden: GoldenVectors, allowed: float, seconds: float
) -> EngineCheck:
    version, classes = ENGINES[name].version() or "", golden.probabilities.shape[1]
    predicted = run_engine(name, path, golden.tensors, classes, seconds)
    if isinstance(predicted, str):
        return EngineCheck(name, version, None, allowed, predicted)
    return EngineCheck(name, version, _difference(predicted, golden.probabilities), allowed)


def _difference(predicted: Probabilities, golden: Probabilities) -> float:
    # NaN counts as an infinite difference, because every comparison with NaN is False.
    return float(np.nan_to_num(np.abs(predicted - golden), nan=np.inf).max())
