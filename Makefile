# Every command installs what it needs into one virtual environment and runs there.
#   VENV=path          use, or create, another environment than .venv
#   PYTHON=python3.12  the interpreter to create it with (3.11 or newer)

VENV ?= .venv
PYTHON ?= python3

PY := $(VENV)/bin/python
STAMPS := $(VENV)/.odmt-sdk
MIN_PYTHON := 3, 11

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow test-all lint format docs clean
# Two installations into one environment must not run at once.
.NOTPARALLEL:

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

quickstart: $(STAMPS)/train,figures ## train, recommend, save and load on a small drawn shop
	$(PY) examples/quickstart.py

test: $(STAMPS)/test ## the tests, without the slow ones
	$(PY) -m pytest -m "not slow"

test-slow: $(STAMPS)/test ## the slow tests alone
	$(PY) -m pytest -m slow || test $$? -eq 5 # 5: none is marked slow

test-all: $(STAMPS)/test ## all tests
	$(PY) -m pytest

lint: $(STAMPS)/dev ## ruff and mypy, as continuous integration runs them
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(STAMPS)/dev ## let ruff sort imports and format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(STAMPS)/docs ## the documentation site, in site/
	$(PY) -m mkdocs build --strict

clean: ## remove what the commands above made, except the environment
	rm -rf build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# One rule for the extras of pyproject.toml: $(STAMPS)/train,figures installs ".[train,figures]".
# The stamp is why a second call installs nothing, until pyproject.toml changes.
$(STAMPS)/%: pyproject.toml | $(STAMPS)/.created
	$(PY) -m pip install --editable ".[$*]"
	@touch $@

$(STAMPS)/.created:
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -c "import sys; sys.exit(sys.version_info < ($(MIN_PYTHON)))" 2>/dev/null || { \
	    echo "odmt-sdk needs Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)"; \
	    echo "Name a newer one, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }; \
	  echo "$(PYTHON) -m venv $(VENV)"; \
	  $(PYTHON) -m venv $(VENV) || { \
	    echo "Could not create $(VENV). On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }; \
	fi
	@$(PY) -c "import sys; sys.exit(sys.version_info < ($(MIN_PYTHON)))" || { \
	  echo "odmt-sdk needs Python 3.11 or newer, but $(VENV) holds: $$($(PY) --version 2>&1)"; \
	  echo "Remove it, or name another: make $(MAKECMDGOALS) VENV=path"; exit 1; }
	@mkdir -p $(STAMPS)
	@touch $@
