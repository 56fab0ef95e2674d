# The workshop. Python 3.11 or newer, pip and make are all it needs: `make demo` to see it work, `make test` to run everything.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CODE   := src runtimes tests examples benchmarks

BENCH  := $(VENV)/.bench-installed

# Two tests at a time. `worksteal` gives each process consecutive tests, which share a module's servers.
ABREAST := -n 2 --dist worksteal

.PHONY: help setup demo test test-slow test-matrix test-matrix-short test-floors test-readme p0 check format proto bench bench-quick bench-micro fuzz chaos soak clean

help:  ## these lines
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup: $(STAMP)  ## the virtual environment, with both distributions installed from this folder

# The stamp is older than a requirement -> install again; nothing changed -> nothing happens.
$(STAMP): pyproject.toml runtimes/mlflow/pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' -e 'runtimes/mlflow[full,uv]'
	@touch $(STAMP)

demo: $(STAMP)  ## train a small model, serve it, print three curl lines to try (ctrl-C ends it)
	@$(BIN)/python examples/demo/train.py .demo
	@exec $(BIN)/mlserver start .demo

test: $(STAMP)  ## every test that takes seconds, two at a time
	@$(BIN)/python -m pytest $(ABREAST)

test-slow: $(STAMP)  ## the tests marked `slow`: environments that are built, packages that are installed, minutes of load
	@$(BIN)/python -m pytest $(ABREAST) -m slow

p0: $(STAMP)  ## what must hold in every release (docs/reliability.md), TIMES=1 times in a row
	@files=$$(cd tests && ../$(BIN)/python -m support.reliability_index); for run in $$(seq $(or $(TIMES),1)); do \
		echo "--- run $$run"; $(BIN)/python -m pytest -q $(ABREAST) -m p0 -p no:cacheprovider $$files || exit 1; done

test-matrix: $(STAMP)  ## quick start and differential tests beside several MLflows and Pythons (ARGS="mlflow-2.22 newest-3.13" for some)
	@cd tests && ../$(BIN)/python -m matrix.run $(ARGS)

test-matrix-short: $(STAMP)  ## two cells of it, as CI runs them
	@cd tests && ../$(BIN)/python -m matrix.run short

test-floors: $(STAMP)  ## the tests of formats, front ends and MLflow with the lowest versions that are allowed
	@cd tests && ../$(BIN)/python -m matrix.run floors

test-readme: $(STAMP)  ## the README's own commands, in a clean virtual environment
	@$(BIN)/python -m pytest -q -m clean_venv tests/matrix

check: $(STAMP)  ## format, lint, types, layers, import weight (under half a minute)
	@$(BIN)/ruff format --check --quiet $(CODE) || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_layers.py tests/unit/test_import_weight.py

format: $(STAMP)  ## let ruff put the code into shape
	@$(BIN)/ruff check --quiet --fix $(CODE) || true
	@$(BIN)/ruff format $(CODE)

proto: $(STAMP)  ## write the Python side of proto/*.proto anew (tests check that nothing differs)
	@$(BIN)/python -m proto.generate

# What the benchmark itself needs; the peers get environments of their own under .venvs.
$(BENCH): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $(BENCH)

bench: $(BENCH)  ## measure beside the peers and write docs/benchmarks.md (about an hour; ARGS="--cases wine-1" for less)
	@$(BIN)/python -m benchmarks.run --report $(ARGS)

bench-quick: $(BENCH)  ## the walk's two requests against four servers, in about two minutes once the peers are installed
	@$(BIN)/python -m benchmarks.run --quick $(ARGS)

bench-micro: $(BENCH)  ## formats, frames and batches in microseconds
	@$(BIN)/python -m pytest benchmarks/micro --benchmark-columns=median,iqr,ops --benchmark-sort=name $(ARGS)

fuzz: $(STAMP)  ## a hundred thousand hostile bodies, each of which may at worst be refused (ROUNDS=..., SEED=...)
	@HYPOTHESIS_PROFILE=random FUZZ_ROUNDS=$(or $(ROUNDS),25000) FUZZ_SEED=$(or $(SEED),$(shell date +%s)) $(BIN)/python -m pytest -q tests/fuzz

chaos: $(STAMP)  ## all workers killed every 1.5 s for SECONDS=60 while clients ask: no wrong answer, no hang, no 500
	@cd tests && ../$(BIN)/python -m soak.worker_kills $(or $(SECONDS),60)

soak: $(STAMP)  ## load, crashing clients, killed workers and reloads for MINUTES=30; writes docs/soak.md
	@cd tests && ../$(BIN)/python -m soak.run $(or $(MINUTES),30) --report

clean:  ## forget what the tools and the demo left behind (keeps .venv)
	@rm -rf .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .models build dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
