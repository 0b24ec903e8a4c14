"""The steps from a file's bytes to the input tensor, described precisely enough to reimplement them."""

import hashlib

from pixelmill.pipeline.artifacts import canonical_json
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import FORMATS
from pixelmill.pipeline.labels import MULTI_LABEL

# W x H is the tensor's size, w x h the image's; `round` rounds halves to even.
_GEOMETRY = {
    "stretch": "the whole image becomes W x H",
    "crop": "the box of width min(w, h * W / H) and height min(h, w * H / W) in the image's middle, not "
    "rounded, becomes W x H",
    "pad": "the whole image becomes W x max(1, round(h / w * W)) where w / h > W / H, else "
    "max(1, round(w / h * H)) x H, and lies in a W x H image of the padding, from the left by "
    "round((W - its width) / 2) and from the top by round((H - its height) / 2)",
}
# The same for every model.
_DECODING: list[dict[str, object]] = [
    {
        "step": "decode",
        "formats": list(FORMATS),
        "by": "content",
        "frame": 0,
        "canvas": "what the first frame of a GIF or WebP file does not cover is transparent",
        "tiff_page": "the first that is no reduced copy and no mask (tags 254, 255), else the first",
        "jpeg": {
            "decoder": "libjpeg-turbo: integer DCT, fancy upsampling",
            "shrunk_by": "the largest f of 1, 2, 4, 8 for which floor(width / f) and "
            "floor(height / f), as displayed, are at least the tensor's width and height; else 1",
            "to": "ceil(width / f) x ceil(height / f), while it is decoded",
        },
    },
    {"step": "turn", "by": "EXIF orientation, tag 274"},
    {
        "step": "reduce_to_8_bits",
        "how": "the upper byte of each 16-bit sample",
        "other_depths": "the upper 8 of 9 to 15 bits; below 8 bits round(v * 255 / (2^bits - 1))",
    },
]


def describe_preprocessing(spec: ImageSpec, multi_label: bool = False) -> dict[str, object]:
    """Every step from file bytes to the input tensor, for implementations in other languages.

    Args:
        spec: The model's input.
        multi_label: Whether each class has a probability of its own; this is then said of the output.
    """
    return {
        "input": {
            "name": "image",
            "dtype": "uint8",
            "layout": "NHWC",
            "height": spec.height,
            "width": spec.width,
            "channels": spec.channels,
            "channel_order": "RGB" if spec.channels == 3 else "grey",
            "range": [0, 255],
        },
        "steps": [*_DECODING, *_conversion(spec)],
        "scaling": "none: the graph takes uint8 and scales inside",
        **({"output": {"name": "probabilities", MULTI_LABEL: True}} if multi_label else {}),
        "spec": spec.preprocessing(),
    }


def _conversion(spec: ImageSpec) -> list[dict[str, object]]:
    """The steps from decoded pixels to the tensor."""
    return [
        {
            "step": "flatten_transparency",
            "background": [spec.background] * 3,
            "transparent_level": "compared at the file's own depth",
            "opaque_when": "a BMP file's alpha, or a TIFF sample that nothing describes, is 0 everywhere",
        },
        {
            "step": "convert",
            "to": "RGB" if spec.channels == 3 else "L",
            "grey": "(19595 R + 38470 G + 7471 B + 32768) >> 16",
        },
        {
            "step": "resize",
            "how": spec.resize,
            "height": spec.height,
            "width": spec.width,
            "filter": "triangle, widened by the scale when shrinking (Pillow's BILINEAR)",
            "passes": "the width, then the height, each rounded to whole levels; the height first where "
            "h - H is above 0 and above 2 (w - W) (Pillow from 13 on)",
            "geometry": _GEOMETRY[spec.resize],
            "padding": [spec.background] * spec.channels if spec.resize == "pad" else None,
            "skipped_when": "the size is right already",
        },
    ]


def preprocessing_sha256(description: dict[str, object]) -> str:
    """The hash of a preprocessing description, as stored in the ONNX file's metadata."""
    return hashlib.sha256(canonical_json(description).encode()).hexdigest()
