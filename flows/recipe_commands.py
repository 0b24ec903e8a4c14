"""`pixelmill recipes`: what a retraining run can be asked to do."""

import typer

from flows.options import Json, Overrides, RecipeReference, print_json, refuse_group_options

recipes_app = typer.Typer(help="What a retraining run can be asked to do.")


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context, as_json: Json = False) -> None:
    """List the recipes when no other command is given."""
    if context.invoked_subcommand is None:
        recipes_list(as_json)
    else:
        refuse_group_options(context)


@recipes_app.command("list")
def recipes_list(as_json: Json = False) -> None:
    """The recipes that come with pixelmill."""
    from pipeline.recipes import shipped_recipes

    if as_json:
        print_json({"recipes": shipped_recipes()})
    else:
        print("\n".join(shipped_recipes()))


@recipes_app.command("show")
def recipes_show(
    recipe: RecipeReference,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """A recipe with every default spelled out."""
    from pipeline.recipes import dump_recipe, load_recipe

    checked = load_recipe(recipe, tuple(overrides or ()))
    if as_json:
        print_json(checked.model_dump(mode="json"))
    else:
        print(dump_recipe(checked), end="")
