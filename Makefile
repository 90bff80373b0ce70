# Every target sets up what it needs; CI and a fresh machine need nothing but python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
STOCK := .venv-stock
BIN := $(VENV)/bin

# a process a core, and whoever has nothing left takes tests of the others
PARALLEL := -n auto --dist worksteal

# the eighteen promises of docs/reliability.md, those that are repeated and those that are not
TORTURE := $(addprefix tests/test_,$(addsuffix .py,crash interrupt power_loss full_disk preflight concurrency \
	store_machine verify repair hostile_extract hostile_store hostile_names store two_users zarr_readers \
	old_stores extract identity journal management inventory layout import_vectors))

.PHONY: help demo test browser torture mutations test-transformers-4 lint format bench bench-encoder bench-memory \
	bench-extract bench-store bench-probe bench-mlp bench-trained bench-report bench-real-clips figures clean

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
	$(BIN)/pytest $(PARALLEL)

browser: $(VENV)/.ready  ## the report's page in a real browser; Debian's Chromium is installed where root lacks it
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; } || \
		echo "chromium could not be installed: the tests say so and skip"
	$(BIN)/pytest -q -ra -m browser tests/browser

torture: $(VENV)/.ready  ## the reliability contract in full: every disk operation, 300 kills, 300 losses of power
	TUNE_TORTURE=1 $(BIN)/pytest -q -ra --durations=10 -o faulthandler_timeout=3600 -o timeout=7200 $(PARALLEL) $(TORTURE)

mutations: $(VENV)/.ready  ## takes each safeguard of the cache away and sees that a test fails
	$(BIN)/python tests/mutations.py

# the muq package's own forward works under transformers 4.57 only: an environment of its own
$(STOCK)/.ready: pyproject.toml
	$(PYTHON) -m venv $(STOCK)
	$(STOCK)/bin/pip install --quiet --upgrade pip
	$(STOCK)/bin/pip install --quiet --editable '.[dev]' 'transformers==4.57.6'
	@touch $@

test-transformers-4: $(STOCK)/.ready  ## MuQ's tests beside the package's own forward
	$(STOCK)/bin/pytest tests/test_muq.py tests/test_muq_golden.py

SUBSET ?= ../shared/data/soundtrack-subset
build/muq-random/model.safetensors: | $(STOCK)/.ready
	$(STOCK)/bin/python benchmarks/stock.py make build/muq-random

BENCH := $(VENV)/.ready $(STOCK)/.ready build/muq-random/model.safetensors

bench: bench-encoder bench-memory bench-extract  ## all sections of benchmarks/RESULTS.md, on a quiet machine

bench-encoder: $(BENCH)  ## speed and difference beside the package's own forward
	$(BIN)/python benchmarks/encoder.py build/muq-random --stock-python $(STOCK)/bin/python --subset $(SUBSET)

bench-memory: $(BENCH)  ## memory above the weights, to 60 minutes in one piece
	$(BIN)/python benchmarks/memory.py build/muq-random --stock-python $(STOCK)/bin/python

bench-extract: $(BENCH)  ## what stage one adds to the forward passes
	$(BIN)/python benchmarks/extract.py build/muq-random $(SUBSET)

bench-store: $(VENV)/.ready  ## a store of 300,000 rows and one of 1.3 million (36 GB in build/) beside other formats
	$(BIN)/python benchmarks/store.py build

bench-probe: $(VENV)/.ready  ## stage two beside plain scikit-learn loops
	$(BIN)/python benchmarks/probe.py build

bench-mlp: $(VENV)/.ready  ## five seeds of the MLP probe, at once and in turn
	$(BIN)/python benchmarks/mlp.py

bench-report: $(VENV)/.ready  ## how fast a page of 500 cells and 5,000 tracks opens, in a Chromium
	$(BIN)/python benchmarks/report.py build/pages

figures: $(VENV)/.ready  ## the README's figures in docs/figures, from a real run
	$(BIN)/python benchmarks/readme_figures.py $(SUBSET) docs/figures

bench-trained: $(VENV)/.ready  ## trained aggregations at the size of EMO
	$(BIN)/python benchmarks/trained.py

bench-real-clips: $(VENV)/.ready $(STOCK)/.ready build/muq-random/model.safetensors  ## ten real clips, true size
	$(BIN)/python benchmarks/real_clips.py build/muq-random $(SUBSET) --stock-python $(STOCK)/bin/python

clean:  ## remove the virtual environments and tool caches
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
