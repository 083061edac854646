# Every target makes the virtual environment it needs first; only Python 3.11+, make and a package index are required.
# Variables: PYTHON=/path/to/python (default: the first of python3.12, python3.11, python3 that fits),
#            WORKDIR=runs/quickstart, JOBS=number of test processes (default: one a core, at most 8).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test lint results notebooks docs clean

VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq
PYTHON ?=
WORKDIR ?= runs/quickstart
JOBS ?= logical
PACKAGE_FILES := setup.cfg pyproject.toml pwm_jax/__init__.py

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

quickstart: $(VENV)/.installed ## the main job end to end on five tasks: a table here and a page in runs/quickstart (CPU, 10 minutes)
	@$(BIN)/python -m experiments.run --config=configs/quickstart.py --workdir=$(WORKDIR)

test: $(VENV)/.installed-dev lint ## ruff, mypy and the tests
	@$(BIN)/python -m pytest -n $(JOBS) --maxprocesses=8 --dist=loadfile

lint: $(VENV)/.installed-dev ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

results: $(VENV)/.installed ## write the tables of RESULTS.md anew from results/*.jsonl
	@$(BIN)/python -m pwm_jax.report.tables --write

notebooks: $(VENV)/.installed-dev ## run the notebooks at full size and keep their outputs (CPU, 10 to 15 minutes)
	@for file in notebooks/*.ipynb; do echo "$$file ..."; $(BIN)/python -c 'import sys, nbclient, nbformat; \
	  book = nbformat.read(sys.argv[1], 4); \
	  nbclient.NotebookClient(book, timeout=None, record_timing=False, resources={"metadata": {"path": "notebooks"}}).execute(); \
	  nbformat.write(book, sys.argv[1])' "$$file"; done

docs: $(VENV)/.installed-dev ## the documentation as a site: build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove the virtual environment and caches (never runs/, data or results)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The whole test is run, not looked up: a version manager's shim may be on PATH without a Python behind it.
$(BIN)/python:
	@found=; bare=; \
	for python in $(or $(PYTHON),python3.12 python3.11 python3); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then found=$$python; break; fi; \
	  bare=$${bare:-$$python}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "$$bare cannot make virtual environments: its venv module is missing." >&2; \
	  echo "On Debian or Ubuntu: apt-get install $$("$$bare" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; \
	  exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "pwm_jax needs Python 3.11 or newer; tried: $(or $(PYTHON),python3.12 python3.11 python3)." >&2; \
	  echo "Install one, or name one: make $(or $(MAKECMDGOALS),quickstart) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version) ..."; \
	"$$found" -m venv --clear $(VENV)

$(VENV)/.requirements: requirements.txt | $(BIN)/python
	@echo "Installing the pinned requirements into $(VENV) (once; a minute or two) ..."
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.requirements-dev: requirements-dev.txt $(VENV)/.requirements
	@echo "Installing the test requirements ..."
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/.installed: $(PACKAGE_FILES) $(VENV)/.requirements
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed $(VENV)/.requirements-dev
	@touch $@
