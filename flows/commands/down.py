"""`pixelmill down`."""

from pixelmill.flows.commands.options import DEFAULT_STORE, Json, Store, print_json
from pixelmill.flows.commands.up import say
from pixelmill.flows.local_server import stop_server


def down(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """End the worker with its runs and the server that `pixelmill up` started, and nothing else."""
    ended = stop_server(store, say)
    if as_json:
        print_json({"ended": list(ended)})
    elif ended:
        print(f"Ended: {', '.join(ended)}. A retraining that was running resumes from its last epoch.")
    else:
        print("Nothing was running.")
