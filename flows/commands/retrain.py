"""`pixelmill retrain`."""

from typing import TYPE_CHECKING, Any

from pixelmill.flows.commands.options import (
    DEFAULT_STORE,
    Json,
    Overrides,
    RecipeReference,
    RetrainAnyway,
    Store,
    VerifyData,
    check_store,
    describe_model,
    print_json,
    print_model,
)
from pixelmill.flows.extras import require_extras
from pixelmill.flows.prefect_session import prefect_session

if TYPE_CHECKING:
    from pixelmill.pipeline.promotion import Promotion
    from pixelmill.pipeline.promotion.unchanged import Unchanged
    from pixelmill.pipeline.run_lock import Skipped


def retrain(
    recipe: RecipeReference,
    overrides: Overrides = None,
    store: Store = DEFAULT_STORE,
    verify_data: VerifyData = False,
    retrain_anyway: RetrainAnyway = False,
    as_json: Json = False,
) -> None:
    """Download and prepare a dataset, then train, evaluate, export, register and promote a model."""
    from pixelmill.pipeline.readiness import check_readiness
    from pixelmill.pipeline.recipes import load_recipe

    checked = load_recipe(recipe, tuple(overrides or ()))
    check_store(store)
    check_readiness(checked, store)
    require_extras()
    from pixelmill.pipeline.promotion import VersionRefused
    from pixelmill.pipeline.promotion.unchanged import Unchanged
    from pixelmill.pipeline.registry import show_model
    from pixelmill.pipeline.run_lock import Skipped

    with prefect_session():
        from pixelmill.flows.passwords import hide
        from pixelmill.flows.retraining import retrain as run_flow

        try:
            result = run_flow(recipe, hide(overrides or ()), str(store), verify_data, retrain_anyway)
        except VersionRefused as refusal:
            if as_json:
                print_json({"state": "refused", "name": checked.name, **refusal.judgement.to_json()})
            raise
    if isinstance(result, Skipped):
        _print_skipped(result, as_json)
        return
    model = show_model(store, f"{result.name}@{result.version}")
    if as_json:
        print_json(
            {
                "state": "unchanged" if isinstance(result, Unchanged) else "promoted",
                **describe_model(model),
                **_gate(result),
            }
        )
        return
    if isinstance(result, Unchanged):
        print(
            "Nothing was trained: data, recipe and packages are those of this version (see --retrain-anyway)."
        )
    print_model(model, as_json)


def _print_skipped(skipped: "Skipped", as_json: bool) -> None:
    """Say which run is at work."""
    from pixelmill.pipeline.run_lock import describe_run

    holder = skipped.holder
    if as_json:
        at_work = {"pid": holder.pid, "run": holder.run, "since": holder.asked_at}
        print_json({"state": "skipped", "name": skipped.name, "at_work": at_work})
        return
    print(f"Nothing was trained: another run of {skipped.name} is at work ({describe_run(holder)}).")


def _gate(result: "Promotion | Unchanged") -> dict[str, Any]:
    """How the version was judged, if it was."""
    from pixelmill.pipeline.promotion import Promotion

    if not isinstance(result, Promotion):
        return {"gate": [], "compared_on": None, "permanent_checks": None, "preview": None}
    judgement = result.judgement.to_json()
    return {name: judgement[name] for name in ("gate", "compared_on", "permanent_checks", "preview")}
