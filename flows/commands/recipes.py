"""`pixelmill recipes`: the built-in recipes and the fields of a recipe."""

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pixelmill.flows.commands.console import remember_options
from pixelmill.flows.commands.options import (
    Json,
    Overrides,
    RecipeReference,
    print_json,
    refuse_group_options,
)

if TYPE_CHECKING:
    from pixelmill.pipeline.recipes.fields import FieldGroup

recipes_app = typer.Typer(help="Show recipes and explain their fields.")
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
