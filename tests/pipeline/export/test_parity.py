"""Comparing an ONNX file's predictions with Keras's: label flips, ties, differences, missing predictions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.artifacts import write_json
from pixelmill.pipeline.bundles import ModelBundle, read_allowed_difference
from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.export.held_out import HeldOut, from_folder
from pixelmill.pipeline.export.parity import (
    Comparison,
    Parity,
    Tolerance,
    choose_tolerance,
    measure_parity,
    require_parity,
)
from pixelmill.pipeline.export.prediction import FilePredictions
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.inference import Probabilities, load_session

CLASSES = ("cat", "dog", "bird")
KERAS = np.array([[0.7, 0.2, 0.1], [0.5, 0.499, 0.001], [0.1, 0.1, 0.8]], np.float32)
FILES = ("a.png", "b.png", "c.png")


def predictions(probabilities: Probabilities) -> FilePredictions:
    return FilePredictions(probabilities, np.array([not np.isnan(row).all() for row in probabilities]))


def compare(
    *probabilities: Probabilities,
    keras: Probabilities = KERAS,
    allowed: float = 1e-5,
    tie_margin: float = 0.01,
) -> Parity:
    comparison = Comparison(predictions(keras), Tolerance(1e-7, allowed, tie_margin))
    for other in probabilities:
        comparison.add(slice(0, len(keras)), other)
    return comparison.conclude(FILES, CLASSES, (1, 64))


def changed(row: int, values: list[float]) -> Probabilities:
    probabilities = KERAS.copy()
    probabilities[row] = values
    return probabilities


def test_equal_predictions_agree() -> None:
    parity = compare(KERAS, KERAS)
    assert parity == Parity(3, 0, 0, "", 0, 0, 0.01, 0.0, 1e-7, 1e-5, (1, 64), ())
    require_parity(parity)


def test_a_label_flip_is_reported_however_small_the_difference() -> None:
    parity = compare(changed(2, [0.3, 0.1, 0.6]), changed(0, [0.44, 0.46, 0.1]), allowed=0.9)
    assert (parity.label_flips, parity.tied_flips) == (1, 0)
    flipped, largest = parity.files
    assert (flipped.file, flipped.keras_label, flipped.onnx_label) == ("a.png", "cat", "dog")
    assert flipped.keras_probability == pytest.approx(0.7)
    assert flipped.onnx_probability == pytest.approx(0.46)
    assert largest.file == "c.png"
    assert largest.difference == pytest.approx(0.2)
    with pytest.raises(
        GateRefused,
        match=r"1 of 3 .* the worst is a.png: Keras predicts cat \(0.7000\), ONNX dog .*export\.tie_margin",
    ):
        require_parity(parity)


def test_a_label_flip_between_ties_is_counted_but_allowed() -> None:
    probabilities = changed(1, [0.499, 0.5, 0.001])
    parity = compare(probabilities, allowed=0.01)
    assert (parity.label_flips, parity.tied_flips) == (0, 1)
    require_parity(parity)
    assert compare(probabilities, tie_margin=0.0005).label_flips == 1


def test_a_difference_without_a_label_flip_is_refused() -> None:
    parity = compare(changed(0, [0.69, 0.21, 0.1]), allowed=0.005)
    assert parity.label_flips == 0
    with pytest.raises(
        GateRefused, match=r"largest difference of 0\.01.*less than 0\.005.*export\.max_abs_difference"
    ):
        require_parity(parity)
    require_parity(compare(changed(0, [0.69, 0.21, 0.1]), allowed=0.02))


def test_a_missing_prediction_is_refused() -> None:
    nothing = [np.nan] * 3
    one_sided = compare(KERAS, keras=changed(1, nothing))
    assert (one_sided.unreadable, one_sided.max_abs_difference) == (0, np.inf)
    with pytest.raises(GateRefused, match="difference of inf"):
        require_parity(one_sided)
    both = compare(changed(1, nothing), keras=changed(1, nothing))
    assert (both.images, both.unreadable, both.max_abs_difference) == (2, 1, 0.0)
    with pytest.raises(GateRefused, match="none of which can be read"):
        require_parity(compare(np.full_like(KERAS, np.nan), keras=np.full_like(KERAS, np.nan)))


@pytest.mark.parametrize(
    "row",
    [
        [np.nan] * 3,
        [np.nan, 0.5, 0.5],
        [0.5, np.nan, 0.5],
        [np.inf, 0.0, 0.0],
        [-np.inf, 1.0, 0.0],
        [0.0, 0.0, 0.0],
        [0.7, 0.2, 0.2],
        [1.5, -0.5, 0.0],
    ],
)
def test_a_row_that_is_not_a_distribution_is_refused_with_its_image(row: list[float]) -> None:
    # In one of two runs, whatever the other one predicts.
    for runs in ((changed(1, row), KERAS), (KERAS, changed(1, row))):
        parity = compare(*runs, allowed=0.9)
        assert (parity.images, parity.unreadable) == (3, 0)
        assert (parity.invalid, parity.first_invalid, parity.max_abs_difference) == (1, "b.png", np.inf)
        with pytest.raises(
            GateRefused, match=r"valid probabilities for 1 of 3 .* the first of which is b\.png"
        ):
            require_parity(parity)


@pytest.mark.parametrize(
    ("noise", "changes", "allowed", "tie_margin"),
    [
        (0.0, {}, 1e-5, 2e-5),
        (1e-6, {}, 1e-5, 2e-5),
        (5e-6, {}, 4e-5, 8e-5),
        (1.0, {}, 1e-3, 2e-3),
        (5e-6, {"max_abs_difference": 1e-6}, 1e-6, 2e-6),
        (5e-6, {"max_abs_difference": 0.1}, 0.1, 0.2),
        (5e-6, {"tie_margin": 0.0}, 4e-5, 0.0),
    ],
)
def test_the_allowed_difference_follows_the_rounding_error(
    noise: float, changes: dict[str, float], allowed: float, tie_margin: float
) -> None:
    found = choose_tolerance(noise, ExportSpec.model_validate(changes))
    assert (found.noise, found.allowed_difference, found.tie_margin) == pytest.approx(
        (noise, allowed, tie_margin)
    )


@pytest.mark.parametrize(
    "content", [{}, [], {"allowed_difference": "1"}, {"allowed_difference": 0.0}, {"allowed_difference": 2.0}]
)
def test_an_invalid_allowed_difference_is_refused(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / "parity.json", {"allowed_difference": 3e-5})
    assert read_allowed_difference(tmp_path) == 3e-5
    write_json(tmp_path / "parity.json", content)
    with pytest.raises(RequestError, match=r"parity\.json has an invalid allowed_difference"):
        read_allowed_difference(tmp_path)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), st.floats(0, 0.2))
def test_the_comparison_matches_a_direct_computation(seeds: list[int], tie_margin: float) -> None:
    def draw(seed: int) -> Probabilities:
        return np.random.default_rng(seed).dirichlet(np.ones(3), 3).astype(np.float32)

    keras, others = draw(0), [draw(seed) for seed in seeds]
    parity = compare(*others, keras=keras, tie_margin=tie_margin)
    exact = [np.abs(other.astype(np.float64) - keras) for other in others]
    assert parity.max_abs_difference == pytest.approx(max(difference.max() for difference in exact))
    flipped = [
        any(other[row].argmax() != keras[row].argmax() for other in others) for row in range(len(keras))
    ]
    assert parity.label_flips + parity.tied_flips == sum(flipped)


@pytest.fixture
def held_out(bundle: ModelBundle, tmp_path: Path) -> HeldOut:
    random = np.random.default_rng(0)
    for index in range(70):
        folder = tmp_path / "images" / str(index % 10)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(encode_png(random.integers(0, 256, (8, 8, 1), np.uint8)))
    (tmp_path / "images/7/broken.png").write_bytes(b"no image")
    return from_folder(tmp_path / "images", bundle.labels(), bundle.image_spec())


def test_files_are_predicted_by_a_scoring_run(bundle: ModelBundle, held_out: HeldOut, tmp_path: Path) -> None:
    from pixelmill.pipeline.images import ImageFailure, decode

    session, probabilities = load_session(bundle.onnx_path), np.full((71, 10), np.nan, np.float32)
    for row, file in enumerate(held_out.files()):
        try:
            tensor = decode(file.read_bytes(), bundle.image_spec()).pixels
        except ImageFailure:
            continue
        probabilities[row] = session.probabilities(tensor[np.newaxis])[0]
    tolerance = Tolerance(0.0, 1e-5, 2e-5)
    parity = measure_parity(
        bundle, held_out, predictions(probabilities), tolerance, (3, 16), tmp_path / "table"
    )
    assert (parity.images, parity.unreadable, parity.label_flips) == (70, 1, 0)
    assert parity.max_abs_difference < 1e-6
    assert (tmp_path / "table/manifest.json").is_file()
    # The predictions of two files are exchanged, which the proof must detect in either order.
    swapped = probabilities.copy()
    swapped[[0, 12]] = probabilities[[12, 0]]
    parity = measure_parity(bundle, held_out, predictions(swapped), tolerance, (3, 16), tmp_path / "again")
    assert {one.file for one in parity.files[:2]} == {held_out.origins[0], held_out.origins[12]}
    assert parity.max_abs_difference > 1e-3


def test_a_file_that_changes_between_predictions_is_refused(
    bundle: ModelBundle, held_out: HeldOut, tmp_path: Path
) -> None:
    fewer = replace(held_out, paths=held_out.paths[1:], origins=held_out.origins[1:])
    with pytest.raises(GateRefused, match="differ from the listed files"):
        measure_parity(
            bundle,
            fewer,
            predictions(np.full((70, 10), 0.1, np.float32)),
            Tolerance(0.0, 1e-5, 2e-5),
            (1, 64),
            tmp_path / "table",
        )
