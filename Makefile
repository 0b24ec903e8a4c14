# `make demo` and `make test` build .venv once and again only when the packages change.
EXTRAS := flows,train,s3,dask,engines,dev
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test coverage test-slow test-offline test-engines fuzz benchmark lint format clean
.DEFAULT_GOAL := demo

.venv/installed: pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "No Python 3.11 to 3.13 found; name one with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv: a few minutes, once."
	$(BIN)/python -m pip install --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

# What some tests run beside Python. Without npm they skip, and say so.
JAVASCRIPT := tests/javascript/node_modules/.package-lock.json
$(JAVASCRIPT): tests/javascript/package.json
	@if command -v npm >/dev/null; then cd $(<D) && \
		ONNXRUNTIME_NODE_INSTALL=skip npm install --no-package-lock --no-audit --no-fund --loglevel=error && \
		touch node_modules/.package-lock.json; \
	else echo "No npm here: the tests that want JavaScript will skip."; fi

demo: .venv/installed
	@$(BIN)/pixelmill demo

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Three processes keep two cores busy: some tests wait for servers, and for processes to die.
test: lint $(JAVASCRIPT) .engines/onnxruntime-1.16/installed .engines/opencv-4.11/installed
	$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder

# The same tests with the lines that they run; the processes that they start are measured, too.
coverage: .venv/installed $(JAVASCRIPT) .engines/onnxruntime-1.16/installed .engines/opencv-4.11/installed
	$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder \
		--cov --cov-report term-missing

# The tests that take minutes.
test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

# Traces every command, a worker and a server for a minute: nothing outside this machine is reached.
test-offline: .venv/installed
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_telemetry.py tests/flows/test_worker.py

# Changes valid files of every format at random, MINUTES for each, and holds what becomes of them to its promises.
MINUTES ?= 1
fuzz: .venv/installed
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# Compares every engine in the table of docs/bundle.md with Keras, and writes that table. Some live in
# environments of their own, 1.7 GB in all. onnxruntime 1.16 has no package for Python 3.12 and later.
ENGINE_PYTHON ?= $(or $(shell python3.11 -c "import sys; print(sys.executable)" 2>/dev/null),$(BIN)/python)
ENGINES := $(patsubst tests/engines/requirements/%.txt,.engines/%/installed,$(wildcard tests/engines/requirements/*))
.engines/%/installed: tests/engines/requirements/%.txt | .venv/installed
	$(ENGINE_PYTHON) -m venv --clear $(@D)
	@if $(@D)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --requirement $<; \
	then touch $@; else echo "$* has no package for this Python: its tests will skip."; fi

test-engines: .venv/installed $(JAVASCRIPT) $(ENGINES)
	$(BIN)/python -m tests.engines

# The numbers of docs/benchmarks.md; on a machine that does nothing else, three quarters of an hour.
benchmark: .venv/installed
	$(BIN)/python -m tests.benchmarks.score_throughput
	$(BIN)/python -m tests.benchmarks.reuse_cost
	$(BIN)/python -m tests.benchmarks.many_files
	$(BIN)/python -m tests.benchmarks.train_throughput

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .engines tests/javascript/node_modules build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
