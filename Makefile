# make demo: what dcu does, on samples/.   make test: does it hold?   make readme: its tables, from cards and a new bench.
# All set up .venv on a fresh clone.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test lint format readme clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -c "from dcu.entropy.rangecoder import backend; backend()"
	touch $@

readme: $(READY)
	$(BIN)/dcu bench --rate 0.0983 --baselines avif,webp --seconds 90 --json > docs/bench.jsonl.part
	mv docs/bench.jsonl.part docs/bench.jsonl
	$(BIN)/python docs/readme.py

demo: $(READY)
	$(BIN)/python samples/demo.py

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
