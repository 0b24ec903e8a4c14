"""What the network sees: the page shows the activations of Keras, for every kind of network."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from pixelmill.pipeline.evaluation.inside.pictures import color
from pixelmill.pipeline.processes import run_in_spawned_process
from tests.pipeline.evaluation.inside.networks import NAMES, NETWORKS, Drawn, draw_networks

# Every other worker would have to build the networks again.
pytestmark = pytest.mark.xdist_group("network")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Drawn]:
    return run_in_spawned_process(draw_networks, tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def pages(drawn: dict[str, Drawn], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for kind, each in drawn.items():
        (folder / f"{kind}.html").write_text(each.page, encoding="utf-8")
    return {kind: folder / f"{kind}.html" for kind in drawn}


def open_page(browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> Page:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(path.as_uri())
    return page


def pixels_of(url: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


def numbers_of(cells: list[str]) -> list[float]:
    return [float(cell.replace("−", "-")) for cell in cells if cell]


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_the_maps_on_the_page_are_the_outputs_of_keras(
    browser: Browser, drawn: dict[str, Drawn], pages: dict[str, Path], kind: str
) -> None:
    page, expected = open_page(browser, pages[kind]), drawn[kind].outputs
    checked = 0
    for section in page.locator(".section").all():
        name = section.get_attribute("data-layer")
        if name not in expected:
            continue  # The activation after a sum, and gelu, are no layers of the recipe.
        for index, row in enumerate(section.locator(".maps").all()):
            values = expected[name][index][..., :12]
            urls = [image.get_attribute("src") or "" for image in row.locator("img").all()]
            shown = np.stack([pixels_of(url) for url in urls], axis=2)
            np.testing.assert_allclose(
                shown.astype(int), color(values, float(np.abs(values).max())).astype(int), atol=1
            )
            checked += 1
    assert checked == {"plain": 4, "residual": 10}[kind] * len(drawn[kind].chosen)
    page.close()


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_the_frame_holds_every_pixel_that_the_strongest_value_depends_on(
    drawn: dict[str, Drawn], kind: str
) -> None:
    changes = drawn[kind].insensitive
    assert len(changes) == {"plain": 4, "residual": 11}[kind]
    assert {name: change for name, change in changes.items() if change > 1e-4} == {}
    plain = {section.layer.name: section.images[0] for section in drawn["plain"].sections}
    assert plain["0_convolution"].box is not None
    assert (plain["0_convolution"].box.width, plain["0_convolution"].box.height) == (3, 3)


def test_the_mean_of_a_class_activation_map_is_the_logit_of_the_class(drawn: dict[str, Drawn]) -> None:
    found = drawn["plain"]
    means = found.class_maps.mean(axis=(1, 2))
    np.testing.assert_allclose(means + found.biases, found.logits[0], rtol=1e-4, atol=1e-5)


def test_grad_cam_is_drawn_where_there_is_no_global_average_pooling(
    browser: Browser, drawn: dict[str, Drawn], pages: dict[str, Path]
) -> None:
    maps = drawn["residual"].class_maps
    assert maps.shape == (3, 8, 8)
    assert maps.min() >= 0
    assert maps.max() > 0
    page = open_page(browser, pages["residual"])
    assert "Grad-CAM" in page.inner_text("body")
    assert page.locator(".mistakes figure.card").count() == 6
    page.close()


@pytest.mark.parametrize("kind", NETWORKS)
def test_softmax_and_cross_entropy_add_up(
    browser: Browser, drawn: dict[str, Drawn], pages: dict[str, Path], kind: str
) -> None:
    page, found = open_page(browser, pages[kind]), drawn[kind]
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator(".softmax tbody tr").all()]
    page_text = page.inner_text("body")
    page.close()
    at = found.chosen[1]
    label = found.labels[at]
    classes = [NAMES.index(row[0].removesuffix(" (true class)")) for row in rows[:-1]]
    columns = np.array([numbers_of(row[1:]) for row in rows[:-1]])
    np.testing.assert_allclose(columns[:, 0], found.logits[1][classes], atol=5e-5)
    np.testing.assert_allclose(columns[:, 1], columns[:, 0] - columns[:, 0].max(), atol=2e-4)
    np.testing.assert_allclose(columns[:, 2], np.exp(columns[:, 1]), atol=2e-4)
    np.testing.assert_allclose(columns[:, 3], found.probabilities[at][classes], atol=1e-5)
    np.testing.assert_allclose(columns[:, 4], columns[:, 3] - (np.array(classes) == label), atol=2e-6)
    assert numbers_of(rows[-1][1:])[0] == pytest.approx(columns[:, 2].sum(), abs=3e-6)
    assert columns[:, 3].sum() == pytest.approx(1, abs=3e-6)
    loss = re.search(r"= ([\d.]+) nats", page_text)
    assert loss is not None
    assert float(loss[1]) == pytest.approx(-np.log(found.probabilities[at][label]), abs=2e-4)


def test_what_cannot_be_drawn_is_left_out_with_a_line(browser: Browser, pages: dict[str, Path]) -> None:
    page = open_page(browser, pages["dense"])
    assert page.locator(".section").count() == 0
    assert page.locator(".left-out p").all_inner_texts() == [
        "class activation maps: no layer of the network keeps positions"
    ]
    assert page.locator(".learned figure").count() == 5
    page.close()
    page = open_page(browser, pages["pretrained"])
    assert page.locator(".section").count() == 14
    assert page.locator(".field").count() == 0
    assert page.locator(".left-out p").all_inner_texts() == [
        "class activation maps: the last feature maps have a single position"
    ]
    page.close()


def test_fixed_and_learned_kernels_are_side_by_side(browser: Browser, pages: dict[str, Path]) -> None:
    page = open_page(browser, pages["residual"])
    names = page.locator(".fixed figcaption").all_inner_texts()
    assert names == ["sobel_x", "sobel_y", "scharr_x", "scharr_y"]
    titles = page.locator(".card:has(.kernels) h3").all_inner_texts()
    assert [title.split(" ")[0] for title in titles] == ["Fixed", "Kernels", "Learned"]
    page.close()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_is_self_contained_and_fits_the_window(
    browser: Browser, pages: dict[str, Path], kind: str, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(pages[kind].as_uri())
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(each => each.scrollWidth <= each.clientWidth)"
    )
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert pages[kind].stat().st_size < 4_000_000
    page.close()


def test_names_stay_text(drawn: dict[str, Drawn]) -> None:
    for each in drawn.values():
        assert "<script" not in each.page
        assert "<b>/" not in each.page
        assert "&lt;script&gt;" in each.page
        assert "&lt;b&gt;/" in each.page
