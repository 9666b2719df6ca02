# make demo: what dcu does, on samples/.   make test: does it hold?   make readme: its tables, from cards and a new bench.
# make fuzz: damaged inputs of every kind, from a new seed.   make crash: commands killed at random moments; some minutes.
# All set up .venv on a fresh clone, with the compiled coder.
# make build: that coder beside its Python code, for a checkout that is not installed.   make sanitize: its tests under
# AddressSanitizer and UndefinedBehaviorSanitizer.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

NATIVE := CMakeLists.txt $(wildcard dcu/entropy/src/*)

.PHONY: demo test fuzz crash lint format readme build sanitize clean

$(READY): pyproject.toml $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

readme: $(READY)
	$(BIN)/dcu bench --rate 0.0983 --baselines avif,webp --seconds 90 --json > docs/bench.jsonl.part
	mv docs/bench.jsonl.part docs/bench.jsonl
	$(BIN)/python docs/readme.py

demo: $(READY)
	$(BIN)/python samples/demo.py

# The files of tests side by side; each process computes on one thread, else they wait for one another.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --durations 15

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz

crash: $(READY)
	$(BIN)/python -m tests.crash

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build: $(READY)
	$(BIN)/cmake -S . -B build -DPython_EXECUTABLE=$(abspath $(BIN))/python
	$(BIN)/cmake --build build

# In a copy of the package; -S: without the editable install, whose modules come first.
SANITIZED := $(abspath build/sanitized)
PRELOAD = $(shell $(CXX) -print-file-name=libasan.so) $(shell $(CXX) -print-file-name=libstdc++.so)
sanitize: $(READY)
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED) && cp -R dcu models tests pyproject.toml $(SANITIZED)
	$(BIN)/cmake -S . -B $(SANITIZED)/build -DPython_EXECUTABLE=$(abspath $(BIN))/python \
		-DDCU_SANITIZE=ON -DDCU_OUTPUT=$(SANITIZED)/dcu/entropy
	$(BIN)/cmake --build $(SANITIZED)/build
	packages=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('platlib'))") && cd $(SANITIZED) && \
		LD_PRELOAD="$(PRELOAD)" ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(SANITIZED):$$packages \
		$(abspath $(BIN))/python -S -m pytest --capture=sys tests/test_entropy.py tests/test_arithmetic_coder.py tests/test_logistic_coder.py -k "not torchac"

clean:
	rm -rf $(VENV) build out .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
