# Two commands on a fresh machine: `make demo` and `make test`. Both set up the environment first.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint clean

demo: $(READY)
	$(BIN)/headstart demo $(DEMO)

# Threads that wait sleep, as under `headstart` itself: spinning ones make several workers on few cores crawl.
test: $(READY) lint
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -q -n auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headstart needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group dev --compile-bytecode --editable .
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
