# Every target sets up what it needs; CI and a fresh machine need nothing but python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint format clean

help:  ## what can be made
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /: /'

# pip, not uv: uv ignores locally provided wheels and downloads gigabytes
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

# its own cache folder, so that the demo leaves nothing behind but demo-output/
demo: $(VENV)/.ready  ## the whole tool once, on music it composes itself
	$(BIN)/tune demo --cache-dir demo-output/cache

lint: $(VENV)/.ready  ## format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.ready  ## put the code in form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint  ## lint, types, tests
	$(BIN)/pytest

clean:  ## remove the virtual environments and tool caches
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
