"""`pixelmill predict` as a user runs it."""

from pathlib import Path

import pandas as pd
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from tests.conftest import Run


@pytest.fixture
def images(bundle: ModelBundle) -> list[Path]:
    return sorted((bundle.folder / "golden").glob("*.png"))


def test_each_image_has_a_line_with_its_classes(run: Run, bundle: ModelBundle, images: list[Path]) -> None:
    result = run("predict", bundle.folder, *images, "--top-k", 3)
    assert result.code == 0, result.errors
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines] == [str(image) for image in images]
    for line in lines:
        label, probability, second, second_probability, *_ = line.replace(",", "").split()[1:]
        assert label in bundle.labels()
        assert second in bundle.labels()
        assert float(probability) > float(second_probability) > 0


def test_predictions_are_those_of_a_table(
    run: Run, trained_store: Path, images: list[Path], tmp_path: Path
) -> None:
    options = ("--store", trained_store)
    printed = run("predict", "digits@champion", *images, "--top-k", 10, "--json", *options).json
    assert printed["model_name"] == "digits"
    assert printed["model_version"] == 1
    assert run("score", "digits@champion", images[0].parent, "--output", tmp_path / "out", *options).code == 0
    table = pd.read_parquet(tmp_path / "out/predictions").set_index("image_path")
    for image in printed["images"]:
        row = table.loc[Path(image["image_path"]).name]
        assert (image["status"], image["label"]) == ("scored", row["label"])
        assert image["probability"] == pytest.approx(row["probability"], abs=0)
        assert sum(image["top_probabilities"]) == pytest.approx(1, abs=1e-5)


def test_one_bad_file_does_not_cost_the_others(
    run: Run, bundle: ModelBundle, images: list[Path], tmp_path: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    files = [text, tmp_path / "missing.png", images[0], images[0]]
    result = run("predict", bundle.folder, *files)
    assert result.code == 1
    broken, missing, *predicted = result.output.splitlines()
    assert "failed" in broken
    assert "not_an_image" in broken
    assert "No such file" in missing
    assert len(set(predicted)) == 1
    assert len(predicted) == 2
    assert "Traceback" not in result.errors
    assert result.last_error.startswith("pixelmill: no prediction for 2 of 4 images")
    described = run("predict", bundle.folder, *files, "--json")
    assert described.code == 1
    assert [image["status"] for image in described.json["images"]] == ["failed"] * 2 + ["scored"] * 2


def test_requests_that_are_wrong_are_one_line(run: Run, bundle: ModelBundle, images: list[Path]) -> None:
    assert run("predict", "digits@nine", images[0]).code == 2
    assert run("predict", bundle.folder, images[0], "--top-k", 0).code == 2
    assert run("predict", bundle.folder).code == 2
