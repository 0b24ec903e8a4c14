"""The page that classifies images in a browser, from a disk and from a server."""

import base64
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from playwright.sync_api import Browser, Page, expect

from pixelmill.pipeline.artifacts import write_json
from pixelmill.pipeline.bundles import ONNX_FILE, ModelBundle
from pixelmill.pipeline.bundles.golden import GOLDEN_FOLDER, read_golden
from pixelmill.pipeline.bundles.metadata import CLASS_NAMES
from pixelmill.pipeline.bundles.preprocessing import describe_preprocessing
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.web import WEB_FOLDER, WEB_RUNTIME_VERSION, find_web_runtime, write_web_page
from pixelmill.pipeline.images import DEFAULT_MAX_PIXELS, FORMATS, Pixels, decode
from pixelmill.pipeline.inference import load_session

HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">" + "n" * 200
LAST_DONE = "#results > :last-child:not([aria-busy])"
GIVE = """([files, event]) => {
  const transfer = new DataTransfer();
  for (const [name, base64] of files) {
    transfer.items.add(new File([Uint8Array.from(atob(base64), letter => letter.charCodeAt(0))], name));
  }
  const settings = { bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer };
  const Kind = { drop: DragEvent, paste: ClipboardEvent }[event];
  document.querySelector("main").dispatchEvent(new Kind(event, settings));
}"""
BECOMES = """async ([base64, description, maxPixels]) => {
  const file = new File([Uint8Array.from(atob(base64), letter => letter.charCodeAt(0))], "image");
  const { format, pixels } = await decode(file, description.steps[0].formats, maxPixels);
  return Array.from(tensorOf(pixels, format, description));
}"""
SHOWN = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"


@dataclass
class Visit:
    """An open page, its requests and its errors."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


Open = Callable[..., Visit]


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def write_page(bundle: ModelBundle, runtime: Path, folder: Path) -> Path:
    """Write the page into a folder, with all files that it is built from."""
    folder.mkdir()
    shutil.copyfile(bundle.onnx_path, folder / ONNX_FILE)
    shutil.copytree(bundle.folder / GOLDEN_FOLDER, folder / GOLDEN_FOLDER)
    write_web_page(folder, runtime)
    return folder


@pytest.fixture(scope="module")
def runtime(node_modules: Path) -> Path:
    return find_web_runtime(node_modules / "onnxruntime-web")


@pytest.fixture(scope="module")
def folder(bundle: ModelBundle, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(bundle, runtime, tmp_path_factory.mktemp("web") / "bundle")


@pytest.fixture(scope="module")
def addresses(folder: Path) -> Iterator[dict[str, str]]:
    """The address of the page on the disk, and on a server for its folder."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    web = folder / WEB_FOLDER
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=web)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield {"disk": f"{web.as_uri()}/", "server": f"http://127.0.0.1:{server.server_address[1]}/"}
        server.shutdown()
        thread.join()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    pages: list[Page] = []

    def open_page(address: str, width: int = 1280, **settings: Any) -> Visit:
        page = browser.new_page(viewport={"width": width, "height": 900}, **settings)
        pages.append(page)
        found = Visit(page)
        page.on("request", lambda request: found.requests.append(request.url))
        page.on("console", lambda message: found.complaints.append(message.text))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.goto(f"{address}index.html")
        return found

    yield open_page
    for page in pages:
        page.close()


def give(page: Page, files: list[tuple[str, bytes]], event: str = "drop") -> None:
    page.evaluate(GIVE, [[(name, base64_of(content)) for name, content in files], event])
    page.locator(LAST_DONE).wait_for()


def tensor_shown(page: Page, card: str) -> Pixels:
    """The input of the model, as shown on the page; uint8 [height, width, 3]."""
    canvas = page.locator(f"{card} .tensor")
    height, width = canvas.evaluate("canvas => [canvas.height, canvas.width]")
    return np.array(canvas.evaluate(SHOWN), np.uint8).reshape(height, width, 4)[..., :3]


def bars_shown(page: Page, card: str) -> dict[str, float]:
    names = page.locator(f"{card} .bars .name").all_inner_texts()
    values = page.locator(f"{card} .bars data").evaluate_all("all => all.map(each => Number(each.value))")
    return dict(zip(names, values, strict=True))


@pytest.mark.parametrize(("place", "event"), [("disk", "drop"), ("server", "drop"), ("disk", "paste")])
def test_golden_images_have_the_golden_probabilities(
    bundle: ModelBundle, addresses: dict[str, str], visit: Open, place: str, event: str
) -> None:
    golden = read_golden(bundle.folder)
    session = load_session(bundle.onnx_path)
    found = visit(addresses[place])
    give(found.page, [(file.name, file.read_bytes()) for file in golden.files], event)
    for number, file in enumerate(golden.files):
        card = f".result:nth-child({number + 1})"
        assert found.page.locator(f"{card} .file").inner_text() == file.name
        shown = tensor_shown(found.page, card)
        # A browser does not downscale a JPEG file during decoding.
        most_levels, tolerance = (0, 1e-5) if file.suffix == ".png" else (1, 1e-2)
        assert np.abs(shown.astype(int) - golden.tensors[number]).max() <= most_levels, file.name
        (result,) = session.probabilities(shown[np.newaxis, ..., :1])
        assert np.abs(result - golden.probabilities[number]).max() <= tolerance, file.name
        wanted = dict(zip(bundle.labels(), result, strict=True))
        best = sorted(wanted, key=lambda name: -wanted[name])[:5]
        bars = bars_shown(found.page, card)
        assert list(bars) == best, file.name
        assert list(bars.values()) == sorted(bars.values(), reverse=True), file.name
        assert max(abs(bars[name] - wanted[name]) for name in bars) <= 1e-5, file.name
    assert [url for url in found.requests if not url.startswith((addresses[place], "blob:", "data:"))] == []
    assert found.complaints == []


def test_the_policy_forbids_other_hosts(addresses: dict[str, str], visit: Open, folder: Path) -> None:
    found = visit(addresses["disk"])
    refused = "url => fetch(url).then(() => false, () => true)"
    assert found.page.evaluate(refused, f"{addresses['server']}index.html")
    assert "Content Security Policy" in found.complaints[0]


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw one stroke; positions are shares of the pad's size."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def test_a_drawing_is_centered_like_the_images_of_the_model(
    bundle: ModelBundle, addresses: dict[str, str], visit: Open
) -> None:
    page = visit(addresses["disk"]).page
    # Small and in a corner, so it has to be enlarged and centered.
    draw(page, [(0.1, 0.1), (0.1, 0.35)])
    expect(page.get_by_role("status")).to_contain_text("Drawing: ")
    shown = tensor_shown(page, "#drawing")
    ink = np.argwhere(shown[..., 0] > 64)
    assert ink[:, 0].min() == 0
    assert ink[:, 0].max() == 7
    assert abs(ink[:, 1].mean() + 0.5 - 4) <= 1
    assert shown[:, [0, 7]].max() == 0
    (wanted,) = load_session(bundle.onnx_path).probabilities(shown[np.newaxis, ..., :1])
    bars = bars_shown(page, "#drawing")
    assert list(bars) == list(bundle.labels())
    assert np.abs(np.array(list(bars.values())) - wanted).max() <= 1e-5
    assert page.locator("#drawing .verdict strong").inner_text() == bundle.labels()[wanted.argmax()]

    page.get_by_role("button", name="Clear the drawing").click()
    expect(page.get_by_role("status")).to_have_text("Drawing cleared")
    assert tensor_shown(page, "#drawing").max() == 0
    assert set(bars_shown(page, "#drawing").values()) == {0}


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def as_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


FILES: dict[str, Callable[[Pixels, int], bytes]] = {
    "grey PNG": lambda pixels, _: encoded(Image.fromarray(pixels[..., 0]), "PNG"),
    "grey PNG of 16 bits": lambda pixels, _: encoded(
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 256 + pixels[..., 1]), "PNG"
    ),
    "turned PNG": lambda pixels, orientation: encoded(
        Image.fromarray(pixels[..., :3]), "PNG", exif=as_exif(orientation)
    ),
    "transparent PNG": lambda pixels, _: encoded(Image.fromarray(pixels), "PNG"),
    "transparent WebP": lambda pixels, _: encoded(Image.fromarray(pixels), "WEBP", lossless=True, exact=True),
    "WebP": lambda pixels, _: encoded(Image.fromarray(pixels[..., :3]), "WEBP", quality=80),
    "BMP": lambda pixels, _: encoded(Image.fromarray(pixels[..., :3]), "BMP"),
    "GIF": lambda pixels, _: encoded(Image.fromarray(pixels[..., :3]).quantize(16), "GIF"),
    "turned JPEG": lambda pixels, orientation: encoded(
        Image.fromarray(pixels[..., :3]), "JPEG", quality=85, exif=as_exif(orientation)
    ),
}
SPECS = st.builds(
    ImageSpec,
    # At this size and above, no JPEG file of the sizes below is downscaled during decoding.
    height=st.integers(25, 60),
    width=st.integers(25, 60),
    channels=st.sampled_from([1, 3]),
    resize=st.sampled_from(["stretch", "crop", "pad"]),
    background=st.integers(0, 255),
)


@pytest.fixture(scope="module")
def becomes(
    browser: Browser, addresses: dict[str, str]
) -> Iterator[Callable[[bytes, ImageSpec], npt.NDArray[np.int_]]]:
    """The tensor that the page decodes a file to, [height, width, channels]."""
    page = browser.new_page()
    page.goto(f"{addresses['disk']}index.html")

    def tensor(data: bytes, spec: ImageSpec) -> npt.NDArray[np.int_]:
        described = [base64_of(data), describe_preprocessing(spec), DEFAULT_MAX_PIXELS]
        return np.array(page.evaluate(BECOMES, described)).reshape(spec.height, spec.width, spec.channels)

    yield tensor
    page.close()


@settings(deadline=None, max_examples=100)
@given(
    spec=SPECS,
    kind=st.sampled_from(sorted(FILES)),
    height=st.integers(8, 49),
    width=st.integers(8, 49),
    orientation=st.integers(1, 8),
)
def test_files_decode_to_the_same_tensor_as_in_scoring(
    becomes: Callable[[bytes, ImageSpec], npt.NDArray[np.int_]],
    spec: ImageSpec,
    kind: str,
    height: int,
    width: int,
    orientation: int,
) -> None:
    data = FILES[kind](noise(height, width, 4, seed=height), orientation)
    assert np.array_equal(becomes(data, spec), decode(data, spec).pixels)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_large_images_decode_to_the_same_tensor(
    becomes: Callable[[bytes, ImageSpec], npt.NDArray[np.int_]], resize: Any
) -> None:
    spec = ImageSpec(height=7, width=11, channels=3, resize=resize)
    for height, width in ((1, 700), (700, 1), (301, 433)):
        data = encoded(Image.fromarray(noise(height, width, 3)), "PNG")
        assert np.array_equal(becomes(data, spec), decode(data, spec).pixels)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_downscaled_jpeg_file_is_similar(
    becomes: Callable[[bytes, ImageSpec], npt.NDArray[np.int_]], factor: int
) -> None:
    spec = ImageSpec(height=24, width=20, channels=3)
    rows, columns = np.indices((24 * factor + 5, 20 * factor + 3)) / (24 * factor)
    shades = [128 + 100 * np.sin(5 * rows), 255 * np.minimum(columns, 1), 128 + 100 * np.cos(4 * columns)]
    data = encoded(Image.fromarray(np.dstack(shades).astype(np.uint8)), "JPEG", quality=90)
    differences = np.abs(becomes(data, spec) - decode(data, spec).pixels)
    assert differences.max() <= 4
    assert differences.mean() < 0.5


def test_a_file_that_is_not_an_image_is_reported_in_one_line(addresses: dict[str, str], visit: Open) -> None:
    whole = encoded(Image.fromarray(noise(40, 40, 3)), "PNG")
    wrong = {
        "notes.png": (b"Not an image at all.", f"not an image: none of {', '.join(FORMATS)}"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        "empty.png": (b"", "an empty file"),
        "half.png": (whole[: len(whole) // 2], "a damaged PNG file"),
        "head.jpg": (b"\xff\xd8\xff\xe0 and no more", "a JPEG file that is damaged"),
        "scan.tiff": (encoded(Image.fromarray(noise(8, 8, 3)), "TIFF"), "that this browser does not support"),
        "wide.png": (encoded(Image.new("1", (10_000, 9_000)), "PNG"), "too large: 10000 × 9000 pixels"),
    }
    found = visit(addresses["disk"])
    files = [(name, content) for name, (content, _) in wrong.items()]
    give(found.page, [*files, ("right.png", whole)])
    for number, (name, (_, words)) in enumerate(wrong.items()):
        card = found.page.locator(".result").nth(number)
        assert words in card.locator(".trouble").inner_text(), name
        assert not card.locator(".prediction").is_visible(), name
    assert bars_shown(found.page, ".result:last-child")
    assert found.complaints == []
    found.page.get_by_role("button", name="Clear results").click()
    assert found.page.locator(".result").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_names_are_escaped_and_the_page_fits_the_window(
    bundle: ModelBundle, runtime: Path, tmp_path: Path, visit: Open, width: int, scheme: str
) -> None:
    import onnx

    hostile = [f"{number} {HOSTILE}" for number in range(10)]
    copy = tmp_path / "hostile"
    copy.mkdir()
    model = onnx.load(bundle.onnx_path)
    for entry in model.metadata_props:
        if entry.key == CLASS_NAMES:
            entry.value = json.dumps(hostile)
    onnx.save(model, copy / ONNX_FILE)
    write_web_page(copy, runtime)  # Without golden vectors, which only the drawing pad uses.
    found = visit(f"{(copy / WEB_FOLDER).as_uri()}/", width, color_scheme=scheme)
    assert not found.page.locator("#drawing").is_visible()
    give(found.page, [(f"{HOSTILE}.png", encoded(Image.fromarray(noise(8, 8, 3)), "PNG"))])
    assert set(bars_shown(found.page, ".result")) <= set(hostile)
    assert found.page.locator(".file").inner_text() == f"{HOSTILE}.png"
    assert found.page.locator("img").count() == 0
    assert found.page.title() == "digits, version 1"
    assert found.complaints == []
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    dark = found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 29)"
    assert dark == (scheme == "dark")


def test_the_keyboard_reaches_the_files(addresses: dict[str, str], visit: Open, tmp_path: Path) -> None:
    image = tmp_path / "eight.png"
    image.write_bytes(encoded(Image.fromarray(noise(8, 8, 3)), "PNG"))
    page = visit(addresses["server"]).page
    page.locator("#clear-drawing").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#files")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.querySelector('.drop')).outlineStyle") == "solid"
    page.locator("#files").set_input_files(image)
    page.locator(LAST_DONE).wait_for()
    expect(page.get_by_role("status")).to_contain_text("eight.png: ")


def test_a_browser_that_cannot_run_the_model_reports_it(browser: Browser, addresses: dict[str, str]) -> None:
    page = browser.new_page()
    page.add_init_script("delete window.WebAssembly")
    page.goto(f"{addresses['disk']}index.html")
    page.get_by_role("alert").wait_for()
    assert "The model cannot be loaded in this browser" in page.get_by_role("alert").inner_text()
    page.close()


def test_the_runtime_is_found_in_a_parent_folder(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/onnxruntime-web").symlink_to(runtime)
    (tmp_path / "below/further").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "below/further")
    assert find_web_runtime() == tmp_path / "node_modules/onnxruntime-web"


@pytest.mark.parametrize(
    ("package", "words"),
    [
        (None, "does not contain onnxruntime-web"),
        ({"name": "onnxruntime-node", "version": WEB_RUNTIME_VERSION}, "does not contain onnxruntime-web"),
        ({"name": "onnxruntime-web", "version": "1.25.1"}, "onnxruntime-web 1.25.1"),
        ({"name": "onnxruntime-web", "version": "2.0.0-dev"}, "onnxruntime-web 2.0.0-dev"),
        ({"name": "onnxruntime-web"}, "does not contain onnxruntime-web"),
        ({"name": "onnxruntime-web", "version": WEB_RUNTIME_VERSION}, "without dist/"),
        (["onnxruntime-web"], "does not contain onnxruntime-web"),
    ],
)
def test_another_folder_is_not_a_runtime(package: object, words: str, tmp_path: Path) -> None:
    if package is not None:
        write_json(tmp_path / "package.json", package)
    with pytest.raises(RequestError, match=words) as raised:
        find_web_runtime(tmp_path)
    assert f"npm install onnxruntime-web@{WEB_RUNTIME_VERSION}" in str(raised.value)


def test_a_missing_runtime_is_reported_with_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"npm install onnxruntime-web@1\.30\.0"):
        find_web_runtime()
