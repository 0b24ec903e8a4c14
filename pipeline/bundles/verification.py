"""Verifying a bundle: its files, its preprocessing and its predictions on every installed engine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from pixelmill.pipeline.artifacts import read_verified, require_only_listed, scratch_folder, verify_files
from pixelmill.pipeline.bundles import ONNX_FILE, ModelBundle
from pixelmill.pipeline.bundles.engine_runs import DEFAULT_SECONDS, run_engine
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.external_data import require_embedded_weights
from pixelmill.pipeline.bundles.golden import GoldenVectors, read_golden
from pixelmill.pipeline.bundles.model_files import ModelFile, model_files, read_allowed_differences
from pixelmill.pipeline.bundles.signing import is_signed, require_signature
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import GateRefused, RequestError, WorkError
from pixelmill.pipeline.extras import pip_install
from pixelmill.pipeline.images import ImageFailure, Pixels, decode
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.limited_process import LimitExceeded, Limits, run_limited

SignatureCheck = Literal["none", "not checked", "valid"]
"""What is known of the signature of a bundle."""
# The limits on decoding the golden images. The time limit that users choose is for engines only.
_DECODING = Limits(DEFAULT_SECONDS, 4 * 2**30)


@dataclass(frozen=True)
class EngineCheck:
    """The result of one engine with one file.

    Attributes:
        engine: The engine.
        version: The installed version.
        file: The file's path in the bundle.
        difference: The largest difference from the golden probabilities, in one batch or image by image;
            None if the engine returned no predictions.
        allowed: The largest difference that the bundle's `parity.json` allows.
        error: Why the engine returned no predictions; empty otherwise.
    """

    engine: EngineName
    version: str
    file: str
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
        signature: Whether the bundle is signed, and whether that was checked with a key.
        images: The number of golden images.
        changed_tensors: The golden images that decode to a different tensor here.
        engines: The result of each engine that was run, with each file that it reads.
        missing: Engines that read one of the files and are not installed.
    """

    files: int
    signature: SignatureCheck
    images: int
    changed_tensors: tuple[str, ...]
    engines: tuple[EngineCheck, ...]
    missing: tuple[EngineName, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.changed_tensors and all(check.agrees for check in self.engines)


def verify_bundle(
    bundle: ModelBundle,
    engines: Sequence[EngineName] = (),
    seconds: float = DEFAULT_SECONDS,
    key: Path | None = None,
) -> Verification:
    """Check a bundle's files against its manifest, and engines against its golden vectors.

    Engines load, and images are decoded from, the bytes that were hashed. Both run
    in processes with limits, because a malicious model may loop or allocate any amount of memory.

    Args:
        bundle: The bundle.
        engines: The engines to run; all installed ones when empty.
        seconds: The time limit of each engine.
        key: The public key that the bundle must be signed with, in PEM; None to check no signature.

    Raises:
        RequestError: A requested engine is not installed or reads none of the bundle's files, the bundle has
            no golden vectors, or the key cannot be read.
        GateRefused: The bundle is not signed with that key, or differs from what was signed.
        WorkError: A file does not match the manifest or is not listed in it, the model stores weights in
            another file, or the golden images cannot be decoded within the limits.
    """
    if key is not None:
        require_signature(bundle.folder, key)
    manifest = verify_files(bundle.folder)
    models = model_files(manifest["files"])
    wanted = _choose_engines(bundle, models, engines)
    missing = tuple(name for name in wanted if ENGINES[name].version() is None)
    require_only_listed(bundle.folder, manifest)
    read = partial(read_verified, bundle.folder, manifest=manifest)
    for name in manifest["files"]:
        if name.endswith(Path(ONNX_FILE).suffix):
            require_embedded_weights(read(name), str(bundle.folder / name))
    golden, allowed = read_golden(bundle.folder, read), read_allowed_differences(bundle.folder, models)
    checks: list[EngineCheck] = []
    for name, kind in models.items():
        runs = [engine for engine in kind.engines if engine in wanted and engine not in missing]
        if runs:
            with _copied(name, kind, read) as path:
                checks += [_check_engine(run, path, name, golden, allowed[name], seconds) for run in runs]
    return Verification(
        files=len(manifest["files"]),
        signature=_signature(bundle, key),
        images=len(golden.files),
        changed_tensors=_changed_tensors(bundle, golden, read),
        engines=tuple(checks),
        missing=missing,
    )


def _choose_engines(
    bundle: ModelBundle, models: Mapping[str, ModelFile], requested: Sequence[EngineName]
) -> tuple[EngineName, ...]:
    """The requested engines, or all that read a file of the bundle."""
    readers = {engine for kind in models.values() for engine in kind.engines}
    if not requested:
        return tuple(name for name in ENGINES if name in readers)
    for name in requested:
        if ENGINES[name].version() is None:
            raise RequestError(
                f"`engines` {name}, which is not installed",
                "an installed engine",
                f"Install it: {pip_install(ENGINES[name].packages[0])}",
            )
        if name not in readers:
            raise RequestError(
                f"`engines` {name}, which reads none of the files in {bundle.folder}",
                f"one of {', '.join(engine for engine in ENGINES if engine in readers)}",
                "Omit it, or export the model with a format that it reads.",
            )
    return tuple(dict.fromkeys(requested))


@contextmanager
def _copied(name: str, kind: ModelFile, read: Callable[[str], bytes]) -> Iterator[Path]:
    """A copy of the hashed bytes: the bundle's own file could change before an engine opens it."""
    with scratch_folder("verify") as folder:
        for file in (name, *kind.beside):
            (folder / Path(file).name).write_bytes(read(file))
        yield folder / Path(name).name


def _signature(bundle: ModelBundle, key: Path | None) -> SignatureCheck:
    if key is not None:
        return "valid"
    return "not checked" if is_signed(bundle.folder) else "none"


def require_agreement(verification: Verification) -> None:
    """Refuse a bundle that does not reproduce its golden vectors.

    Raises:
        GateRefused: An image decodes to a different tensor, or an engine returns different probabilities or
            none.
    """
    if verification.agrees:
        return
    engines = [
        ENGINES[check.engine].title + ("" if check.file == ONNX_FILE else f" with {check.file}")
        for check in verification.engines
        if not check.agrees
    ]
    allowed = max((check.allowed for check in verification.engines), default=0.0)
    raise GateRefused(
        f"different results from {', '.join([*verification.changed_tensors, *engines])}",
        f"the golden tensors, and probabilities within {allowed:.2g} of the golden ones",
        "Do not use the model there until the difference is understood.",
    )


def _changed_tensors(
    bundle: ModelBundle, golden: GoldenVectors, read: Callable[[str], bytes]
) -> tuple[str, ...]:
    names = [file.relative_to(bundle.folder).as_posix() for file in golden.files]
    contents = [read(name) for name in names]
    try:
        same = run_limited(_DECODING, _match_tensors, contents, golden.tensors, bundle.image_spec())
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
    name: EngineName, path: Path, file: str, golden: GoldenVectors, allowed: float, seconds: float
) -> EngineCheck:
    version, classes = ENGINES[name].version() or "", golden.probabilities.shape[1]
    predicted = run_engine(name, path, golden.tensors, classes, seconds)
    if isinstance(predicted, str):
        return EngineCheck(name, version, file, None, allowed, predicted)
    return EngineCheck(name, version, file, largest_difference(predicted, golden.probabilities), allowed)


def largest_difference(predicted: Probabilities, golden: Probabilities) -> float:
    """The largest difference of two probabilities; infinite if one is NaN."""
    # Every comparison with NaN is False.
    return float(np.nan_to_num(np.abs(predicted - golden), nan=np.inf).max())
