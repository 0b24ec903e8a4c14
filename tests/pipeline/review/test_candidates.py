"""Which rows of a table are worth a look, and why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelmill.pipeline.drift.baseline import describe_baseline
from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES
from pixelmill.pipeline.drift.sample import ImageSample, position_of
from pixelmill.pipeline.predictions.columns import TableLayout
from pixelmill.pipeline.predictions.table import open_table
from pixelmill.pipeline.review import Candidate
from pixelmill.pipeline.review.candidates import Pools, find_candidates
from pixelmill.pipeline.review.previous import PreviousLabels
from pixelmill.pipeline.review.reasons import REASONS, Evidence, MeasuredImages
from tests.pipeline.predictions.tables import Row, Table

CAT, DOG, BIRD = range(3)
LAYOUT = TableLayout(top_k=2, true_labels=True)


def row(path: str, *choices: tuple[int, float], number: int) -> Row:
    return Row(path, choices, sha256=f"{number:x}" * 64)


ROWS = (
    row("cat/a.png", (CAT, 0.51), (DOG, 0.49), number=1),
    row("cat/b.png", (CAT, 0.91), (DOG, 0.05), number=2),
    row("cat/c.png", (DOG, 0.97), (CAT, 0.02), number=3),
    row("cat/copy-of-a.png", (CAT, 0.51), (DOG, 0.49), number=1),
    row("dog/d.png", (DOG, 0.70), (BIRD, 0.20), number=4),
    Row("dog/e.png", error="corrupt: damaged", sha256="5" * 64),
)


def found(folder: Path, evidence: Evidence | None = None, most: int = 10) -> Pools:
    return find_candidates(open_table(folder), evidence or Evidence(), most)


def scores(pool: list[Candidate]) -> dict[str, Any]:
    return {one.row.path: pytest.approx(one.score, abs=1e-6) for one in pool}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path, ROWS, layout=LAYOUT, rows_in_a_part=4, rows_in_a_group=2)


def test_the_smallest_margin_comes_first_and_equal_contents_once(table: Table) -> None:
    pool = found(table.parquet)["uncertain"]
    expected = {"cat/a.png": 0.98, "dog/d.png": 0.5, "cat/b.png": 0.14, "cat/c.png": 0.05}
    assert scores(pool) == expected
    assert [one.row.path for one in pool] == list(expected)
    assert REASONS["uncertain"].describe(pool[0].row, Evidence()) == "cat has 0.510, and dog has 0.490"


def test_only_as_many_are_kept_as_wanted(table: Table) -> None:
    assert [one.row.path for one in found(table.parquet, most=2)["uncertain"]] == ["cat/a.png", "dog/d.png"]


def test_both_formats_give_the_same_candidates(table: Table) -> None:
    evidence = Evidence(thresholds=(0.9, None, 0.5))
    parquet, text = found(table.parquet, evidence), found(table.csv, evidence)
    assert {name: scores(pool) for name, pool in text.items()} == {
        name: scores(pool) for name, pool in parquet.items()
    }
    assert [one.row for one in parquet["uncertain"]] == [one.row for one in text["uncertain"]]


def test_a_table_with_one_class_a_row_has_its_probability(tmp_path: Path) -> None:
    pool = found(Table(tmp_path, ROWS).parquet)["uncertain"]
    assert pool[0].row.path == "cat/a.png"
    assert pool[0].score == pytest.approx(0.49)
    assert REASONS["uncertain"].describe(pool[0].row, Evidence()) == "the most probable class has 0.510"


def test_the_nearest_to_its_threshold_comes_first(table: Table) -> None:
    evidence = Evidence(thresholds=(0.9, None, 0.5))
    pool = found(table.parquet, evidence)["threshold"]
    assert scores(pool) == {"cat/b.png": 0.99, "cat/a.png": 0.61}
    words = REASONS["threshold"].describe(pool[0].row, evidence)
    assert words == "accepted with 0.910: the threshold of cat is 0.900"
    assert "not accepted" in REASONS["threshold"].describe(pool[1].row, evidence)
    assert found(table.parquet)["threshold"] == []


def test_what_an_earlier_table_said_otherwise(table: Table, tmp_path: Path) -> None:
    before = (
        row("x.png", (DOG, 0.6), (CAT, 0.3), number=1),
        row("y.png", (CAT, 0.6), (DOG, 0.3), number=2),
        row("z.png", (BIRD, 0.6), (CAT, 0.3), number=4),
    )
    earlier = Table(tmp_path / "before", before, layout=TableLayout(top_k=2))
    evidence = Evidence(previous=PreviousLabels(open_table(earlier.parquet)))
    pool = found(table.parquet, evidence)["changed"]
    assert scores(pool) == {"dog/d.png": 0.70, "cat/a.png": 0.51}
    words = REASONS["changed"].describe(pool[0].row, evidence)
    assert words == "bird in the previous table, dog with 0.700 now"
    assert found(table.parquet)["changed"] == []


def test_predictions_that_contradict_the_folder(table: Table) -> None:
    pool = found(table.parquet)["contradicted"]
    assert scores(pool) == {"cat/c.png": 0.97}
    assert REASONS["contradicted"].describe(pool[0].row, Evidence()) == "labelled cat, but dog has 0.970"


def test_images_unlike_the_test_images(table: Table) -> None:
    values = np.full((101, len(IMAGE_MEASURES)), 0.5, np.float32)
    values[:, 0] = np.linspace(0, 1, 101)
    baseline: dict[str, Any] = describe_baseline(np.full((1, 3), 1 / 3, np.float32), None, values)
    measured = np.full((2, len(IMAGE_MEASURES)), 0.5, np.float32)
    measured[:, 0] = 0.5, 1.4
    rows = tuple(row(f"{number}.png", (CAT, 0.9), (DOG, 0.1), number=number) for number in (2, 4, 9))
    sample = ImageSample(1.0, np.array([position_of(one.sha256 or "") for one in rows[:2]]), measured)
    evidence = Evidence(measured=MeasuredImages.of(sample, baseline))
    pool = found(Table(table.parquet.parent / "other", rows, layout=LAYOUT).parquet, evidence)["drifted"]
    # 90% of the test images have 0.05 to 0.95, so 1.4 is half of that width outside.
    assert scores(pool) == {"4.png": pytest.approx(1 / 3, abs=0.02)}
    words = REASONS["drifted"].describe(pool[0].row, evidence)
    assert words.startswith("brightness 1.4; 90% of the test images have 0.0")
