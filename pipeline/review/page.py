"""The review page: a file that works from a disk, without a server or any other host."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelmill.pipeline.artifacts import canonical_json
from pixelmill.pipeline.datasets.corrections import EXCLUDE
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.review import CORRECTIONS_FILE, ChosenImage
from pixelmill.pipeline.review.reasons import REASONS
from pixelmill.pipeline.templates import open_templates

_TEMPLATE = "page.html.jinja"
_SCRIPT = "page.js"
# What could end the element that holds the data, or a line of JavaScript.
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def render_page(model: str, class_names: Sequence[str], images: Sequence[ChosenImage]) -> str:
    """Render the page as HTML.

    Args:
        model: The model, `name@version`.
        class_names: The classes to choose from, in the order of the model.
        images: At least one image.
    """
    data: dict[str, Any] = {
        "classes": [{"name": name, "shown": printable(name)} for name in class_names],
        "exclude": EXCLUDE,
        "corrections": CORRECTIONS_FILE,
        "images": [_describe(image, class_names) for image in images],
    }
    # The same images have the same key, so that a page that is made again finds the answers given before.
    data["key"] = hashlib.sha256(canonical_json(data).encode()).hexdigest()
    script = Path(__file__).with_name(_SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        open_templates("pixelmill.pipeline.review")
        .get_template(_TEMPLATE)
        .render(
            model=printable(model),
            count=len(images),
            data=json.dumps(data).translate(_ESCAPES),
            script=script,
            script_hash=f"sha256-{digest}",
        )
    )


def _describe(image: ChosenImage, class_names: Sequence[str]) -> dict[str, Any]:
    row = image.row
    return {
        "sha256": row.sha256,
        "path": row.path,
        "shown": printable(row.path),
        "class": class_names.index(row.label),
        "probability": row.probability,
        "second": class_names.index(row.second_label) if row.second_label is not None else None,
        "reasons": [
            {"title": REASONS[name].title, "words": printable(words)} for name, words in image.reasons.items()
        ],
        "image": image.image,
        "thumbnail": image.thumbnail,
        "width": image.picture.width,
        "height": image.picture.height,
    }
