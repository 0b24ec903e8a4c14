"""The command and the flow get every option of a scoring run, and its default, from one place."""

import inspect
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from typer.main import get_command

import pixelmill
from pixelmill.flows.command_line import app
from pixelmill.flows.commands.options import format_size, parse_size
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.options import ScoringOptions, check_values, scoring_options

OWN = {"model", "images", "output", "precision", "store", "as_json", "quiet", "help"}


def with_options(description: str) -> str:
    """A description with the options of the command in place of the fields that it names."""
    for option in scoring_options():
        description = description.replace(f"`{option.name}`", f"--{option.name.replace('_', '-')}")
    return description


def test_every_option_is_an_option_of_the_command_with_its_help() -> None:
    group: Any = get_command(app)
    score = group.commands["score"]
    options = {each.name: each for each in score.get_params(typer.Context(score)) if each.name not in OWN}
    assert [*options] == [option.name for option in scoring_options()]
    for option in scoring_options():
        name = "--glob" if option.name == "globs" else f"--{option.name.replace('_', '-')}"
        assert options[option.name].opts == [name]
        assert options[option.name].help == with_options(option.description)


def test_every_option_is_a_parameter_of_the_flow_with_its_help() -> None:
    from pixelmill.flows.batch_scoring import score

    own = {"model", "images", "output", "store", "precision"}
    shown = {name: field for name, field in score.parameters.properties.items() if name not in own}
    assert [*shown] == [option.name for option in scoring_options()]
    for option in scoring_options():
        assert shown[option.name]["description"] == option.description
        assert shown[option.name]["default"] == ([] if option.name == "globs" else option.default)


def test_a_request_has_the_fields_of_the_options() -> None:
    parameters = inspect.signature(ScoringRequest).parameters
    assert [*parameters][:3] == ["bundle", "images", "output"]
    assert {*parameters} - {"bundle", "images", "output"} == {*get_type_hints(ScoringOptions)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"top_k": 0}, "`top_k` 0; expected at least 1"),
        ({"top_k": True}, "`top_k` True; expected at least 1"),
        ({"executor": "cluster"}, "`executor` cluster; expected 'local' or 'dask'"),
        ({"format": "xlsx"}, "`format` xlsx; expected 'parquet' or 'csv'"),
        ({"fresh": "yes"}, "`fresh` yes; expected a valid boolean"),
    ],
)
def test_an_invalid_value_of_a_field_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        check_values(ScoringOptions(**change))


def test_the_python_function_accepts_the_same_options(trained_store: Path, bundle: ModelBundle) -> None:
    with pytest.raises(RequestError, match=r"the option 'top'; expected one of format, top_k,"):
        pixelmill.score_folder(str(bundle.folder), "images", "out", trained_store, top=3)
    request = ScoringRequest.from_options(bundle, "images", "out", {"previous": "old", "globs": ["*.png"]})
    assert (request.previous, request.globs, request.images) == (Path("old"), ("*.png",), Path("images"))


@pytest.mark.parametrize(("size", "text"), [(1 << 30, "1GB"), (3 << 29, "1536MB"), (5 << 20, "5MB")])
def test_a_formatted_size_can_be_parsed(size: int, text: str) -> None:
    assert format_size(size) == text
    assert parse_size("--max-image-memory", text) == size
