"""`python -m tests.engines`: run every engine of the matrix, and write the table in `docs/bundle.md`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.engines.cases import Case, make_cases, make_deep_cases
from tests.engines.matrix import MATRIX, MatrixEngine, NotInstalledError
from tests.engines.table import Row, write_table


def main() -> int:
    """Print the result of each engine; the exit code is 1 if one differs, fails or is missing."""
    with TemporaryDirectory() as folder:
        cases, deep = make_cases(Path(folder, "cases")), make_deep_cases(Path(folder, "deep"))
        for case in (*cases, *deep):
            print(f"{case.name}: {case.allowed:.1e} allowed", flush=True)
        rows = [_row(engine, cases, deep) for engine in MATRIX]
    if any(row.difference is None for row in rows):
        print("The table in docs/bundle.md stays as it is: not every engine agreed.")
        return 1
    write_table(rows)
    return 0


def _row(engine: MatrixEngine, cases: Sequence[Case], deep: Sequence[Case]) -> Row:
    version, difference = _measure(engine, cases)
    _, of_deep = _measure(engine, deep)
    return Row(engine.title, version, difference, of_deep, engine.needed)


def _measure(engine: MatrixEngine, cases: Sequence[Case]) -> tuple[str, float | None]:
    """The version of the engine, and its largest difference; None if that is more than a case allows."""
    try:
        predictions = engine.predict(cases)
        differences = predictions.differences(cases)
    except NotInstalledError as error:
        print(f"{engine.title}: not installed here: {error}", flush=True)
        return "", None
    except Exception as error:  # noqa: BLE001  # What an engine that cannot run a file raises is its own.
        print(f"{engine.title}: {error}", flush=True)
        return "", None
    described = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    print(f"{engine.title} {predictions.version}: {described}", flush=True)
    # Written so that NaN does not agree either.
    if not all(differences[case.name] <= case.allowed for case in cases):
        return predictions.version, None
    return predictions.version, max(differences.values())


if __name__ == "__main__":
    sys.exit(main())
