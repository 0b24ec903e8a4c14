"""Replaying a bundle's golden vectors: on the engines installed here, and from the image files on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import read_verified, require_only_listed, scratch_folder, verify_files
from pixelmill.pipeline.bundles import ONNX_FILE, ONNX_FILES, ModelBundle, read_allowed_difference
from pixelmill.pipeline.bundles.engine_runs import DEFAULT_SECONDS, run_engine
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.external_data import require_whole
from pixelmill.pipeline.bundles.golden import GoldenVectors, read_golden
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import GateRefused, RequestError, WorkError
from pixelmill.pipeline.images import ImageFailure, Pixels, decode
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.limited_process import LimitExceeded, Limits, run_limited

# What decoding the golden images may allocate, in bytes.
_MEMORY = 4 * 2**30


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


def verify_bundle(
    bundle: ModelBundle, engines: Sequence[EngineName] = (), seconds: float = DEFAULT_SECONDS
) -> Verification:
    """Hold a bundle's files against its manifest, and its golden vectors against engines.

    Each file is read once: what engines load and images are decoded from are the bytes that were hashed.
    Both happen in processes with limits, because a model may loop or ask for any amount of memory.

    Args:
        bundle: The bundle.
        engines: Those to ask; all that are installed when empty.
        seconds: How long each engine may take.

    Raises:
        RequestError: An engine asked for is not installed, or the bundle has no golden vectors.
        WorkError: A file's bytes are not those the manifest lists, a file is not listed, the model keeps
            weights elsewhere, or the golden images cannot be decoded within the limits.
    """
    wanted = tuple(dict.fromkeys(engines)) or tuple(ENGINES)
    missing = tuple(name for name in wanted if ENGINES[name].version() is None)
    if engines and missing:
        package = ENGINES[missing[0]].packages[0]
        raise RequestError(
            f"`engines` {missing[0]}, which is not installed",
            "an engine that is",
            f"Install it: pip install {package}.",
        )
    manifest = verify_files(bundle.folder)
    require_only_listed(bundle.folder, manifest)
    read = partial(read_verified, bundle.folder, manifest=manifest)
    models = {name: read(name) for name in ONNX_FILES.values() if name in manifest["files"]}
    for name, content in models.items():
        require_whole(content, str(bundle.folder / name))
    golden, allowed = read_golden(bundle.folder, read), read_allowed_difference(bundle.folder)
    with scratch_folder("verify") as folder:
        # Not the bundle's own file, which may be another by the time an engine opens it.
        (folder / ONNX_FILE).write_bytes(models[ONNX_FILE])
        checks = tuple(
            _ask(name, folder / ONNX_FILE, golden, allowed, seconds) for name in wanted if name not in missing
        )
    return Verification(
        files=len(manifest["files"]),
        images=len(golden.files),
        changed_tensors=_changed_tensors(bundle, golden, read, Limits(seconds, _MEMORY)),
        engines=checks,
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


def _changed_tensors(
    bundle: ModelBundle, golden: GoldenVectors, read: Callable[[str], bytes], limits: Limits
) -> tuple[str, ...]:
    names = [file.relative_to(bundle.folder).as_posix() for file in golden.files]
    contents = [read(name) for name in names]
    try:
        same = run_limited(limits, _become, contents, golden.tensors, bundle.image_spec())
    except LimitExceeded as error:
        raise WorkError(
            f"the golden images of {bundle.folder} cannot be decoded: {error.received}",
            "images of the model's size",
            "Get the bundle from its source again, or export the model once more.",
        ) from error
    return tuple(file.name for file, is_same in zip(golden.files, same, strict=True) if not is_same)


def _become(contents: Sequence[bytes], tensors: Pixels, spec: ImageSpec) -> list[bool]:
    """Which image files become the tensors that belong to them."""
    return [_becomes(content, tensor, spec) for content, tensor in zip(contents, tensors, strict=True)]


def _becomes(content: bytes, tensor: Pixels, spec: ImageSpec) -> bool:
    try:
        return np.array_equal(decode(content, spec).pixels, tensor)
    except (ImageFailure, MemoryError):
        return False


def _ask(name: EngineName, path: Path, golden: GoldenVectors, allowed: float, seconds: float) -> EngineCheck:
    found, classes = ENGINES[name].version() or "", golden.probabilities.shape[1]
    predicted = run_engine(name, path, golden.tensors, classes, seconds)
    if isinstance(predicted, str):
        return EngineCheck(name, found, None, allowed, predicted)
    return EngineCheck(name, found, _difference(predicted, golden.probabilities), allowed)


def _difference(answer: Probabilities, golden: Probabilities) -> float:
    # NaN compares as False everywhere; as infinity it cannot slip through.
    return float(np.nan_to_num(np.abs(answer - golden), nan=np.inf).max())
