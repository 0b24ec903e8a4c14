"""`pixelmill recipes`: the built-in recipes, the fields of a recipe, and a recipe for a folder."""

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelmill.flows.commands.console import remember_options
from pixelmill.flows.commands.options import (
    Json,
    Overrides,
    RecipeReference,
    print_json,
    refuse_group_options,
    shown,
)
from pixelmill.pipeline.errors import RequestError

if TYPE_CHECKING:
    from pixelmill.pipeline.recipes.fields import FieldGroup

recipes_app = typer.Typer(help="Show recipes, explain their fields, and suggest one for a folder.")
_DEFAULT_CLASSES = 10
_WIDTH = 100


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context, as_json: Json = False) -> None:
    """Show recipes and explain their fields; without a command, list the recipes."""
    remember_options(context)
    if context.invoked_subcommand is None:
        recipes_list(as_json)
    else:
        refuse_group_options(context)


@recipes_app.command("list")
def recipes_list(as_json: Json = False) -> None:
    """List the built-in recipes."""
    from pixelmill.pipeline.recipes import shipped_recipes

    if as_json:
        print_json({"recipes": shipped_recipes()})
    else:
        print("\n".join(shipped_recipes()))


@recipes_app.command("show")
def recipes_show(
    recipe: RecipeReference,
    overrides: Overrides = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="The number of classes, if the dataset is not downloaded.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a recipe with all defaults, and a summary of its network as comments."""
    from pixelmill.flows.network_table import render_network, total_multiply_adds, total_parameters
    from pixelmill.pipeline.datasets.download import count_classes
    from pixelmill.pipeline.layers import count_outputs, summarize_layers
    from pixelmill.pipeline.recipes import dump_recipe, load_recipe

    checked = load_recipe(recipe, tuple(overrides or ()))
    known = count_outputs(checked.model) or classes or count_classes(checked.dataset)
    assumed = known or _DEFAULT_CLASSES
    rows = summarize_layers(checked.model, checked.image, assumed)
    if as_json:
        network = {
            "classes": assumed,
            "parameters": total_parameters(rows),
            "multiply_adds": total_multiply_adds(rows),
            "layers": [asdict(row) for row in rows],
        }
        print_json({"recipe": checked.model_dump(mode="json"), "network": network})
        return
    print(dump_recipe(checked))
    image = checked.image
    table = render_network((image.height, image.width, image.channels), rows)
    print("\n".join(f"# {line}".rstrip() for line in table.splitlines()))
    if known is None:
        print(
            f"# The dataset is not downloaded: {assumed} classes are assumed; set --classes N to change it."
        )


@recipes_app.command("explain")
def recipes_explain(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]", help="A field, the beginning of a key, or a type of layer or dataset."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Explain the fields of a recipe: type, default and meaning."""
    from pixelmill.pipeline.recipes.fields import find_groups, list_groups

    groups = list_groups() if key is None else find_groups(key)
    if as_json:
        print_json({"groups": [asdict(group) for group in groups]})
        return
    print("\n\n".join(_describe_group(group) for group in groups))


@recipes_app.command("suggest")
def recipes_suggest(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder with one subfolder per class.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Where the recipe is written.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="imagenet|FILE|URL|none",
            help="Pretrained weights for photographs; none: trained from nothing.",
        ),
    ] = "imagenet",
    as_json: Json = False,
) -> None:
    """Look at the images of a folder, and write a recipe for them with a comment for each choice."""
    from pixelmill.pipeline.artifacts import write_text
    from pixelmill.pipeline.recipes import parse_recipe
    from pixelmill.pipeline.recipes.yaml_text import parse_yaml
    from pixelmill.pipeline.suggestion.recipe_text import write_recipe
    from pixelmill.pipeline.suggestion.survey import survey_folder

    if output is not None and output.exists():
        raise RequestError(f"--output {output} exists", "a new file", "Choose another name, or remove it.")
    facts = survey_folder(_absolute(folder))
    text = write_recipe(facts, weights)
    recipe = parse_recipe(parse_yaml(text, "the suggested recipe"), "suggested")
    if output is not None:
        write_text(output, text)
    if as_json:
        print_json({"recipe": recipe.model_dump(mode="json"), "folder": asdict(facts)})
    elif output is None:
        print(text, end="")
    else:
        print(f"{shown(output)}; train it with `pixelmill retrain {shown(output)}`")


def _absolute(folder: str) -> str:
    """An address as it is, a path as one that does not depend on where a recipe is used."""
    return folder if "://" in folder else str(Path(folder).absolute())


def _describe_group(group: "FieldGroup") -> str:
    place = f"{group.key or 'recipe'}{f' ({group.where})' if group.where else ''}"
    lines = _wrap(f"{place}: {group.meaning}", "")
    for field in group.fields:
        default = "required" if field.default is None else f"default {field.default}"
        lines += _wrap(f"{field.key}: {field.type}; {default}", "  ")
        lines += _wrap(field.meaning, "      ")
    return "\n".join(lines)


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
