"""The page inside a bundle, for the team that receives it."""

from collections.abc import Mapping
from typing import Any

from pipeline.evaluation.summary import escape_markdown
from pipeline.export.runtimes import choose_version
from pipeline.export.source import ExportSource

_PAGE = """\
# {name}, version {version}

An image classifier as an ONNX file. Trained by pixelmill; nothing of pixelmill or Keras is needed to run it.

| | |
|---|---|
| file | `model.onnx`, opset {opset}, standard ops only |
| in | `image`: uint8 [batch, {height}, {width}, {channels}], {order}, 0 to 255, batch of any size |
| out | `probabilities`: float32 [batch, {classes}], each row adds up to 1 |
| classes | {names} |
| test accuracy | {accuracy:.4f} on {images:,} images, loss {loss:.4f} |
| against Keras | {flips} of {compared:,} labels differ, largest difference {difference:.1e} |
| licence | {licence} |

`preprocessing.json` says how a file becomes the tensor, step by step. `labels.json` holds all class names in
the order of the probabilities; both are in the ONNX file's metadata, too. `golden/` holds image files, the
tensor each must become (`tensors.npy`) and the probabilities each must give (`probabilities.npy`), in the
order of `golden.json`; `test_data_set_0/` the same for a runtime's own tests, in the form of the ONNX model
zoo. `report/index.html` shows how it fares.

```python
import json
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
image = ImageOps.exif_transpose(Image.open("image.png")).convert("{mode}")
image = {resize}
tensor = np.asarray(image, np.uint8).reshape(1, {height}, {width}, {channels})
(probabilities,) = session.run(["probabilities"], {{"image": tensor}})
print(names[probabilities[0].argmax()], probabilities[0].max())
```

The example is whole for opaque images of 8 bits a sample; `preprocessing.json` says what to do with
transparency and 16 bits.
"""
_NAMES_SHOWN = 20
_RESIZE = {
    "stretch": "image.resize(({width}, {height}), Image.Resampling.BILINEAR)",
    "crop": "ImageOps.fit(image, ({width}, {height}), Image.Resampling.BILINEAR)",
    "pad": "ImageOps.pad(image, ({width}, {height}), Image.Resampling.BILINEAR, color={color})",
}


def render_readme(source: ExportSource, test: Mapping[str, Any], parity: Any) -> str:
    """The bundle's `README.md`."""
    shown = ", ".join(escape_markdown(name) for name in source.class_names[:_NAMES_SHOWN])
    more = len(source.class_names) - _NAMES_SHOWN
    image = source.image
    color = (image.background,) * 3 if image.channels == 3 else image.background
    resize = _RESIZE[image.resize].format(width=image.width, height=image.height, color=color)
    return _PAGE.format(
        name=source.name,
        version=source.version,
        opset=choose_version(source.export).opset,
        height=image.height,
        width=image.width,
        channels=image.channels,
        order="RGB" if image.channels == 3 else "grey",
        mode="RGB" if image.channels == 3 else "L",
        resize=resize,
        classes=len(source.class_names),
        names=f"{shown} and {more} more" if more > 0 else shown,
        accuracy=test["accuracy"] or 0,
        images=test["images"],
        loss=test["loss"] or 0,
        flips=parity.label_flips,
        compared=parity.images,
        difference=parity.max_abs_difference,
        licence=source.export.licence,
    )
