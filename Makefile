# Every target creates the environment first and skips that step while it is current.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
RESULTS ?= results
DEMO ?= .demo
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export MLFLOW_DISABLE_TELEMETRY := true

# DRY=1 lists the cells of a reproduction, what is done and how long the rest may take, and runs nothing.
REPRODUCE = $(BIN)/suite $(if $(DRY),plan,run) --results $(RESULTS)

.PHONY: help setup demo test check bench bench-gpu ui leaderboard reproduce-mos reproduce-sigsoftmax reproduce-plif

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12" >&2; exit 2; }
	@echo "Creating $(VENV): torch, MLflow and the rest, a few minutes and 2 GB (more where torch brings CUDA)."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

setup: $(READY) ## create or update the environment

# One thread: the model is small, and two threads that wait for each other crawl where anything else runs.
demo: $(READY) ## train five heads on a language with a known floor; 2 minutes, no data, no GPU
	@$(BIN)/suite run demo --threads 1 --results $(DEMO)

test: $(READY) ## run the tests
	@$(BIN)/python -m pytest

check: $(READY) ## format, lint, types and tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest

bench: $(READY) ## time every head beside its materialised form and the softmax, in one interleaved run
	@$(BIN)/python -m pytest tests/bench --benchmark-enable --benchmark-only --benchmark-columns=median,iqr,rounds

bench-gpu: $(READY) ## time and memory of the head's loss on a GPU, every form beside its peers
	@$(BIN)/python tests/bench/gpu.py

ui: $(READY) ## the MLflow UI on the runs in RESULTS (default: results)
	@$(BIN)/suite ui --results $(RESULTS)

leaderboard: $(READY) ## write the tables of RESULTS and of README.md from the records
	@$(BIN)/suite report --results $(RESULTS) --write --write-into README.md

reproduce-mos: $(READY) ## Yang 2018 on both corpora, train stage (GPU, long; DRY=1 to look first)
	@$(REPRODUCE) mos-ptb mos-wikitext-2 awd-lstm-ptb awd-lstm-wikitext-2

reproduce-sigsoftmax: $(READY) ## Kanai 2018 on Penn Treebank, train stage (GPU, long; DRY=1 to look first)
	@$(REPRODUCE) sigsoftmax-ptb

reproduce-plif: $(READY) ## Ganea 2019: the synthetic experiment, then Penn Treebank (GPU, long; DRY=1 to look first)
	@$(REPRODUCE) plif-synthetic plif-ptb
