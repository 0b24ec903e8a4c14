"""Model bundles: folders with an ONNX file and everything needed to use and verify it.

`export` writes bundles; the registry, scoring and evaluation read them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelmill.pipeline.artifacts import read_json, read_manifest, sha256_of, verify_files
from pixelmill.pipeline.artifacts.manifests import FileFacts, malformed
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.labels import MULTI_LABEL
from pixelmill.pipeline.storage import LocalPath, Location

ONNX_FILE = "model.onnx"
Precision = Literal["fp32", "fp16", "int8"]
ONNX_FILES: dict[Precision, str] = {"fp32": ONNX_FILE, "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
EMBEDDINGS_FILE = "model.embeddings.onnx"
LABELS_FILE = "labels.json"
PREPROCESSING_FILE = "preprocessing.json"
PARITY_FILE = "parity.json"
METRICS_FILE = "metrics.json"
BASELINE_FILE = "baseline.json"
REPORT_FILE = "report/index.html"
INSIDE_FILE = "report/inside.html"
GATE_REPORT_FILE = "report/gate.html"
MODEL_FILE = "model.keras"
RECIPE_FILE = "recipe.yaml"
TRAINING_IMAGES_FILE = "training_images.parquet"
README_FILE = "README.md"
MODEL_CARD_FILE = "MODEL_CARD.md"
BOM_FILE = "bom.cdx.json"
_NEEDED_TO_SCORE = (LABELS_FILE, PREPROCESSING_FILE, BASELINE_FILE)
Thresholds = tuple[float | None, ...]
"""For each class, the lowest probability at which its prediction is accepted; None: it never is."""
_MAX_FILE_SIZE = 4 * 2**30  # Protobuf limits an ONNX file to 2 GiB.


class _BundleFile(FileFacts):
    size: Annotated[int, Field(ge=0, le=_MAX_FILE_SIZE)]


class _BundleManifest(BaseModel):
    """The fields of a bundle's manifest that are validated; others pass through unchecked."""

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
    embedding_size: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    licence: str | None = None
    run_id: str | None = None
    seed: int | None = None
    dataset_fingerprint: str | None = None
    recipe: dict[str, Any] | None = None
    export: dict[str, Any] | None = None


@dataclass(frozen=True)
class ModelBundle:
    """A folder that holds a model and everything needed to use and verify it.

    Attributes:
        folder: The bundle's folder.
        name: The model's name.
        version: The version number in the registry, starting at 1.
        onnx_sha256: The SHA-256 of the ONNX file, in hexadecimal.
        precision: The precision of the ONNX file to use.
        address: The remote bundle that `folder` is a copy of; None for a local bundle.
        embedding_size: The number of values of an embedding if the ONNX file to use gives them; else 0.
    """

    folder: LocalPath
    name: str
    version: int
    onnx_sha256: str
    precision: Precision = "fp32"
    address: str | None = None
    embedding_size: int = 0

    @property
    def onnx_path(self) -> Path:
        """The ONNX file of the selected precision, or the one with embeddings."""
        return self.folder / (EMBEDDINGS_FILE if self.embedding_size else ONNX_FILES[self.precision])

    def with_embeddings(self) -> "ModelBundle":
        """The same bundle, to be used with the ONNX file that also gives embeddings.

        Raises:
            RequestError: It has no such file, or another precision is selected.
            WorkError: The file does not match the manifest.
        """
        if self.precision != "fp32":
            raise RequestError(
                f"`embeddings` with precision {self.precision}",
                "precision fp32, in which embeddings are exported",
                "Leave out one of the two.",
            )
        manifest = read_bundle_manifest(self.folder)
        size = manifest.get("embedding_size")
        if EMBEDDINGS_FILE not in manifest["files"] or size is None:
            raise RequestError(
                f"`embeddings`, but {self.name}@{self.version} has no {EMBEDDINGS_FILE}",
                "a model that was exported with embeddings",
                "Retrain it with `export.embeddings=true`.",
            )
        verify_files(self.folder, (EMBEDDINGS_FILE,))
        sha256 = manifest["files"][EMBEDDINGS_FILE]["sha256"]
        return replace(self, onnx_sha256=sha256, embedding_size=size)

    def sha256_of(self, name: str) -> str:
        """The SHA-256 of one of the bundle's files."""
        return sha256_of(self.folder / name)

    def labels(self) -> tuple[str, ...]:
        """The class names in the order of the probabilities.

        Raises:
            RequestError: `labels.json` is malformed.
        """
        names = read_json(self.folder / LABELS_FILE)
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise RequestError(
                f"{self.folder / LABELS_FILE} does not contain a list of class names",
                "a bundle exported by pixelmill",
                "Export the model again.",
            )
        return tuple(names)

    @property
    def multi_label(self) -> bool:
        """Whether each class has a probability of its own, so that an image may have several labels."""
        return says_multi_label(read_json(self.folder / PREPROCESSING_FILE))

    def image_spec(self) -> ImageSpec:
        """The size, channels and resizing of the input tensor.

        Raises:
            RequestError: `preprocessing.json` is malformed.
        """
        path = self.folder / PREPROCESSING_FILE
        try:
            return ImageSpec.model_validate(read_json(path)["spec"])
        except (ValidationError, KeyError, TypeError) as error:
            raise RequestError(
                f"{path} does not give the input's size and channels",
                "a bundle exported by pixelmill",
                "Export the model again.",
            ) from error

    def decision_thresholds(self) -> Thresholds:
        """The decision threshold of each class, in the order of the labels; empty if the bundle has none.

        Raises:
            RequestError: `metrics.json` is malformed.
        """
        path = self.folder / METRICS_FILE
        try:
            return thresholds_in(read_json(path)) if path.is_file() else ()
        except (KeyError, TypeError, AttributeError) as error:
            raise RequestError(
                f"{path} has malformed thresholds",
                "a list with the threshold of each class",
                "Export the model again.",
            ) from error

    def baseline(self) -> Any:
        """The distribution of predictions on the test images; see `pixelmill.pipeline.drift`."""
        return read_json(self.folder / BASELINE_FILE)


def says_multi_label(preprocessing: object) -> bool:
    """Whether the content of a `preprocessing.json` says that an image may have several labels."""
    output = preprocessing.get("output") if isinstance(preprocessing, dict) else None
    return isinstance(output, dict) and output.get(MULTI_LABEL) is True


def thresholds_in(metrics: dict[str, Any] | None) -> Thresholds:
    """The decision thresholds in the content of a `metrics.json`; empty if it has none."""
    rows = (metrics or {}).get("thresholds", ())
    return tuple(None if row["threshold"] is None else float(row["threshold"]) for row in rows)


def read_bundle_manifest(folder: Location) -> dict[str, Any]:
    """Read a bundle's manifest and validate the fields that pixelmill uses.

    Raises:
        RequestError: The folder is not a bundle, or its manifest is malformed.
    """
    manifest = read_manifest(folder)
    if manifest.get("kind") != "model-bundle":
        raise RequestError(
            f"{folder} contains an artifact of kind {manifest.get('kind', 'unknown')}",
            "a model bundle",
            "List the registered models with `pixelmill models list`.",
        )
    try:
        _BundleManifest.model_validate(manifest)
    except ValidationError as error:
        raise malformed(folder, error) from error
    return manifest


def open_bundle(folder: Path, precision: Precision = "fp32") -> ModelBundle:
    """Open a bundle after verifying the files that scoring needs.

    Raises:
        RequestError: The folder is not a bundle, or has no model of that precision.
        WorkError: A file does not match the manifest.
    """
    manifest = read_bundle_manifest(folder)
    name = ONNX_FILES[precision]
    if name not in manifest["files"]:
        available = [kind for kind, file in ONNX_FILES.items() if file in manifest["files"]]
        raise RequestError(
            f"precision {precision}, but {folder} has no {name}",
            f"one of {', '.join(available)}",
            "Choose one of these, or export the model with that variant.",
        )
    verify_files(folder, (name, *_NEEDED_TO_SCORE))
    sha256 = manifest["files"][name]["sha256"]
    return ModelBundle(folder, manifest["name"], manifest["version"], sha256, precision)


def read_allowed_difference(folder: Path) -> float:
    """The largest difference from Keras's probabilities that a bundle's `parity.json` allows.

    Raises:
        RequestError: `parity.json` does not contain it.
    """
    content = read_json(folder / PARITY_FILE)
    allowed = content.get("allowed_difference") if isinstance(content, dict) else None
    if not isinstance(allowed, float) or not 0 < allowed <= 1:
        raise RequestError(
            f"{folder / PARITY_FILE} has an invalid allowed_difference ({str(allowed)[:20]})",
            "a number above 0 and up to 1",
            "Use a bundle exported by pixelmill, or export the model again.",
        )
    return allowed
