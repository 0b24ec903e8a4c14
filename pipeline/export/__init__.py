"""The fifth stage: an ONNX file that equals the model, in a bundle that other systems can take."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json, verify_files
from pipeline.config import ImageSpec
from pipeline.errors import RequestError

ONNX_FILE = "model.onnx"
LABELS_FILE = "labels.json"
PREPROCESSING_FILE = "preprocessing.json"
PARITY_FILE = "parity.json"
BASELINE_FILE = "baseline.json"
METRICS_FILE = "metrics.json"
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
        return ImageSpec.model_validate(read_json(self.folder / PREPROCESSING_FILE)["spec"])

    def baseline(self) -> Any:
        """How the model answered on the test images; see `pipeline.drift`."""
        return read_json(self.folder / BASELINE_FILE)


def open_bundle(folder: Path) -> ModelBundle:
    """Open a bundle after verifying the files that scoring needs.

    Raises:
        RequestError: The folder is no bundle.
        WorkError: A file's bytes are not those the manifest lists.
    """
    manifest = verify_files(folder, _NEEDED_TO_SCORE)
    if manifest.get("kind") != "model-bundle":
        raise RequestError(
            f"{folder} holds a {manifest.get('kind', 'thing without a kind')}",
            "a model bundle",
            "See the models there are with `pixelmill models list`.",
        )
    return ModelBundle(folder, manifest["name"], manifest["version"], manifest["files"][ONNX_FILE]["sha256"])
