"""A page in the bundle that classifies images in a browser, with onnxruntime-web and without a server.

`index.html` works from a local disk as well as from any web server. A page opened from a disk can load
scripts but not fetch files, so the model and the runtime's WebAssembly are embedded in scripts as base64.

An opaque PNG, WebP, BMP or GIF file gives exactly the tensor that `images` computes. So does a transparent
one if the canvas supports 16 bits per channel, as in Chromium 156; otherwise values may be off by one. So
does a JPEG file that is not downscaled during decoding. For one that is, the page takes the mean of each
block, which is what libjpeg's reduced transforms compute apart from rounding, clipping and chroma
subsampling. For scikit-learn's two photographs at qualities 85 and 95, and inputs of 32 to 200 pixels, the
difference was 0.2 levels on average and at most 7 in greyscale, 0.4 and 14 in colour.
"""

import base64
import gzip
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import read_json, sha256_of
from pixelmill.pipeline.bundles import ONNX_FILE
from pixelmill.pipeline.bundles.golden import read_golden
from pixelmill.pipeline.bundles.metadata import CLASS_NAMES, PREPROCESSING
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.images import DEFAULT_MAX_PIXELS, Pixels
from pixelmill.pipeline.inference import load_session

WEB_FOLDER = "web"
WEB_RUNTIME_PACKAGE, WEB_RUNTIME_VERSION = "onnxruntime-web", "1.30.0"
# Earlier releases load their WebAssembly from the module's location even if it is passed to them.
_OLDEST_RUNTIME, _FIRST_UNKNOWN_RUNTIME = (1, 26), (2, 0)
_RUNTIME_SCRIPT = "ort.wasm.min.js"
_RUNTIME_MODULE, _RUNTIME_BINARY = "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
_PAGE_SUFFIXES = frozenset((".html", ".css", ".js"))
_LARGEST_DRAWN_SIDE = 64


def find_web_runtime(wanted: Path | None = None) -> Path:
    """Find an installed onnxruntime-web.

    Args:
        wanted: The folder; when None, `node_modules/onnxruntime-web` in the current folder or a parent.

    Raises:
        RequestError: There is none, or it is another package, an unsupported version or incomplete.
    """
    folder = wanted or next(filter(Path.is_dir, _usual_places()), None)
    if folder is None:
        raise RequestError(
            f"no node_modules/{WEB_RUNTIME_PACKAGE} in {Path.cwd()} or its parents",
            "the runtime with which the page runs the model",
            _remedy("Install it"),
        )
    found = _describe_runtime(folder)
    if found is None or not _OLDEST_RUNTIME <= _numbers(found) < _FIRST_UNKNOWN_RUNTIME:
        oldest, unknown = (
            ".".join(map(str, version)) for version in (_OLDEST_RUNTIME, _FIRST_UNKNOWN_RUNTIME)
        )
        raise RequestError(
            f"{folder} with {WEB_RUNTIME_PACKAGE} {found}"
            if found
            else f"{folder}, which does not contain {WEB_RUNTIME_PACKAGE}",
            f"the npm package {WEB_RUNTIME_PACKAGE}, at least {oldest} and less than {unknown}",
            _remedy("Provide its folder, or install it"),
        )
    for name in (_RUNTIME_SCRIPT, _RUNTIME_MODULE, _RUNTIME_BINARY):
        if not (folder / "dist" / name).is_file():
            raise RequestError(
                f"{folder} without dist/{name}", "the complete npm package", _remedy("Install it again")
            )
    return folder


def write_web_page(bundle: Path, runtime: Path) -> None:
    """Write `web/` into a bundle after its other files and before its manifest.

    Args:
        bundle: The bundle's folder.
        runtime: The folder found by `find_web_runtime`.

    Raises:
        RequestError: The ONNX file cannot be loaded, or the bundle has no golden vectors.
    """
    folder = bundle / WEB_FOLDER
    folder.mkdir()
    for source in Path(__file__).parent.iterdir():
        if source.suffix in _PAGE_SUFFIXES:
            shutil.copyfile(source, folder / source.name)
    shutil.copyfile(runtime / "dist" / _RUNTIME_SCRIPT, folder / _RUNTIME_SCRIPT)
    _write_script(folder / "runtime.js", "RUNTIME", _runtime_facts(runtime))
    _write_script(folder / "model.js", "MODEL", _model_facts(bundle))


def _usual_places() -> Iterator[Path]:
    here = Path.cwd()
    return (folder / "node_modules" / WEB_RUNTIME_PACKAGE for folder in (here, *here.parents))


def _describe_runtime(folder: Path) -> str | None:
    """The version of the onnxruntime-web in a folder; None if it contains something else."""
    if not (folder / "package.json").is_file():
        return None
    facts = read_json(folder / "package.json")
    if not isinstance(facts, dict) or facts.get("name") != WEB_RUNTIME_PACKAGE:
        return None
    return facts.get("version")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _remedy(what: str) -> str:
    return f"{what}: npm install {WEB_RUNTIME_PACKAGE}@{WEB_RUNTIME_VERSION}."


def _runtime_facts(runtime: Path) -> dict[str, object]:
    binary = (runtime / "dist" / _RUNTIME_BINARY).read_bytes()
    return {
        "version": _describe_runtime(runtime),
        "module": _base64((runtime / "dist" / _RUNTIME_MODULE).read_bytes()),
        # Compression saves three quarters of the size; mtime=0 keeps the bytes reproducible.
        "binary": _base64(gzip.compress(binary, mtime=0)),
    }


def _model_facts(bundle: Path) -> dict[str, object]:
    model = bundle / ONNX_FILE
    metadata = load_session(model).metadata
    class_names, preprocessing = json.loads(metadata[CLASS_NAMES]), json.loads(metadata[PREPROCESSING])
    return {
        "name": metadata["name"],
        "version": metadata["version"],
        "sha256": sha256_of(model),
        "classNames": class_names,
        "preprocessing": preprocessing,
        "maxPixels": DEFAULT_MAX_PIXELS,
        "drawing": _style_of_drawings(bundle)
        if _takes_drawings(class_names, preprocessing["input"])
        else None,
        "onnx": _base64(model.read_bytes()),
    }


def _takes_drawings(class_names: Sequence[str], tensor: dict[str, int]) -> bool:
    is_small = max(tensor["height"], tensor["width"]) <= _LARGEST_DRAWN_SIDE
    return is_small and tensor["channels"] == 1 and sorted(class_names) == list("0123456789")


def _style_of_drawings(bundle: Path) -> dict[str, float]:
    """The background of the model's own images, and the fraction of the longer side that a digit fills."""
    golden = read_golden(bundle)
    plain = next(
        tensor for file, tensor in zip(golden.files, golden.tensors, strict=True) if file.stem == "plain"
    )
    image: Pixels = plain[..., 0]
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    background = 255 if np.median(border) > 127 else 0
    inked = np.argwhere(np.abs(image.astype(np.int16) - background) > 64)
    shares = (np.ptp(inked, axis=0) + 1) / image.shape if len(inked) else np.ones(2)
    return {"background": background, "extent": float(shares.max())}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _write_script(path: Path, name: str, value: object) -> None:
    # ASCII-only JSON is valid JavaScript for any class name.
    path.write_text(f'"use strict";\nconst {name} = {json.dumps(value)};\n', encoding="ascii")
