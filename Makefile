# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2

.PHONY: demo test test-all web cuda lint bench clean

$(STAMP): pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[test,lint,data]"
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m frontend.demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# a page that recognises digits, in build/web
web: $(STAMP)
	$(BIN)/python -m pip install --quiet -e ".[deploy,data]"
	$(BIN)/python tutorials/web/build.py build/web

# nvcc and pycuda, for the tests of the CUDA target that need them; no GPU
cuda: $(STAMP)
	$(BIN)/python tests/cuda/setup_pycuda.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks.small --model digits_cnn

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
