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

.PHONY: help setup demo test test-gpu torture check audit lock gate bench bench-history bench-gpu bench-train bench-cpu ui \
  screenshot leaderboard reproduce-mos reproduce-sigsoftmax reproduce-plif reproduce-controlled

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Every file that is installed has a hash in .ci/requirements/*.lock. What torch's CUDA builds want besides is gigabytes:
# where there is no NVIDIA driver, the build without CUDA is taken if pip has been told of a place that has it.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
HASHED := $(INSTALL) --require-hashes -r

$(READY): pyproject.toml $(wildcard .ci/requirements/*.lock)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12" >&2; exit 2; }
	@echo "Creating $(VENV): torch, MLflow and the rest, a few minutes and 2 GB (more where torch brings CUDA)."
	@$(PYTHON) -m venv $(VENV)
	@[ -e /proc/driver/nvidia/version ] || $(HASHED) .ci/requirements/cpu.lock 2>/dev/null || true
	@$(HASHED) .ci/requirements/suite.lock
	@if $(BIN)/python -c "from importlib.metadata import requires; exit(not any('nvidia' in r for r in requires('torch')))"; \
	  then $(HASHED) .ci/requirements/cuda.lock; fi
	@$(INSTALL) --no-build-isolation -e .
	@$(BIN)/python -m pip --disable-pip-version-check check >$(READY) || { cat $(READY) >&2; rm $(READY); exit 1; }

setup: $(READY) ## create or update the environment

# One thread: the model is small, and two threads that wait for each other crawl where anything else runs.
demo: $(READY) ## train five heads on a language with a known floor; 2 minutes, no data, no GPU
	@$(BIN)/suite run demo --threads 1 --results $(DEMO)

# Two files at once.
TESTS = $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(READY) ## run the tests
	@$(TESTS)

test-gpu: $(READY) ## the tests that need a GPU, and the errors of the loss's kernels there
	@TRITON_INTERPRET=0 $(BIN)/python -m pytest tests/training/test_graphs.py tests/evaluation/test_recorded_steps.py \
		tests/models/test_recurrence_gpu.py tests/models/test_streams.py
	@$(BIN)/python tests/bench/gpu.py --check

torture: $(READY) ## every promise of README.md, its fault injected as often as stated; writes results/torture.json; 30 minutes
	@SUITE_TORTURE=1 $(BIN)/python -m pytest tests/torture --timeout=1800

check: $(READY) ## format, lint, types and tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(TESTS)

# FORMAT=markdown for a comment. When a change of the numbers is meant: suite check --update --reason TEXT.
gate: $(READY) ## small tasks beside their baselines: perplexity, counts, time and memory of a step; under two minutes
	@$(BIN)/suite check $(if $(FORMAT),--format $(FORMAT))

bench: $(READY) ## time every head beside its materialised form and the softmax, in one interleaved run; kept in .benchmarks
	@$(BIN)/python -m pytest tests/bench --benchmark-enable --benchmark-only --benchmark-columns=median,iqr,rounds \
	  --benchmark-autosave

bench-history: $(READY) ## the kept runs of make bench, every benchmark's medians side by side
	@$(BIN)/pytest-benchmark compare --columns=median,iqr --group-by=fullname --sort=fullname

bench-gpu: $(READY) ## time and memory of the head's loss on a GPU, every form beside its peers
	@$(BIN)/python tests/bench/gpu.py

bench-train: $(READY) ## time and memory of full-size training steps, and the time of recurrences and stages, on a GPU (needs the corpora)
	@$(BIN)/python tests/bench/training.py
	@$(BIN)/python tests/bench/recurrence_gpu.py --out
	@$(BIN)/python tests/bench/stages_gpu.py

bench-cpu: $(READY) ## time the eager step on a CPU beside one that works as the official code does
	@$(BIN)/python tests/bench/official_cpu.py

# Known advisories: a folder of them (ADVISORIES=DIR), or the service that pip-audit asks where it can be reached.
audit: $(READY) ## look the locked packages up among known advisories; ADVISORIES=DIR for a folder of them (OSV files)
	@$(BIN)/python .ci/requirements/audit.py $(if $(ADVISORIES),--folder $(ADVISORIES),--environment $(VENV)/audit)

lock: $(READY) ## write .ci/requirements/*.lock anew from pyproject.toml; OPTIONS=--upgrade takes newer versions
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@$(BIN)/python .ci/requirements/lock.py $(OPTIONS)

ui: $(READY) ## the MLflow UI on the runs in RESULTS (default: results)
	@$(BIN)/suite ui --results $(RESULTS)

screenshot: $(READY) ## take the picture of the MLflow UI in README.md anew, in a headless Chromium
	@PYTHONPATH=tests:tests/torture $(BIN)/python tests/screenshot.py

leaderboard: $(READY) ## write the tables, figures and web page of RESULTS, and the tables of README.md, from the records
	@$(BIN)/suite report --results $(RESULTS) --write --write-into README.md --figures

# Each list starts with the paper's main tables: what is stopped early has the most important cells done.
MOS = yang2018-ptb yang2018-ablation-ptb merity2018-ptb experts-ptb \
  yang2018-wikitext-2 yang2018-ablation-wikitext-2 merity2018-wikitext-2 \
  time-ptb time-ptb-softmax time-wikitext-2 time-wikitext-2-softmax \
  yang2018-text8 yang2018-lm1b-softmax yang2018-lm1b-mos time-lm1b time-lm1b-softmax
SIGSOFTMAX = kanai2018-ptb kanai2018-mixtures-ptb kanai2018-wikitext-2 kanai2018-mixtures-wikitext-2
PLIF = ganea2019-synthetic ganea2019-synthetic-network ganea2019-synthetic-beta plif-synthetic \
  ganea2019-ptb ganea2019-mixtures-ptb ganea2019-wikitext-2 ganea2019-mixtures-wikitext-2
CONTROLLED = parthiban2021-ptb parthiban2021-mixtures-ptb parthiban2021-wikitext-2 parthiban2021-mixtures-wikitext-2 \
  parthiban2021-nt-ptb parthiban2021-nt-wikitext-2 yang2018-ptb yang2018-ablation-ptb yang2018-wikitext-2 \
  yang2018-ablation-wikitext-2 parthiban2021-matched-ptb experts-ptb experts-wikitext-2 \
  latent-dropout-0.145-ptb latent-dropout-0-ptb latent-dropout-0.145-wikitext-2 latent-dropout-0-wikitext-2 \
  parthiban2021-gss-ptb parthiban2021-gss-wikitext-2

reproduce-mos: $(READY) ## Yang 2018: every table but Switchboard (GPU, long; DRY=1 to look first)
	@$(REPRODUCE) $(MOS)

reproduce-sigsoftmax: $(READY) ## Kanai 2018 on both corpora (GPU, long; DRY=1 to look first)
	@$(REPRODUCE) $(SIGSOFTMAX)

reproduce-plif: $(READY) ## Ganea 2019: the synthetic experiment, then both corpora (GPU, long; DRY=1 to look first)
	@$(REPRODUCE) $(PLIF)

reproduce-controlled: $(READY) ## Parthiban 2021: all heads under one protocol (GPU, very long; DRY=1 to look first)
	@$(REPRODUCE) $(CONTROLLED)
