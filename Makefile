# One word per chore. `make demo` and `make test` set up what they need on a machine with Python and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN := demo/run
.DEFAULT_GOAL := help
.PHONY: help setup fmt lint type test test-all docs demo verdict bench check clean

help:
	@echo "make setup     install katsuo and its tools into $(VENV) and pull the embedded model"
	@echo "make demo      the main job on documents that are already on this machine"
	@echo "make verdict   from the demo's documents and a few questions about them to a scored, reported adapter"
	@echo "make test      the quick suite        make test-all   with the slow tests"
	@echo "make check     lint, type, test       make fmt        format the code"
	@echo "make docs      docs/cli.md and tables make bench      benchmarks that need no data, quick form"

setup: $(READY)

# uv installs the same set about ten times faster than pip: taken from PATH, else installed into the environment, else
# pip does it. torch comes as its CPU build where pip is set up with a find-links folder that holds one (uv does not read
# pip's setting, so it is handed on as UV_FIND_LINKS); elsewhere uv picks the build for the GPU driver it finds, or the
# CPU build where there is none (--torch-backend=auto).
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@set -e; \
	wanted="-c constraints.txt -e .[hf,hub,train,dev]"; \
	links=$${UV_FIND_LINKS:-$$($(BIN)/python -m pip config list 2>/dev/null | sed -n "s/.*find-links='\(.*\)'.*/\1/p" | head -n 1)}; \
	uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then $(BIN)/python -m pip install --quiet --disable-pip-version-check uv && uv=$(BIN)/uv || uv=; fi; \
	backend=--torch-backend=auto; \
	if [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; ls $$links/torch-* >/dev/null 2>&1 && backend=; fi; \
	if [ -n "$$uv" ] && "$$uv" pip install --quiet --python $(BIN)/python $$backend $$wanted; then \
	  echo "installed with uv"; \
	else \
	  echo "uv cannot be had or failed: installing with pip"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check $$wanted; \
	fi
	$(BIN)/katsuo pull
	$(BIN)/python -c "from katsuo.templates.library import open_library; open_library()" >/dev/null
	touch $(READY)

fmt: setup
	$(BIN)/ruff format src tests benchmarks examples docs
	$(BIN)/ruff check --fix src tests benchmarks examples docs

lint: setup
	$(BIN)/ruff format --check src tests benchmarks examples docs
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/lint-imports

type: setup
	$(BIN)/mypy

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-all: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not gpu"

docs: setup
	$(BIN)/python docs/make_reference.py

# Real documents that every installation has: the licence texts and descriptions of the packages just installed, and
# this project's own docs as Markdown, HTML and PDF.
demo: setup
	$(BIN)/python examples/demo_documents.py demo/documents
	$(BIN)/katsuo generate -c examples/demo.yaml -o $(RUN) --allow-partial
	$(BIN)/katsuo show $(RUN) --count 2
	@echo "the run folder is $(RUN); its examples: $(RUN)/examples/*.parquet"

# Does adapting to the demo's documents help on questions about documents that the generator has not seen?
verdict: setup
	$(BIN)/python examples/demo_documents.py demo/documents
	$(BIN)/katsuo run examples/quick.yaml -o demo/verdict

# Left out: those that need labelled data (ctga.py, generator.py, harness_parity.py, training.py) or a package that setup
# does not install (near_duplicates.py; engines.py for all but hf).
bench: setup
	$(BIN)/python benchmarks/cache.py --quick
	$(BIN)/python benchmarks/documents.py --chunking
	$(BIN)/python benchmarks/pipeline.py --quick
	$(BIN)/python benchmarks/scaling.py --sizes 2000
	$(BIN)/python benchmarks/generation.py speed --prompts 16 --max-new-tokens 32 --batch-sizes 16
	$(BIN)/python benchmarks/ranking.py --limit 8 --batch-sizes 4
	$(BIN)/python benchmarks/engines.py --prompts 8 --rounds 1 --engines hf

check: lint type test

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
