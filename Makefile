# Every target makes the virtual environment .venv first if it is not there yet (Python 3.10 or newer is all it needs).
# Variables: PYTHON (which Python makes .venv), WORKERS (parallel test processes), and those of scripts/install.py.
.DEFAULT_GOAL := help
.PHONY: help install demo test check lint types slow gpu pretend-gpu wheel clean

WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CHECKED := marl_td losses tasks hydra_plugins tests scripts setup.py $(wildcard benchmarks)
export OMP_NUM_THREADS ?= 1
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

$(STAMP): pyproject.toml setup.py constraints.txt scripts/install.py
	@python=$${PYTHON:-$$(for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then echo $$p; break; fi; done)}; \
	if [ -z "$$python" ]; then echo "No Python 3.10 or newer found. Install one, or name it: make PYTHON=/path/to/python3"; exit 1; fi; \
	"$$python" scripts/install.py
	@touch $@

install: $(STAMP) ## make .venv and install marl_td in it, editable

demo: $(STAMP) ## train MADDPG on retail and MAPPO on banking, and compare with the classical policies
	$(BIN)/python -m marl_td demo --out runs/demo --overwrite

test: lint types ## everything a change must pass: style, types, default tests
	$(PYTEST)

check: lint types ## the quick part of `make test`: style, types, structure, losses
	$(PYTEST) tests/test_layers.py tests/test_size.py tests/losses

lint: $(STAMP) ## style and format (ruff)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)

types: $(STAMP) ## types (mypy)
	$(BIN)/mypy

slow: $(STAMP) ## the long tests
	$(PYTEST) -m "slow and not gpu" --timeout 7200

gpu: $(STAMP) ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu --timeout 1800

# What is recorded as a graph is compiled first, with what a real GPU needs for it.
pretend-gpu: $(STAMP) ## the uncompiled ones of these, and short trainings, on a GPU that is none: only a CPU is needed
	$(BIN)/python scripts/pretend_gpu -m pytest -m gpu --ignore tests/training/test_cuda_graphs.py
	$(BIN)/python scripts/pretend_gpu scripts/pretend_gpu/trainings.py

wheel: $(STAMP) ## build wheel and source distribution into dist/
	$(BIN)/python -m build --no-isolation

clean: ## remove .venv, caches and what was built (not runs/)
	rm -rf $(VENV) build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
