"""`python -m tests.engines`: run every engine of the matrix, and write the table in `docs/bundle.md`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pixelmill.pipeline.export.parity import MIN_ALLOWED
from tests.engines.cases import Case, make_cases
from tests.engines.matrix import MATRIX, MatrixEngine, NotInstalledError
from tests.engines.table import Row, write_table


def main() -> int:
    """Print the result of each engine; the exit code is 1 if one differs, fails or is missing."""
    with TemporaryDirectory() as folder:
        cases = make_cases(Path(folder, "cases"))
        print(f"{len(cases)} networks: {', '.join(case.name for case in cases)}", flush=True)
        rows = [_measure(engine, cases) for engine in MATRIX]
    agreeing = [row for row in rows if row is not None and row.difference <= MIN_ALLOWED]
    if len(agreeing) < len(MATRIX):
        print("The table in docs/bundle.md stays as it is: not every engine agreed.")
        return 1
    write_table(agreeing)
    return 0


def _measure(engine: MatrixEngine, cases: Sequence[Case]) -> Row | None:
    try:
        predictions = engine.predict(cases)
        differences = predictions.differences(cases)
    except NotInstalledError as error:
        print(f"{engine.title}: not installed here: {error}", flush=True)
        return None
    except Exception as error:  # noqa: BLE001  # What an engine that cannot run a file raises is its own.
        print(f"{engine.title}: {error}", flush=True)
        return None
    described = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    print(f"{engine.title} {predictions.version}: {described}", flush=True)
    # Unlike `max`, this does not ignore NaN.
    largest = float(np.max(list(differences.values())))
    return Row(engine.title, predictions.version, largest, engine.needed)


if __name__ == "__main__":
    sys.exit(main())
