"""The fifth stage: an ONNX file that equals the model, in a bundle that other systems can take."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.artifacts import read_json, read_manifest, verify_files
from pipeline.config import ImageSpec
from pipeline.errors import RequestError
from pipeline.evaluation import BASELINE_FILE

ONNX_FILE = "model.onnx"
LABELS_FILE = "labels.json"
PREPROCESSING_FILE = "preprocessing.json"
PARITY_FILE = "parity.json"
RECIPE_FILE = "recipe.yaml"
README_FILE = "README.md"
_NEEDED_TO_SCORE = (ONNX_FILE, LABELS_FILE, PREPROCESSING_FILE, BASELINE_FILE)


@dataclass(frozen=True)
class ModelBundle:
    """A folder that holds a model and all that is needed to use and to trust it.

    Attributes:
        folder: Where it is.
        name: The model's name.
        version: Its number in the registry, from 1.
        onnx_sha256: The SHA-256 of `model.onnx`, in hexadecimal.
    """

    folder: Path
    name: str
    version: int
    onnx_sha256: str

    @property
    def onnx_path(self) -> Path:
        """The file that leaves the house."""
        return self.folder / ONNX_FILE

    def labels(self) -> tuple[str, ...]:
        """The class names in the order of the probabilities."""
        return tuple(read_json(self.folder / LABELS_FILE))

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
        """How the model answered on the test images; see `pipeline.drift`."""
        return read_json(self.folder / BASELINE_FILE)


def read_bundle_manifest(folder: Path) -> dict[str, Any]:
    """A bundle's manifest.

    Raises:
        RequestError: The folder is no bundle.
    """
    manifest = read_manifest(folder)
    if manifest.get("kind") != "model-bundle":
        raise RequestError(
            f"{folder} holds a {manifest.get('kind', 'thing without a kind')}",
            "a model bundle",
            "See the models there are with `pixelmill models list`.",
        )
    return manifest


def open_bundle(folder: Path) -> ModelBundle:
    """Open a bundle after verifying the files that scoring needs.

    Raises:
        RequestError: The folder is no bundle.
        WorkError: A file's bytes are not those the manifest lists.
    """
    manifest = read_bundle_manifest(folder)
    verify_files(folder, _NEEDED_TO_SCORE)
    return ModelBundle(folder, manifest["name"], manifest["version"], manifest["files"][ONNX_FILE]["sha256"])
