"""The list of what may be removed, and its removal."""

from collections.abc import Callable, Sequence

from pixelmill.pipeline.prune import Candidate, PruneRequest
from pixelmill.pipeline.prune.versions import find_versions, remove_version
from pixelmill.pipeline.prune.working_files import find_working_files, remove_working_files


def find_candidates(request: PruneRequest) -> list[Candidate]:
    """What may be removed; removes nothing.

    Raises:
        RequestError: The aliases of a model are malformed.
    """
    versions, kept = find_versions(request)
    return [*versions, *find_working_files(request, kept)]


def remove_candidates(
    request: PruneRequest,
    candidates: Sequence[Candidate],
    removed: Callable[[Candidate], None] = lambda _: None,
) -> list[Candidate]:
    """Remove candidates, except those that something has begun to need since they were listed.

    Args:
        request: The request that they were listed for.
        candidates: What to remove.
        removed: Called with each after its removal.

    Returns:
        Those that were removed.
    """
    done = []
    for candidate in candidates:
        is_removed = (
            remove_version(request.store, candidate)
            if candidate.kind == "version"
            else remove_working_files(request, candidate)
        )
        if is_removed:
            removed(candidate)
            done.append(candidate)
    return done
