# Two commands on a fresh machine: `make demo` and `make test`. Beside each stands the plain line that it stands for.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1

.PHONY: help demo test full e2e check bench clean

help: ## say what can be made
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: $(VENV)/demo ## install, then run the main job on the embedded data: consilium run
	consilium run

test: $(VENV)/test ## install, then pass the tests but the slow ones: scripts/test
	scripts/test

full: $(VENV)/test ## the slow tests too: scripts/test full
	scripts/test full

e2e: $(VENV)/e2e ## real Flower and Ray processes on loopback: scripts/test e2e
	scripts/test e2e

check: $(VENV)/test ## format, lint, types, import arrows: scripts/check
	scripts/check

bench: $(VENV)/e2e ## the engine beside a bare loop and Ray: scripts/bench engine --ray
	scripts/bench engine --ray

# python3 -m venv .venv && .venv/bin/pip install -e .
$(VENV)/demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

# python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'
$(VENV)/test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@ $(VENV)/demo

# python3 -m venv .venv && .venv/bin/pip install -e '.[dev,cluster]'
$(VENV)/e2e: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev,cluster]'
	@touch $@ $(VENV)/test $(VENV)/demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean: ## remove the environment and the caches; runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
