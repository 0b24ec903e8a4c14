"""`pixelmill retrain`."""

from pixelmill.flows.commands.options import (
    DEFAULT_STORE,
    Json,
    Overrides,
    RecipeReference,
    Store,
    VerifyData,
    check_store,
    print_model,
)
from pixelmill.flows.extras import require_extras
from pixelmill.flows.prefect_session import prefect_session


def retrain(
    recipe: RecipeReference,
    overrides: Overrides = None,
    store: Store = DEFAULT_STORE,
    verify_data: VerifyData = False,
    as_json: Json = False,
) -> None:
    """Download and prepare a dataset, then train, evaluate, export, register and promote a model."""
    from pixelmill.pipeline.readiness import check_readiness
    from pixelmill.pipeline.recipes import load_recipe

    checked = load_recipe(recipe, tuple(overrides or ()))
    check_store(store)
    check_readiness(checked, store)
    require_extras()
    from pixelmill.pipeline.registry import show_model

    with prefect_session():
        from pixelmill.flows.retraining import retrain as run_flow

        promotion = run_flow(checked, str(store), verify_data)
    model = show_model(store, f"{promotion.name}@{promotion.version}")
    print_model(model, as_json)
