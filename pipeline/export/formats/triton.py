"""A model repository for Triton Inference Server."""

import json
import re
import shutil
from pathlib import Path

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import LABELS_FILE, ONNX_FILE, PREPROCESSING_FILE
from pixelmill.pipeline.bundles.model_files import TRITON_FOLDER
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.inference import load_session
from pixelmill.pipeline.templates import open_templates

_TEMPLATE = "config.pbtxt.jinja"
_LABELS = "labels.txt"
_MAX_BATCH_SIZE = 64


def write_triton(folder: Path) -> None:
    """Write `triton/NAME/config.pbtxt`, `labels.txt`, and a copy of `model.onnx` in `VERSION/`.

    Name and version are those in the metadata of `model.onnx`. `triton/` is a repository that Triton can
    serve, and its folders can be copied into another one, where a new version lies beside the old ones.

    Raises:
        RequestError: The name cannot be that of a folder.
    """
    metadata = load_session(folder / ONNX_FILE).metadata
    name, version = metadata["name"], metadata["version"]
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII) or not version.isdecimal():
        raise RequestError(
            f"a model with the name {name!r} and the version {version!r}, for a Triton repository",
            "a name of letters, digits, _ and -, and a number",
            "Export the model again with another `name`.",
        )
    target = folder / TRITON_FOLDER / name
    (target / version).mkdir(parents=True)
    shutil.copyfile(folder / ONNX_FILE, target / version / ONNX_FILE)
    labels = read_json(folder / LABELS_FILE)
    # Triton takes one label from each line.
    (target / _LABELS).write_text(
        "".join(" ".join(label.splitlines()) + "\n" for label in labels), encoding="utf-8"
    )
    environment = open_templates("pixelmill.pipeline.export.formats", autoescape=False)
    config = environment.get_template(_TEMPLATE).render(
        name=json.dumps(name),
        image=read_json(folder / PREPROCESSING_FILE)["input"],
        classes=len(labels),
        labels_file=json.dumps(_LABELS),
        max_batch_size=_MAX_BATCH_SIZE,
    )
    (target / "config.pbtxt").write_text(config.rstrip() + "\n", encoding="utf-8")
