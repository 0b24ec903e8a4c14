"""A model bundle: a folder with an ONNX file and all that is needed to use it and to trust it.

`export` makes bundles; registry, scoring and evaluation stand on what is here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelmill.pipeline.artifacts import read_json, read_manifest, sha256_of, verify_files
from pixelmill.pipeline.artifacts.manifests import FileFacts, malformed
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError

ONNX_FILE = "model.onnx"
Precision = Literal["fp32", "fp16", "int8"]
ONNX_FILES: dict[Precision, str] = {"fp32": ONNX_FILE, "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
LABELS_FILE = "labels.json"
PREPROCESSING_FILE = "preprocessing.json"
PARITY_FILE = "parity.json"
METRICS_FILE = "metrics.json"
BASELINE_FILE = "baseline.json"
REPORT_FILE = "report/index.html"
MODEL_FILE = "model.keras"
RECIPE_FILE = "recipe.yaml"
README_FILE = "README.md"
_NEEDED_TO_SCORE = (LABELS_FILE, PREPROCESSING_FILE, BASELINE_FILE)
_LARGEST_FILE = 4 * 2**30  # A file in ONNX's format, protobuf, has at most 2 GiB.


class _BundleFile(FileFacts):
    size: Annotated[int, Field(ge=0, le=_LARGEST_FILE)]


class _BundleManifest(BaseModel):
    """What a bundle's manifest holds, beside what is only handed on."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    version: Annotated[int, Field(ge=1, lt=10**9)]
    created_at: str
    git_commit: str | None
    files: dict[str, _BundleFile]
    opset: int | None = None
    ir_version: int | None = None
    runtime_version: str | None = None
    parameters: Annotated[int, Field(ge=0)] | None = None
    licence: str | None = None
    run_id: str | None = None
    seed: int | None = None
    dataset_fingerprint: str | None = None
    recipe: dict[str, Any] | None = None
    export: dict[str, Any] | None = None


@dataclass(frozen=True)
class ModelBundle:
    """A folder that holds a model and all that is needed to use and to trust it.

    Attributes:
        folder: Where it is.
        name: The model's name.
        version: Its number in the registry, from 1.
        onnx_sha256: The SHA-256 of the ONNX file, in hexadecimal.
        precision: Which of the bundle's ONNX files is meant.
        address: Where `folder` was fetched from, if it is a copy of a remote bundle.
    """

    folder: Path
    name: str
    version: int
    onnx_sha256: str
    precision: Precision = "fp32"
    address: str | None = None

    @property
    def onnx_path(self) -> Path:
        """The file that leaves the house."""
        return self.folder / ONNX_FILES[self.precision]

    def sha256_of(self, name: str) -> str:
        """The SHA-256 of one of the bundle's files."""
        return sha256_of(self.folder / name)

    def labels(self) -> tuple[str, ...]:
        """The class names in the order of the probabilities.

        Raises:
            RequestError: The file that holds them is malformed.
        """
        names = read_json(self.folder / LABELS_FILE)
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise RequestError(
                f"{self.folder / LABELS_FILE} holds no list of class names",
                "a bundle that pixelmill exported",
                "Export the model again.",
            )
        return tuple(names)

    def image_spec(self) -> ImageSpec:
        """The tensor an image must become."""
        path = self.folder / PREPROCESSING_FILE
        try:
            return ImageSpec.model_validate(read_json(path)["spec"])
        except (ValidationError, KeyError, TypeError) as error:
            raise RequestError(
                f"{path} does not tell the image's size and channels",
                "a bundle that pixelmill exported",
                "Export the model again.",
            ) from error

    def baseline(self) -> Any:
        """How the model answered on the test images; see `pixelmill.pipeline.drift`."""
        return read_json(self.folder / BASELINE_FILE)


def read_bundle_manifest(folder: Path) -> dict[str, Any]:
    """A bundle's manifest, of which what pixelmill uses is of the right types.

    Raises:
        RequestError: The folder is no bundle, or its manifest is malformed.
    """
    manifest = read_manifest(folder)
    if manifest.get("kind") != "model-bundle":
        raise RequestError(
            f"{folder} holds a {manifest.get('kind', 'thing without a kind')}",
            "a model bundle",
            "See the models there are with `pixelmill models list`.",
        )
    try:
        _BundleManifest.model_validate(manifest)
    except ValidationError as error:
        raise malformed(folder, error) from error
    return manifest


def open_bundle(folder: Path, precision: Precision = "fp32") -> ModelBundle:
    """Open a bundle after verifying the files that scoring needs.

    Raises:
        RequestError: The folder is no bundle, or has no model of that precision.
        WorkError: A file's bytes are not those the manifest lists.
    """
    manifest = read_bundle_manifest(folder)
    name = ONNX_FILES[precision]
    if name not in manifest["files"]:
        there = [kind for kind, file in ONNX_FILES.items() if file in manifest["files"]]
        raise RequestError(
            f"precision {precision}, and {folder} has no {name}",
            f"one of {', '.join(there)}",
            "Take one of these, or export the model with that variant.",
        )
    verify_files(folder, (name, *_NEEDED_TO_SCORE))
    sha256 = manifest["files"][name]["sha256"]
    return ModelBundle(folder, manifest["name"], manifest["version"], sha256, precision)


def read_allowed_difference(folder: Path) -> float:
    """What the probabilities of a bundle's model may differ from Keras's by, as its proof says.

    Raises:
        RequestError: The bundle's `parity.json` does not tell.
    """
    content = read_json(folder / PARITY_FILE)
    allowed = content.get("allowed_difference") if isinstance(content, dict) else None
    if not isinstance(allowed, float) or not 0 < allowed <= 1:
        raise RequestError(
            f"{folder / PARITY_FILE} tells no allowed difference ({str(allowed)[:20]})",
            "allowed_difference, over 0 and up to 1",
            "Take a bundle that pixelmill exported, or export the model again.",
        )
    return allowed
