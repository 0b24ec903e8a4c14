"""A folder with every kind of unusual file: one correct row for each, and no crashed worker."""

import csv
import hashlib
import io
import logging
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image, ImageOps

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.predictions import CSV_FILE, read_predictions
from pixelmill.pipeline.predictions.parts import read_part
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest
from pixelmill.pipeline.scoring.listing import unescape
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.scoring.shards import find_part, growing_limits, write_shards
from pixelmill.pipeline.scoring.worker.worker import Worker
from pixelmill.pipeline.storage import local_path
from tests.conftest import write_images

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("odd-files")

DEEP = "/".join(letter * 120 for letter in "abc") + "/deep.png"
LONG = "n" * 246 + ".png"
# The displayed size, by `image_path` in the table.
SCORED = {
    "%2541.png": (8, 8),
    "%FF%FE.png": (8, 8),
    "1.png": (1, 1),
    "50% off.png": (8, 8),
    "=1+1.png": (8, 8),
    "UPPER.PNG": (8, 8),
    "album.png/inside.png": (8, 8),
    "alpha.png": (9, 9),
    "animated.gif": (10, 9),
    "cmyk.jpg": (12, 9),
    "link.png": (8, 8),
    "new%0Aline.png": (8, 8),
    "one-bit.png": (16, 16),
    "palette.png": (9, 9),
    "picture.bmp": (11, 9),
    "picture.tiff": (11, 9),
    "picture.webp": (11, 9),
    "plain.png": (8, 8),
    "png.jpg": (13, 10),
    "shrunk.jpg": (40, 20),
    "sixteen-bit.png": (10, 9),
    "small.jpg": (3, 5),
    "turned.jpg": (9, 12),
    "duplicate.png": (8, 8),
    "ünï/čødé 🙂.png": (8, 8),
    DEEP: (8, 8),
    LONG: (8, 8),
}
FAILED = {
    "bomb.jpg": "too_many_pixels: 60000 x 60000 pixels",
    "bomb.png": "too_many_pixels: 60000 x 60000 pixels",
    "cut.png": "corrupt: ",
    "dangling.png": "not_a_file: a broken link",
    "device.png": "not_a_file: a device",
    "empty.png": "empty: ",
    "itself.png": "not_a_file: a link to itself",
    "pipe.png": "not_a_file: a pipe",
    "socket.png": "not_a_file: a socket",
    "sparse.png": "too_large: ",
    "text.jpg": "not_an_image: ",
    "truncated.jpg": "corrupt: ",
}


def pixels(seed: int, width: int, height: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG file whose header declares far more pixels than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rest = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rest


def jpeg_bomb(side: int) -> bytes:
    plain = encoded(Image.fromarray(pixels(90, 16, 16)), "JPEG")
    frame = plain.index(b"\xff\xc0") + 5
    return plain[:frame] + struct.pack(">HH", side, side) + plain[frame + 4 :]


def write_odd_images(images: Path, elsewhere: Path) -> None:
    """Write unusual files that can be scored."""
    small = iter(range(10, 30))
    for name in (DEEP, LONG, "plain.png", "=1+1.png", "new\nline.png", "UPPER.PNG", "%41.png", "50% off.png"):
        write(images / name, encode_png(pixels(next(small), 8, 8, 1)))
    write(images / "ünï/čødé 🙂.png", encode_png(pixels(next(small), 8, 8, 1)))
    write(images / "album.png/inside.png", encode_png(pixels(next(small), 8, 8, 1)))
    write(images / "1.png", encode_png(pixels(next(small), 1, 1, 1)))
    write(images / os.fsdecode(b"\xff\xfe.png"), encode_png(pixels(next(small), 8, 8, 1)))
    write(images / "duplicate.png", (images / "plain.png").read_bytes())
    write(elsewhere / "target.png", encode_png(pixels(next(small), 8, 8, 1)))
    (images / "link.png").symlink_to(elsewhere / "target.png")
    write(images / "cmyk.jpg", encoded(Image.fromarray(pixels(40, 12, 9, 4), "CMYK"), "JPEG"))
    sixteen = np.random.default_rng(41).integers(0, 1 << 16, (9, 10), np.uint16)
    write(images / "sixteen-bit.png", encoded(Image.fromarray(sixteen), "PNG"))
    palette = Image.fromarray(pixels(42, 9, 9) % 8, "P")
    palette.putpalette(pixels(43, 24, 1).tobytes())
    write(images / "palette.png", encoded(palette, "PNG", transparency=bytes(range(0, 256, 32))))
    frames = [Image.fromarray(pixels(seed, 10, 9)) for seed in (44, 45)]
    write(images / "animated.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    exif = Image.Exif()
    exif[274] = 6
    write(images / "turned.jpg", encoded(Image.fromarray(pixels(46, 12, 9, 3)), "JPEG", exif=exif))
    write(images / "shrunk.jpg", encoded(Image.fromarray(pixels(47, 40, 20, 3)), "JPEG"))
    write(images / "small.jpg", encoded(Image.fromarray(pixels(48, 3, 5)), "JPEG"))
    write(images / "png.jpg", encode_png(pixels(49, 13, 10, 3)))
    write(images / "alpha.png", encoded(Image.fromarray(pixels(50, 9, 9, 4)), "PNG"))
    write(images / "one-bit.png", encoded(Image.fromarray(pixels(51, 16, 16)).convert("1"), "PNG"))
    for seed, form in enumerate(("WEBP", "BMP", "TIFF"), start=52):
        write(images / f"picture.{form.lower()}", encoded(Image.fromarray(pixels(seed, 11, 9, 3)), form))


def write_failing_files(images: Path) -> None:
    """Write files with image names that cannot be predicted."""
    os.mkfifo(images / "pipe.png")
    with socket.socket(socket.AF_UNIX) as bound:
        # A socket is bound to a short path and can then be moved to a long one.
        here = Path.cwd()
        os.chdir(images)
        bound.bind("socket.png")
        os.chdir(here)
    (images / "dangling.png").symlink_to(images / "nowhere.png")
    (images / "itself.png").symlink_to("itself.png")
    (images / "device.png").symlink_to("/dev/zero")
    write(images / "bomb.png", png_bomb(60_000))
    write(images / "bomb.jpg", jpeg_bomb(60_000))
    noise = Image.fromarray(pixels(60, 64, 64, 3))
    write(images / "truncated.jpg", encoded(noise, "JPEG")[:1500])
    write(images / "cut.png", encoded(noise, "PNG")[:1500])
    write(images / "text.jpg", b"not an image at all")
    write(images / "empty.png", b"")
    with (images / "sparse.png").open("wb") as file:
        file.truncate(1 << 40)


def write_skipped_files(images: Path, elsewhere: Path) -> None:
    """Write hidden files, other files, and links to folders, some of them circular."""
    write_images(elsewhere / "folder", 2, seed=70)
    write(images / ".hidden.png", (images / "plain.png").read_bytes())
    write(images / ".hidden/plain.png", (images / "plain.png").read_bytes())
    write(images / "notes.txt", b"not listed")
    write(images / "Thumbs.db", b"not listed")
    (images / "linked").symlink_to(elsewhere / "folder")
    (images / "linked.png").symlink_to(elsewhere / "folder")
    (images / "album.png/up").symlink_to("..")
    (images / "loop.png").symlink_to(".")


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@dataclass(frozen=True)
class Folder:
    """The folder of odd files and its table."""

    request: ScoringRequest
    table: PredictionTable
    rows: pd.DataFrame


@pytest.fixture(scope="module")
def folder(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    place = tmp_path_factory.mktemp("odd")
    write_odd_images(place / "images", place / "elsewhere")
    write_failing_files(place / "images")
    write_skipped_files(place / "images", place / "elsewhere")
    request = ScoringRequest(bundle=bundle, images=place / "images", output=place / "out", workers=1)
    table = score_folder(request)
    return Folder(request, table, read_predictions(table.folder).set_index("image_path"))


def tensor_by_pillow_alone(path: Path, background: int) -> np.ndarray:
    """The steps in `preprocessing.json`, reimplemented."""
    image: Image.Image = Image.open(path)
    if image.format == "JPEG":
        width, height = image.size
        shrinkings = [factor for factor in (2, 4, 8) if width // factor >= 8 and height // factor >= 8]
        factor = max(shrinkings, default=1)
        image.draft(None, (width // factor, height // factor))
    image = ImageOps.exif_transpose(image)
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (background, background, background, 255))
        canvas.alpha_composite(layer)
        image = canvas.convert("RGB")
    image = image.convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(1, 8, 8, 1)


def test_every_image_file_has_one_row_and_nothing_else_does(folder: Folder) -> None:
    assert len(DEEP) > 300
    assert len(LONG) == 250
    assert folder.rows.index.tolist() == sorted([*SCORED, *FAILED])
    manifest = folder.table.manifest
    assert (manifest["listed"], manifest["scored"]) == (len(SCORED) + len(FAILED), len(SCORED))
    assert sum(manifest["failures"].values()) == manifest["failed"] == len(FAILED)


@pytest.mark.parametrize("name", SCORED)
def test_an_unusual_image_has_the_prediction_of_the_model(folder: Folder, name: str) -> None:
    row = folder.rows.loc[name]
    path = local_path(folder.request.images) / unescape(name)
    assert row["status"] == "scored"
    assert row["image_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (row["width"], row["height"]) == SCORED[name]
    bundle = folder.request.bundle
    session = onnxruntime.InferenceSession(bundle.onnx_path)
    tensor = tensor_by_pillow_alone(path, bundle.image_spec().background)
    (probabilities,) = session.run(None, {"image": tensor})
    assert row["class_index"] == probabilities[0].argmax()
    assert row["label"] == bundle.labels()[probabilities[0].argmax()]
    assert row["probability"] == pytest.approx(probabilities[0].max(), abs=1e-6)


@pytest.mark.parametrize("name", FAILED)
def test_a_file_that_is_not_an_image_has_a_row_with_the_reason(folder: Folder, name: str) -> None:
    row = folder.rows.loc[name]
    assert row["status"] == "failed"
    assert row["error"].startswith(FAILED[name])
    assert "\n" not in row["error"]
    assert row[["label", "class_index", "probability"]].isna().all()
    was_read = FAILED[name].split(":")[0] not in ("not_a_file", "too_large")
    assert pd.isna(row["image_sha256"]) != was_read


def test_no_worker_crashes_and_csv_is_the_same(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    output = folder.request.output.with_name("csv")
    with caplog.at_level(logging.WARNING, logger="pixelmill.pipeline"):
        score_folder(replace(folder.request, output=output, format="csv"))
    # The pool logs every crash of a worker, even if the run recovers.
    assert not caplog.records
    rows = read_predictions(output).set_index("image_path")
    data = [name for name in rows.columns if name not in ("run_id", "scored_at")]
    pd.testing.assert_frame_equal(rows[data], folder.rows[data], check_dtype=False)
    with (output / CSV_FILE).open(encoding="utf-8-sig", newline="") as file:
        paths = [row["image_path"] for row in csv.DictReader(file)]
    assert "./=1+1.png" in paths
    assert not [path for path in paths if path[0] in "=+-@\t\r"]
    assert len(paths) == len(rows)


@pytest.mark.parametrize("name", ["bomb.png", "bomb.jpg"])
def test_a_bomb_is_refused_without_allocating_its_memory(folder: Folder, name: str) -> None:
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from pixelmill.pipeline.config import ImageSpec\n"
        "from pixelmill.pipeline.images import ImageFailure, decode\n"
        # As grey bytes, it would need 3.6 GB.
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "try:\n"
        "    decode(Path(sys.argv[1]).read_bytes(), ImageSpec(height=8, width=8, channels=1))\n"
        "except ImageFailure as failure:\n"
        "    print(failure.code)\n"
    )
    command = [sys.executable, "-c", script, str(folder.request.images / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "too_many_pixels\n"


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    """Write other bytes of the same length, with a later time."""
    content, facts = path.read_bytes(), path.stat()
    path.write_bytes(bytes(reversed(content)))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))


def move_folder_away(path: Path) -> None:
    path.parent.rename(path.parent.with_name(".gone"))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "emptied.png": (lambda path: path.write_bytes(b""), "changed: modified since it was listed"),
    "folder.png": (replace_by_folder, "not_a_file: no longer a regular file"),
    "grown.png": (grow, "changed: modified since it was listed"),
    "loop.png": (replace_by_loop, "unreadable: "),
    "pipe.png": (replace_by_pipe, "not_a_file: no longer a regular file"),
    "rewritten.png": (rewrite, "changed: modified since it was listed"),
    "sub/moved.png": (move_folder_away, "unreadable: No such file"),
    "vanished.png": (Path.unlink, "unreadable: No such file"),
}


def test_a_file_that_changes_after_the_listing_is_a_failed_row(bundle: ModelBundle, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for seed, name in enumerate([*CHANGES, "stays.png", "zealous.png"]):
        write(images / name, encode_png(pixels(seed, 8, 8, 1)))
    request = ScoringRequest(bundle=bundle, images=images, output=tmp_path / "out", workers=1)
    before = read_predictions(score_folder(replace(request, output=tmp_path / "before")).folder)
    with lock_output(request.output):
        plan = plan_scoring(request)
        (shard,) = write_shards(plan, growing_limits())
        for name, (change, _) in CHANGES.items():
            change(images / name)
        result = Worker(plan).score(shard.number)
        part = find_part(plan, shard.number, shard.shard_key)
    assert (result.rows, result.failed) == (len(CHANGES) + 2, len(CHANGES))
    assert part is not None
    rows = read_part(part).to_pandas().set_index("image_path")
    for name, (_, error) in CHANGES.items():
        assert rows.loc[name, "error"].startswith(error), name
        assert pd.isna(rows.loc[name, "label"])
    # The remaining images have the same predictions as without the removed ones.
    data = ["image_sha256", "status", "label", "class_index", "probability", "width", "height"]
    stayed = before.set_index("image_path").loc[["stays.png", "zealous.png"], data]
    pd.testing.assert_frame_equal(rows.loc[stayed.index, data], stayed, check_dtype=False)
    # The next attempt lists the current files and reports their problems.
    again = read_predictions(score_folder(request).folder).set_index("image_path")
    assert again[again["status"] == "failed"].index.tolist() == [
        "emptied.png",
        "loop.png",
        "pipe.png",
        "rewritten.png",
    ]
    assert again.index.tolist() == sorted(set(rows.index) - {"folder.png", "sub/moved.png", "vanished.png"})


def test_an_unreadable_file_is_a_failed_row(bundle: ModelBundle, tmp_path: Path) -> None:
    (path, *_) = write_images(tmp_path / "images", 2)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything; run the tests as another than root")
    request = ScoringRequest(bundle=bundle, images=tmp_path / "images", output=tmp_path / "out", workers=1)
    rows = read_predictions(score_folder(request).folder)
    assert rows["error"].tolist()[0] == "unreadable: Permission denied"
    assert rows["status"].tolist() == ["failed", "scored"]
