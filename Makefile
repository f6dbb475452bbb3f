# Two commands: `make demo` shows everything, `make test` proves it. Both start from nothing but Python and pip.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet -c constraints.txt
# two workers of one thread each: faster than one of two, and the same on every machine
WORKERS ?= 2
# a file is one worker's; in the order of tests/conftest.py, which has the long files first, so that none is left alone
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
DEPENDS := pyproject.toml constraints.txt

.PHONY: help demo test test-all test-oldest check docs dist mutants format clean

help:
	@echo "make demo      install with all extras into $(VENV) and run convoscope demo"
	@echo "make test      install what the tests need and run the suite (about half an hour on two cores)"
	@echo "make test-all  every long sweep, too, and the suite with the oldest versions allowed"
	@echo "make docs      the site of documents, in site/ (strict: a broken link or an undocumented name fails)"
	@echo "make mutants   do the tests notice small faults in the core? (an hour)"
	@echo "make dist      the wheel and the source package, in dist/"
	@echo "make check     ruff (lint and format), mypy --strict, the direction of imports, and the documents"
	@echo "make clean     remove what these commands made"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# stamps: what is installed is not installed again until the requirements change
$(VENV)/.all: $(DEPENDS) | $(BIN)/python
	@echo "Installing Convoscope with all extras (PyTorch is large: this takes minutes once) ..."
	$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.test: $(VENV)/.all $(DEPENDS)
	@echo "Installing what the tests need ..."
	$(PIP) -e '.[all,test]'
	@touch $@

$(VENV)/.check: $(DEPENDS) | $(BIN)/python
	$(PIP) ruff mypy import-linter
	@touch $@

demo: $(VENV)/.all
	$(BIN)/convoscope demo

test: $(VENV)/.test
	$(PYTEST)

test-all: $(VENV)/.test test-oldest
	CONVOSCOPE_ALL=1 $(PYTEST)

# a second environment (7 GB): what pyproject.toml allows must work, not only what we happen to have
OLDEST := .venv-oldest
$(OLDEST)/.test: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip --disable-pip-version-check install --quiet -c constraints-oldest.txt -e '.[all,test]'
	@touch $@

test-oldest: $(OLDEST)/.test
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile

$(VENV)/.docs: $(VENV)/.all
	$(PIP) -e '.[docs]'
	@touch $@

mutants: $(VENV)/.test
	$(BIN)/python tests/mutation/mutate.py --minutes 240 --retry

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html"

dist: $(VENV)/.check
	$(PIP) build
	$(BIN)/python -m build

# mypy reads the types of what is installed
check: $(VENV)/.check $(VENV)/.all docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks
	$(BIN)/lint-imports

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) site build dist convoscope-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
