# Every target works on a machine that has Python (3.10 or newer), make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-all test-oldest lint bench clean

help:
	@echo "make demo      draw a balloon data set, train Mask R-CNN on it, evaluate, save pictures"
	@echo "make test      the tests (make test-all: the slow ones too)"
	@echo "make test-oldest  the quick tests with the oldest libraries that setup.py admits (8 GB, a venv of its own)"
	@echo "make lint      ruff, mypy, import-linter"
	@echo "make bench     measure beside named peers"
	@echo "make clean     remove what make made, except results under output/"

$(INSTALLED): setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/hookline demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(INSTALLED)
	$(BIN)/python -m pytest

test-oldest:
	@$(PYTHON) -c "import sys; sys.exit('the oldest libraries have wheels for Python 3.10 to 3.12: PYTHON=python3.12' if sys.version_info > (3, 13) else 0)"
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --editable .
	$(OLDEST)/bin/python tests/oldest.py > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --requirement $(OLDEST)/oldest.txt
	$(OLDEST)/bin/python -m pytest -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
