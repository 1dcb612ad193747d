# `make demo` and `make test` need Python 3.11 to 3.13 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: setup setup-dev demo test lint format bench results studies docs clean

setup: .venv/ready
setup-dev: .venv/ready-dev

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/ready: .venv/made pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/ready-dev: .venv/ready
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/phenoscope demo

test: setup-dev
	$(BIN)/python -m pytest

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev
	$(BIN)/python benchmarks/record_overhead.py
	$(BIN)/python benchmarks/fleet.py
	$(BIN)/python benchmarks/empirical.py
	$(BIN)/python benchmarks/watch.py
	$(BIN)/python benchmarks/shapes.py

# The README's table and the page on the paper, from docs/results; `studies` runs every study first (half an hour on two cores).
results: setup
	$(BIN)/python tools/results.py
	$(BIN)/python tools/paper.py

studies: setup
	$(BIN)/python tools/results.py --run
	$(BIN)/python tools/paper.py --run

docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
