# Commands for people: `make quickstart`, `make check`, `make test`, and the one that draws the figures of docs/. The
# README shows what they run.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart check test soak lint docs figure3 gpu-job gpu-results setup

quickstart: setup  ## meta-train on data that need no download
	$(BIN)/lightning-meta fit -c configs/quickstart.yaml

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --maxprocesses 8 --dist worksteal

check: lint  ## linters, import contracts, types, quick tests
	$(PYTEST) -m "not slow"

test: lint  ## linters, import contracts, types, all tests
	$(PYTEST)

soak: setup  ## kill a hundred runs and let each go on, and watch memory over long runs; half an hour on two cores
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak/run.py

lint: setup  ## linters, import contracts, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: setup  ## the site, in site/
	$(BIN)/mkdocs build --strict

DATA ?= data
FIGURE3 ?= --trainer.max_steps 400 --trainer.val_check_interval 50 --data.validation_tasks 60 --data.test_tasks 100
figure3: setup  ## the Reptile paper's figure 3 on Omniglot in DATA, shortened; FIGURE3= for its full length
	-$(BIN)/lightning-meta sweep configs/sweeps/figure3.yaml --data.root $(DATA) $(FIGURE3)
	$(BIN)/lightning-meta report logs/figure3 --output docs/figure3

gpu-job: setup  ## pack into .gpu/ what benchmarks/gpu/run.sh needs on a GPU machine without network; Omniglot in DATA
	$(BIN)/python benchmarks/gpu/pack.py $(DATA)

gpu-results:  ## bring results.tar.gz of that job, in FOLDER, into docs/results/runs/gpu and benchmarks/results/gpu
	$(BIN)/python benchmarks/gpu/collect.py $(FOLDER)

setup: .venv/installed

.venv/installed: pyproject.toml setup.py requirements.txt constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"  # the first that knows --group
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements.txt --group dev
	touch $@
