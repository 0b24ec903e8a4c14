"""Scoring a folder from the first to the last stage."""

from pipeline.scoring import PredictionTable, ScoringRequest
from pipeline.scoring.committing import commit_table
from pipeline.scoring.planning import holding_output, plan_scoring
from pipeline.scoring.running import score_shards


def score_folder(request: ScoringRequest) -> PredictionTable:
    """List, score, commit; see `pipeline.scoring`.

    Raises:
        RequestError: The request cannot be met.
        WorkError: The work failed; what is finished is kept for the next try.
    """
    with holding_output(request.output):
        plan = plan_scoring(request)
        outcome = score_shards(plan)
        return commit_table(plan, outcome)
