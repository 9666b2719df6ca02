# Each target sets up .venv on a fresh clone, with the compiled coder. `make` lists the targets.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

NATIVE := CMakeLists.txt $(wildcard dcu/entropy/src/*)

.DEFAULT_GOAL := help
.PHONY: help docs paper paper-train scale demo test fuzz crash lint format readme build sanitize oldest clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /|/' | awk -F'|' '{ printf "make %-12s %s\n", $$1, $$2 }'

$(READY): pyproject.toml $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

readme: $(READY)  ## write results/ and the tables of README.md and docs/, from the cards and a new benchmark
	$(BIN)/dcu bench --rate 0.0983 --baselines avif,webp --seconds 90 --json > docs/bench.jsonl.part
	mv docs/bench.jsonl.part docs/bench.jsonl
	$(BIN)/python -m docs.readme
	$(BIN)/python -m docs.codec2

scale: $(READY)  ## write docs/scale.md from results/scale.csv; with DATA=TAR, measure first
	$(BIN)/python -m docs.scale $(if $(DATA),--data $(DATA))

paper: $(READY)  ## write docs/paper.md from results/paper.csv; with DATA=DIRECTORY, measure first
	$(BIN)/python -m docs.paper $(if $(DATA),--data $(DATA))

paper-train: $(READY)  ## train the networks of docs/paper.md that are missing, on DATA=DIRECTORY
	$(BIN)/python -m docs.paper --train --data $(DATA)

docs: $(READY)  ## write docs/reference/cli*.md and python.md, from help and docstrings
	$(BIN)/python docs/reference.py

demo: $(READY)  ## compress, classify and decode the photographs of samples/, write out/
	$(BIN)/python samples/demo.py

# The files of tests side by side; each process computes on one thread, else they wait for one another.
test: $(READY)  ## run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --durations 15

fuzz: $(READY)  ## give damaged inputs of every kind to what reads them, from a new seed
	$(BIN)/python -m tests.fuzz

crash: $(READY)  ## kill commands at random moments and compare repeated runs; takes some minutes
	$(BIN)/python -m tests.crash

lint: $(READY)  ## check style and types: ruff, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build: $(READY)  ## build the coder beside its Python code, for a checkout that is not installed
	$(BIN)/cmake -S . -B build -DPython_EXECUTABLE=$(abspath $(BIN))/python
	$(BIN)/cmake --build build

# In a copy of the package; -S: without the editable install, whose modules come first.
SANITIZED := $(abspath build/sanitized)
PRELOAD = $(shell $(CXX) -print-file-name=libasan.so) $(shell $(CXX) -print-file-name=libstdc++.so)
sanitize: $(READY)  ## test the coder under AddressSanitizer and UndefinedBehaviorSanitizer
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED) && cp -R dcu models tests pyproject.toml $(SANITIZED)
	$(BIN)/cmake -S . -B $(SANITIZED)/build -DPython_EXECUTABLE=$(abspath $(BIN))/python \
		-DDCU_SANITIZE=ON -DDCU_OUTPUT=$(SANITIZED)/dcu/entropy
	$(BIN)/cmake --build $(SANITIZED)/build
	packages=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('platlib'))") && cd $(SANITIZED) && \
		LD_PRELOAD="$(PRELOAD)" ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(SANITIZED):$$packages \
		$(abspath $(BIN))/python -S -m pytest --capture=sys tests/test_entropy.py tests/test_arithmetic_coder.py tests/test_logistic_coder.py -k "not torchac"

# In an environment of its own; torch is that of .venv.
OLDEST := build/oldest
oldest: $(READY)  ## run docs/quickstart.md with the oldest release of each dependency but torch
	rm -rf $(OLDEST) && $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet "$(TORCH)" $$($(BIN)/python tests/oldest.py)
	$(OLDEST)/bin/python -m pip install --quiet --no-deps .
	XDG_DATA_HOME=$(abspath $(OLDEST))/data $(OLDEST)/bin/python tests/code_blocks.py $(OLDEST)/work docs/quickstart.md

clean:  ## remove everything that is built
	rm -rf $(VENV) build out .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
