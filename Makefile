# `make demo` runs the main job, `make test` passes the tests; each installs what it needs.
PYTHON ?= python3
DATA ?=
WEIGHTS ?=
DEMO_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
EXAMPLES := node web

.PHONY: demo test test-slow lint install lock dist clean

demo: $(VENV)/.installed
	$(BIN)/kdas-edge demo $(if $(DATA),--data $(DATA)) $(if $(WEIGHTS),--weights $(WEIGHTS)) --overwrite $(DEMO_ARGS)

# one thread a process: two networks with two threads each would wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

test: $(VENV)/.installed $(EXAMPLES:%=examples/%/node_modules/.package-lock.json)
	$(PYTEST) -m "not slow and not alone"

# what trains, quantises or exports for more than a few seconds, and what compares two latencies,
# which another test beside it would disturb; CI runs both targets
test-slow: $(VENV)/.installed $(EXAMPLES:%=examples/%/node_modules/.package-lock.json)
	$(PYTEST) -m slow
	$(PYTEST) -n 0 -m alone

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed

# Pins stay where they are unless pyproject.toml or LOCK_ARGS, e.g. --upgrade, moves them.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 \
	pyproject.toml
lock: $(VENV)/.installed
	$(LOCK) $(LOCK_ARGS) --extra dev --output-file requirements/dev.lock
	$(LOCK) --constraint requirements/dev.lock --extra train --output-file requirements/train.lock
	$(LOCK) --constraint requirements/dev.lock --output-file requirements/base.lock

# wheel and source distribution, with the licence and the notice
dist: $(VENV)/.installed
	$(BIN)/uv build --quiet --offline --no-build-isolation --python $(BIN)/python --out-dir dist

# the stamp is made last, so that a broken installation is repaired by the next call
$(VENV)/.installed: requirements/dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Packages of the JavaScript examples. Where they cannot be had, their tests are skipped and say so.
examples/%/node_modules/.package-lock.json: examples/%/package-lock.json
	-cd examples/$* && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=1 \
		--fetch-timeout=30000

clean:
	rm -rf $(VENV) demo build dist *.egg-info
