"""The throughput of scoring, compared with the limit and with alternatives in the same run.

    python -m tests.benchmarks.score_throughput [--small-images N] [--photographs N] [--rounds R]

In each round, every contender predicts all files once, so that a slow machine affects all of them.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any

from pixelmill.pipeline.resources import processor_limit
from tests.benchmarks.contenders import CONTENDERS, Measurement
from tests.benchmarks.material import PHOTOGRAPHS, SMALL, Workload, prepare


def measure(workload: Workload, rounds: int) -> dict[str, list[Measurement]]:
    """Run the contenders alternately."""
    measured: dict[str, list[Measurement]] = {name: [] for name in CONTENDERS}
    files = len(workload.files())
    for number in range(rounds):
        for name, run in CONTENDERS.items():
            measurement = run(workload)
            assert measurement.predictions == files, f"{name} predicted {measurement.predictions} of {files}"
            measured[name].append(measurement)
            rate = files / measurement.seconds
            print(f"  round {number + 1} of {rounds}: {name} {rate:,.0f} images/s", flush=True)
    return measured


def summarize(workload: Workload, measured: dict[str, list[Measurement]]) -> dict[str, Any]:
    """The rate of each contender, and the ratio of pixelmill's rate to it.

    Each ratio is the median over the rounds, so it compares rates that were measured together.
    """
    rates = {name: [one.predictions / one.seconds for one in runs] for name, runs in measured.items()}

    def ratio(above: str, below: str) -> float:
        return median(a / b for a, b in zip(rates[above], rates[below], strict=True))

    pixelmill = measured["pixelmill"]
    return {
        "images": pixelmill[0].predictions,
        "mean_bytes": round(mean(Path(file).stat().st_size for file in workload.files())),
        "processors": processor_limit().count,
        "images_per_second": rates,
        "of_limit": {name: ratio(name, "limit") for name in rates},
        "pixelmill_to": {name: ratio("pixelmill", name) for name in rates},
        "pixelmill_seconds": [one.seconds + one.startup_seconds for one in pixelmill],
        "pixelmill_startup_seconds": [one.startup_seconds for one in pixelmill],
    }


def show(kind: str, summary: dict[str, Any]) -> None:
    """Print the table of one kind of images."""
    size = f"{summary['images']:,} images of {summary['mean_bytes']:,} bytes on average"
    print(f"\n{kind}: {size}, {summary['processors']} processors")
    print(f"  {'contender':<16}{'images/s':>10}  {'(min..max)':<20}{'of the limit':>12}{'pixelmill is':>14}")
    for name, rates in summary["images_per_second"].items():
        spread = f"({min(rates):,.0f}..{max(rates):,.0f})"
        of_limit, times = summary["of_limit"][name], summary["pixelmill_to"][name]
        print(f"  {name:<16}{median(rates):>10,.0f}  {spread:<20}{of_limit:>12.2f}{times:>13.2f}x")
    total, startup = (median(summary[f"pixelmill_{key}"]) for key in ("seconds", "startup_seconds"))
    print(f"  pixelmill's whole call: {total:.2f} s, of which start-up {startup:.2f} s (not in images/s)")
    rivals = ", ".join(
        f"{times:.1f}x {name}"
        for name, times in summary["pixelmill_to"].items()
        if name not in ("pixelmill", "limit")
    )
    print(f"  pixelmill reaches {summary['of_limit']['pixelmill']:.2f} of the limit; {rivals}\n", flush=True)


def main() -> None:
    """Create the data, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--small-images", type=int, default=60_000, help="files of 32x32; 0 leaves them out")
    parser.add_argument("--photographs", type=int, default=1000, help="files of 1600x1200; 0 leaves them out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the files there, and use those that are there")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    options = parser.parse_args()
    summaries = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        for kind, images in ((SMALL, options.small_images), (PHOTOGRAPHS, options.photographs)):
            if images:
                workload = prepare(kind, images, folder)
                summaries[kind.name] = summarize(workload, measure(workload, options.rounds))
                show(kind.name, summaries[kind.name])
    if options.json:
        options.json.write_text(json.dumps(summaries, indent=2) + "\n")


if __name__ == "__main__":
    main()
