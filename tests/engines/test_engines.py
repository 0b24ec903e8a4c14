"""Every engine predicts the probabilities of Keras, in one batch and image by image, for every layer."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.export.parity import MAX_ALLOWED, MIN_ALLOWED
from tests.engines.cases import (
    FOREIGN_LAYERS,
    OTHER_LAYERS,
    Case,
    make_cases,
    make_deep_cases,
    recipe_cases,
)
from tests.engines.matrix import MATRIX, MatrixEngine, NotInstalledError, Predictions
from tests.engines.table import PAGE, Row, read_table, write_table

# The networks are created once, in the one worker that runs these tests.
pytestmark = pytest.mark.xdist_group("engines")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    return make_cases(tmp_path_factory.mktemp("engines") / "cases")


@pytest.fixture(scope="module")
def deep_cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    return make_deep_cases(tmp_path_factory.mktemp("engines") / "deep")


def test_every_recipe_is_a_case_with_distinct_predictions(cases: tuple[Case, ...]) -> None:
    assert {case.name for case in cases} == {*recipe_cases(), OTHER_LAYERS, FOREIGN_LAYERS}
    for case in cases:
        apart = np.abs(case.probabilities[:, np.newaxis] - case.probabilities).max(-1)
        assert (apart + np.eye(len(apart)) > 100 * MIN_ALLOWED).all()


@pytest.mark.parametrize(
    "engine",
    [pytest.param(engine, id=engine.title, marks=[pytest.mark.slow] * engine.slow) for engine in MATRIX],
)
def test_an_engine_predicts_the_probabilities_of_keras(engine: MatrixEngine, cases: tuple[Case, ...]) -> None:
    assert differing(engine, cases) == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", MATRIX, ids=lambda engine: engine.title)
def test_an_engine_predicts_the_deep_networks_that_the_table_says(
    engine: MatrixEngine, deep_cases: tuple[Case, ...]
) -> None:
    (row,) = [row for row in read_table() if row.title == engine.title]
    if row.deep is None:
        pytest.skip(f"{engine.title} does not run these networks")
    assert differing(engine, deep_cases) == []


def differing(engine: MatrixEngine, cases: tuple[Case, ...]) -> list[str]:
    """The cases for which an engine differs from Keras by more than is allowed; skips one that is missing."""
    try:
        predictions = engine.predict(cases)
    except NotInstalledError as error:
        pytest.skip(f"{engine.title} is not installed here: {error}")
    differences = predictions.differences(cases)
    return [case.name for case in cases if not differences[case.name] <= case.allowed]


def test_predictions_in_another_order_or_shape_differ(cases: tuple[Case, ...]) -> None:
    right = {case.name: np.concatenate([case.probabilities] * 2) for case in cases}
    assert set(Predictions("", right).differences(cases).values()) == {0.0}
    turned = {name: rows[::-1] for name, rows in right.items()}
    assert min(Predictions("", turned).differences(cases).values()) > MIN_ALLOWED
    unknown = {name: rows * np.nan for name, rows in right.items()}
    assert not any(found <= MIN_ALLOWED for found in Predictions("", unknown).differences(cases).values())
    short = {name: rows[:-1] for name, rows in right.items()}
    with pytest.raises(ValueError, match="shape"):
        Predictions("", short).differences(cases)


def test_the_table_lists_exactly_the_engines() -> None:
    table = read_table()
    assert [(row.title, row.needed) for row in table] == [(engine.title, engine.needed) for engine in MATRIX]
    assert all(row.difference is not None and row.difference <= MIN_ALLOWED for row in table)
    assert all(row.deep is None or row.deep <= MAX_ALLOWED for row in table)
    assert all(row.version for row in table)


def test_the_table_is_read_as_written(tmp_path: Path) -> None:
    copy = tmp_path / "bundle.md"
    shutil.copyfile(PAGE, copy)
    rows = [
        Row("an engine", "1.2 in a browser", 3.1e-07, 2e-05, "`nothing`"),
        Row("another", "2", 0.0, None, "much"),
    ]
    write_table(rows, copy)
    assert read_table(copy) == rows
    write_table(read_table(), copy)
    assert copy.read_text() == PAGE.read_text()
