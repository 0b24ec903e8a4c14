# `make demo` and `make test` create .venv, and recreate it only when the dependencies change.
EXTRAS := flows,train,s3,dask,mlflow,engines,heif,signing,dev
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo up down test coverage test-slow test-offline test-engines test-deployment fuzz benchmark lint format clean
.DEFAULT_GOAL := demo

.venv/installed: pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "No Python 3.11 to 3.13 found; specify one with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv; this takes a few minutes, once."
	$(BIN)/python -m pip install --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

# Some tests need JavaScript packages. Without npm, they are skipped.
JAVASCRIPT := tests/javascript/node_modules/.package-lock.json
$(JAVASCRIPT): tests/javascript/package.json
	@if command -v npm >/dev/null; then cd $(<D) && \
		ONNXRUNTIME_NODE_INSTALL=skip npm install --no-package-lock --no-audit --no-fund --loglevel=error && \
		touch node_modules/.package-lock.json; \
	else echo "npm was not found: tests that need JavaScript will be skipped."; fi

demo: .venv/installed
	@$(BIN)/pixelmill demo

# Prefect's server and a worker, with the deployments of deploy/prefect.yaml, until `make down`.
up: .venv/installed
	@$(BIN)/pixelmill up

down:
	@$(BIN)/pixelmill down

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Three processes keep two cores busy, because some tests wait for servers and other processes.
test: lint $(JAVASCRIPT) .engines/onnxruntime-1.16/installed .engines/opencv-4.11/installed \
		.engines/tritonclient/installed
	$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder

# The same tests with the lines that they run; the processes that they start are measured, too.
coverage: .venv/installed $(JAVASCRIPT) .engines/onnxruntime-1.16/installed .engines/opencv-4.11/installed \
		.engines/tritonclient/installed
	COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/python -m pytest --numprocesses 3 --dist loadgroup \
		--no-loadscope-reorder --cov --cov-report term-missing

# The server of the tests of the MLflow mirror, whose packages need other versions than ours.
.engines/mlflow/installed: | .venv/installed
	$(BIN)/python -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet mlflow==3.17.2
	@touch $@

# Tests that take minutes.
test-slow: .venv/installed .engines/mlflow/installed
	$(BIN)/python -m pytest -m slow

# Traces every command, a worker and a server for a minute, to check that none of them connects to another machine.
test-offline: .venv/installed
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_telemetry.py tests/flows/test_worker.py

# Kills runs, workers, servers and databases, on SQLite and on PostgreSQL, and prints the table of docs/deployment.md.
test-deployment: .venv/installed
	$(BIN)/python -m tests.deployment

# Mutates valid files of every format at random, MINUTES for each, and checks that decoding keeps its guarantees.
MINUTES ?= 1
fuzz: .venv/installed
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# Compares every engine in the table of docs/bundle.md with Keras, and writes that table. Some are installed in
# separate environments, 1.7 GB in total. onnxruntime 1.16 has no package for Python 3.12 and later.
ENGINE_PYTHON ?= $(or $(shell python3.11 -c "import sys; print(sys.executable)" 2>/dev/null),$(BIN)/python)
ENGINES := $(patsubst tests/engines/requirements/%.txt,.engines/%/installed,$(wildcard tests/engines/requirements/*))
.engines/%/installed: tests/engines/requirements/%.txt | .venv/installed
	$(ENGINE_PYTHON) -m venv --clear $(@D)
	@if $(@D)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --requirement $<; \
	then touch $@; else echo "$* has no package for this Python: its tests will be skipped."; fi

test-engines: .venv/installed $(JAVASCRIPT) $(ENGINES)
	$(BIN)/python -m tests.engines

# Measures the numbers in docs/benchmarks.md; takes an hour on an otherwise idle machine.
benchmark: .venv/installed
	$(BIN)/python -m tests.benchmarks.score_throughput
	$(BIN)/python -m tests.benchmarks.reuse_cost
	$(BIN)/python -m tests.benchmarks.many_files
	$(BIN)/python -m tests.benchmarks.train_throughput
	$(BIN)/python -m tests.benchmarks.prepare_throughput

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .engines tests/javascript/node_modules build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
