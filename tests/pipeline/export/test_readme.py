"""The README of a bundle: its content, and its programs, run like by a receiving team."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import ExifTags, Image

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.bundles.golden import read_golden
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.export.parity import Parity
from pixelmill.pipeline.export.readme import ExampleLanguage, HeldOutResults, ReadmeFacts, render_readme
from pixelmill.pipeline.image_encoding import ImageForm, encode_png
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.inference import Probabilities, load_session

GSON = Path("/usr/share/java/gson.jar")
HEADERS = (Path("/usr/include/stb/stb_image.h"), Path("/usr/include/nlohmann/json.hpp"))
LABELS = ("café", "<img src=x>", "two words", 'a | b "c"', "☃", "\\n")
FACTS = ReadmeFacts(
    name="sample",
    version=3,
    image=ImageSpec(height=9, width=12, channels=3, background=37),
    class_names=LABELS,
    opset=17,
    licence="CC0 | <b>",
    results=HeldOutResults(accuracy=0.98765, loss=0.1, images=1234),
    parity=Parity(1234, 0, 0, "", 0, 0, 2e-5, 3e-7, 1e-7, 1e-5, (1, 64), ()),
)
# Enlarged; downscaled with the height first; downscaled with the width first; already the right size.
SHAPES = ((5, 7, 3), (40, 23, 3), (31, 100, 1), (9, 12, 3))
SPECS = {
    "stretch": FACTS.image,
    "crop": FACTS.image.model_copy(update={"resize": "crop"}),
    "pad": FACTS.image.model_copy(update={"resize": "pad", "channels": 1}),
}
PREPARE = """
public class Prepare {
    public static void main(String[] paths) throws Exception {
        for (String path : paths) {
            var image = Classify.read(new java.io.File(path));
            for (int sample : Classify.resize(image)) System.out.print(sample + " ");
            System.out.println();
        }
    }
}
"""
# The programs print six digits, and engines differ by less than one in the last.
PRINTED = 2e-6

FirstChoice = tuple[str, float]  # A label and its probability.
Predict = Callable[[Path], FirstChoice]
Program = Callable[[ExampleLanguage, str], Predict]


@dataclass(frozen=True)
class Interfaces:
    """The C++ and Java interfaces of ONNX Runtime, and its library for Linux."""

    headers: Path
    jar: Path
    library: Path


@pytest.fixture(scope="session")
def interfaces(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Interfaces:
    plugins = node_modules / "com.github.asus4.onnxruntime/Plugins"
    if not plugins.is_dir():
        pytest.skip("no ONNX Runtime for C++ and Java here; run `make test` where npm is")
    folder = tmp_path_factory.mktemp("onnxruntime")
    with zipfile.ZipFile(plugins / "Android/onnxruntime.aar") as archive:
        wanted = [name for name in archive.namelist() if name.startswith("headers/")]
        archive.extractall(folder, [*wanted, "classes.jar"])
    # The name that linked programs look for.
    (folder / "libonnxruntime.so.1").symlink_to(plugins / "Linux/x64/libonnxruntime.so")
    return Interfaces(folder / "headers", folder / "classes.jar", folder / "libonnxruntime.so.1")


def example(page: str, language: ExampleLanguage) -> str:
    return page.split(f"\n```{language}\n")[1].split("\n```\n", maxsplit=1)[0]


def top_1(command: list[str | Path], folder: Path) -> FirstChoice:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    probability, label = done.stdout.splitlines()[0].split("  ", 1)
    return label, float(probability)


def python_program(folder: Path, page: str) -> Predict:
    (folder / "classify.py").write_text(example(page, "python"))
    return lambda image: top_1([sys.executable, "classify.py", image], folder)


def javascript_program(folder: Path, page: str, node_modules: Path) -> Predict:
    if not (node_modules / "sharp").is_dir():
        pytest.skip("no sharp here; run `make test` where npm is")
    (folder / "node_modules").symlink_to(node_modules)
    (folder / "classify.mjs").write_text(example(page, "js"))
    return lambda image: top_1(["node", "classify.mjs", image], folder)


def cpp_program(folder: Path, page: str, interfaces: Interfaces) -> Predict:
    if shutil.which("g++") is None or not all(header.is_file() for header in HEADERS):
        pytest.skip("no compiler or headers here: apt-get install g++ libstb-dev nlohmann-json3-dev")
    (folder / "classify.cpp").write_text(example(page, "cpp"))
    library = interfaces.library
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-isystem{interfaces.headers}"]
    linking = [str(library), f"-Wl,-rpath,{library.parent}", "-o", "classify"]
    subprocess.run(["g++", *options, "classify.cpp", *linking], cwd=folder, check=True)
    return lambda image: top_1(["./classify", image], folder)


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Program:
    """Write the program of a README in some language to a file, and compile it if needed."""

    def build(language: ExampleLanguage, page: str) -> Predict:
        if language == "js":
            return javascript_program(tmp_path, page, request.getfixturevalue("node_modules"))
        if language == "cpp":
            return cpp_program(tmp_path, page, request.getfixturevalue("interfaces"))
        return python_program(tmp_path, page)

    return build


def write_model(folder: Path, spec: ImageSpec) -> None:
    """A model whose probabilities change if a pixel changes by one."""
    pixels = spec.height * spec.width * spec.channels
    weights = np.random.default_rng(0).normal(size=(pixels, len(LABELS))) / 100 / np.sqrt(pixels)
    shape: list[str | int | None] = ["batch", spec.height, spec.width, spec.channels]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["row"]),
            helper.make_node("MatMul", ["row", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "sensitive",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    (folder / "labels.json").write_text(json.dumps(LABELS, ensure_ascii=False))


def write_pictures(folder: Path) -> list[Path]:
    random = np.random.default_rng(1)
    paths = []
    for height, width, channels in SHAPES:
        path = folder / f"{height}x{width}x{channels}.png"
        path.write_bytes(encode_png(random.integers(0, 256, (height, width, channels), np.uint8)))
        paths.append(path)
    return paths


def write_turned_jpeg(folder: Path, spec: ImageSpec) -> Path:
    """A rotated JPEG file that is too small to be downscaled during decoding."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    rows, columns = np.indices((spec.width + 2, spec.height + 3))
    pixels = np.stack([rows * 15, columns * 15, rows * columns], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "turned.jpg", exif=exif, quality=95)
    return folder / "turned.jpg"


def prediction_of_scoring(bundle: Path, image: Path, spec: ImageSpec) -> Probabilities:
    tensor = decode(image.read_bytes(), spec).pixels
    (probabilities,) = load_session(bundle / "model.onnx").probabilities(tensor[np.newaxis])
    return np.asarray(probabilities)


# As the README says: Python supports everything, the others only opaque, lossless images.
@pytest.mark.parametrize(
    ("language", "forms"),
    [
        ("python", get_args(ImageForm)),
        ("js", ("plain", "enlarged")),
        ("cpp", ("plain", "enlarged")),
    ],
)
def test_a_program_predicts_the_golden_probabilities(
    language: ExampleLanguage,
    forms: tuple[ImageForm, ...],
    bundle: ModelBundle,
    program: Program,
    tmp_path: Path,
) -> None:
    predict = program(language, (bundle.folder / "README.md").read_text())
    for name in ("model.onnx", "labels.json"):
        shutil.copyfile(bundle.folder / name, tmp_path / name)
    golden = read_golden(bundle.folder)
    labels = bundle.labels()
    for file, probabilities in zip(golden.files, golden.probabilities, strict=True):
        if file.stem in forms:
            label, probability = predict(file)
            assert label == labels[probabilities.argmax()], file.name
            assert probability == pytest.approx(probabilities.max(), abs=1e-5), file.name


# Compiling takes as long as all other tests in this file.
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("language", ["python", "js", pytest.param("cpp", marks=pytest.mark.slow)])
def test_a_program_prepares_an_image_as_scoring_does(
    language: ExampleLanguage, spec: ImageSpec, program: Program, tmp_path: Path
) -> None:
    predict = program(language, render_readme(replace(FACTS, image=spec)))
    write_model(tmp_path, spec)
    images = write_pictures(tmp_path)
    if language != "cpp":
        images.append(write_turned_jpeg(tmp_path, spec))
    for image in images:
        label, probability = predict(image)
        expected = prediction_of_scoring(tmp_path, image, spec)
        assert label == LABELS[expected.argmax()], image.name
        assert probability == pytest.approx(expected.max(), abs=PRINTED), image.name


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_java_program_compiles_and_prepares_an_image_as_scoring_does(
    spec: ImageSpec, interfaces: Interfaces, tmp_path: Path
) -> None:
    if shutil.which("javac") is None or not GSON.is_file():
        pytest.skip("no Java here: apt-get install openjdk-17-jdk-headless libgoogle-gson-java")
    (tmp_path / "Classify.java").write_text(example(render_readme(replace(FACTS, image=spec)), "java"))
    # The Java package of ONNX Runtime has no native library for Linux here, so no model is run.
    (tmp_path / "Prepare.java").write_text(PREPARE)
    jars = f"{GSON}:{interfaces.jar}"
    compiler = ["javac", "-Xlint:all", "-Werror", "-cp", jars, "Classify.java", "Prepare.java"]
    subprocess.run(compiler, cwd=tmp_path, check=True)
    images = write_pictures(tmp_path)
    done = subprocess.run(
        ["java", "-cp", ".", "Prepare", *images], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for image, line in zip(images, done.stdout.splitlines(), strict=True):
        tensor = np.array(line.split(), np.uint8).reshape(spec.height, spec.width, spec.channels)
        assert np.array_equal(tensor, decode(image.read_bytes(), spec).pixels), image.name


def test_names_cannot_act_on_the_page() -> None:
    page = render_readme(FACTS)
    table = page.split("## Files")[0]
    assert "<" not in table
    hostile = replace(FACTS, name="a\x1b[2J", class_names=("\u202egpj.exe", "b\x07"), licence="CC0\u2066")
    assert not {"\x1b", "\x07", "\u202e", "\u2066"} & set(render_readme(hostile))
    assert not {f"&#{ord(letter)};" for letter in "\x1b\x07\u202e\u2066"} & set(
        render_readme(hostile).split()
    )
    assert table.count("|") == 3 * len([line for line in table.splitlines() if line.startswith("|")])


def test_the_page_describes_the_existing_files_only() -> None:
    page = render_readme(FACTS)
    assert "| test accuracy | 0.9877 on 1,234 images, loss 0.1000 |" in page
    assert "fp16" not in page
    assert "web/" not in page
    elsewhere = render_readme(replace(FACTS, results=None, variants=("fp16", "int8"), web=True))
    assert "accuracy" not in elsewhere
    assert "`model.fp16.onnx`" in elsewhere
    assert "`model.int8.onnx`" in elsewhere
    assert "`web/index.html`" in elsewhere
    many = render_readme(replace(FACTS, class_names=tuple(f"class {number}" for number in range(1200))))
    assert "class&#32;19 and 1,180 more |" in many


@pytest.mark.parametrize("language", get_args(ExampleLanguage))
def test_each_language_has_one_program(language: ExampleLanguage) -> None:
    page = render_readme(FACTS)
    assert page.count(f"\n```{language}\n") == 1
    assert len(re.findall(r"^```", page, re.MULTILINE)) % 2 == 0
    for line in example(page, language).splitlines():
        assert len(line) <= 120, line
