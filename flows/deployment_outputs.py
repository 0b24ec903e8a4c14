"""The folders that the deployments of a server write tables to."""

from pathlib import Path

from pixelmill.flows.server_api import ServerApi
from pixelmill.flows.server_record import ServerRecord
from pixelmill.pipeline.storage import Location, parse_location


def deployment_outputs(api: ServerApi | None, record: ServerRecord | None) -> list[Location]:
    """The outputs of the deployments: tables, folders of dated tables, and what interrupted runs left there.

    Args:
        api: The server; None without one, and then there are no outputs.
        record: What is known of the server, whose folder relative outputs start from.
    """
    home = Path(record.home) if record else Path()
    found = []
    for deployment in api.every("deployments/filter") if api else ():
        for name in ("output", "root"):
            value = (deployment["parameters"] or {}).get(name)
            if isinstance(value, str) and value:
                place = parse_location(value)
                found.append(home / place if isinstance(place, Path) else place)
    return found
