# Every command installs what it needs into one virtual environment and runs there.
#   VENV=path          use, or create, another environment than .venv
#   PYTHON=python3.12  the interpreter to create it with (3.11 or newer)
#   WORKERS=2          processes of test, test-slow, test-cpus and test-lowest; WORKERS= for one process
# `make test-lowest` has an environment of its own (LOWEST_VENV, else .venv-lowest).

VENV ?= .venv
PYTHON ?= python3

PY := $(VENV)/bin/python
STAMPS := $(VENV)/.odmt-sdk
LOWEST_VENV ?= .venv-lowest
WORKERS ?= 2
IN_PARALLEL := $(if $(WORKERS),-n $(WORKERS) --dist worksteal)
MIN_PYTHON := 3, 11
# What is not installed for the other tests: Spark alone is 450 MB. hnswlib has to be compiled.
COMMA := ,
ENGINES := test,onnx,ray,spark$(if $(shell command -v c++),$(COMMA)hnswlib)
ENGINE_TESTS := tests/batch/test_engines.py tests/features/store/test_extraction_engines.py \
  tests/export tests/indexes tests/test_production_page.py

.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-real test test-slow test-all test-cpus test-engines test-demo test-lowest lint format docs clean
# Two installations into one environment must not run at once.
.NOTPARALLEL:

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

quickstart: $(STAMPS)/train,figures ## train, recommend, save and load on a small drawn shop
	$(PY) examples/quickstart.py

quickstart-real: $(STAMPS)/train ## the same on real data of the package: ratings of wines
	$(PY) examples/quickstart_real.py

test: $(STAMPS)/test ## the tests, without the slow ones
	$(if $(WORKERS),OMP_NUM_THREADS=1 )$(PY) -m pytest -m "not slow" $(IN_PARALLEL)

test-slow: $(STAMPS)/test ## the slow tests alone
	$(if $(WORKERS),OMP_NUM_THREADS=1 )$(PY) -m pytest -m slow $(IN_PARALLEL) || test $$? -eq 5 # 5: none is marked slow

test-all: $(STAMPS)/test ## all tests
	$(PY) -m pytest

test-cpus: $(STAMPS)/test ## the tests that compare rounded numbers, as on older and newer CPUs
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 $(PY) -m pytest -m "numeric and not slow" $(IN_PARALLEL)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=2 $(PY) -m pytest -m "numeric and not slow"
	ONEDNN_MAX_CPU_ISA=AVX512_CORE OMP_NUM_THREADS=1 $(PY) -m pytest -m "numeric and not slow" $(IN_PARALLEL)

test-engines: $(STAMPS)/$(ENGINES) ## the tests of Ray, Spark (needs Java), ONNX and all indexes (1 GB)
	$(PY) -m pytest $(ENGINE_TESTS)

test-demo: $(STAMPS)/test-demo ## the tests of the demo page, in Chromium if it is installed
	$(PY) -m pytest tests/demo

test-lowest: ## the tests, without the slow ones, with the lowest releases allowed (3 GB)
	$(MAKE) test VENV="$(LOWEST_VENV)" CONSTRAINTS=tests/lowest.txt \
	  PYTHON="$$(command -v python3.11 || echo "$(PYTHON)")"

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
	find . -path './.venv*' -prune -o -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# One rule for the extras of pyproject.toml: $(STAMPS)/train,figures installs ".[train,figures]".
# The stamp is why a second call installs nothing, until pyproject.toml or CONSTRAINTS changes.
$(STAMPS)/%: pyproject.toml $(CONSTRAINTS) | $(STAMPS)/.created
	$(PY) -m pip install --editable ".[$*]" $(addprefix --constraint ,$(CONSTRAINTS))
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
