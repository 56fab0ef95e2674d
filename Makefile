# Developer commands; they need Python 3.11 or newer, pip and make. `make help` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CODE   := src runtimes tests examples benchmarks tools

BENCH  := $(VENV)/.bench-installed

# Hundreds of tests start servers. Without bytecode files each start compiles 250 modules again.
unexport PYTHONDONTWRITEBYTECODE
SITE   := $(VENV)/.site-installed
RELEASE := $(VENV)/.release-installed

# Three tests at a time: on two cores, a test waits for a server's start or a timeout a third of its
# time. `loadfile` gives each process whole files, so that the servers of a module start once
# (tests/support/distribution.py); `worksteal` divides the few and long files of the slow tests.
PROCESSES ?= 4
ABREAST := -n $(PROCESSES) --dist loadfile
DIVIDED := -n $(PROCESSES) --dist worksteal

.PHONY: help setup demo test test-slow test-ray ray-faults test-matrix test-matrix-short test-floors test-readme test-image p0 check docs docs-serve reference screenshots dist dist-files format proto bench bench-start bench-report bench-quick bench-ray bench-micro fuzz chaos rolling soak clean

help:  ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup: $(STAMP)  ## create .venv with both distributions, installed from this folder, and the tools

# Installs again when a file with requirements is newer than the stamp.
$(STAMP): pyproject.toml runtimes/mlflow/pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' -e 'runtimes/mlflow[full,uv]'
	@touch $(STAMP)

demo: $(STAMP)  ## run `mlserver demo`: train a small model, serve it, print requests (Ctrl-C stops it)
	@exec $(BIN)/mlserver demo

test: $(STAMP)  ## run all tests except the slow ones, four at a time (PROCESSES=4) (ARGS="--durations=10")
	@$(BIN)/python -m pytest $(ABREAST) $(ARGS)

test-slow: $(STAMP)  ## run the tests marked `slow`: installed packages, minutes of load, browsers, further parameters
	@$(BIN)/python -m pytest $(DIVIDED) -m "slow and not ray" $(ARGS)
	@$(MAKE) --no-print-directory test-ray

# One process: its tests share one Ray cluster.
test-ray: $(STAMP)  ## run the tests with a Ray cluster, a part of `make test-slow`
	@$(BIN)/python -m pytest -m ray $(ARGS)

RAY_FAULTS := $(addprefix tests/processes/test_ray_,faults.py network.py autoscaling.py)

ray-faults: $(STAMP)  ## kill, cut off and scale the replicas of simulated Ray clusters under load, TIMES=1 times in a row
	@log=$$(mktemp); for run in $$(seq $(or $(TIMES),1)); do echo "--- run $$run"; \
		RAY_FAULTS_LOG=$$log $(BIN)/python -m pytest -q -m ray -p no:cacheprovider $(ARGS) $(or $(FILES),$(RAY_FAULTS)) || exit 1; \
		PYTHONPATH=tests $(BIN)/python -m support.ray_load $$log; done; rm -f $$log

p0: $(STAMP)  ## run the tests that every release must pass (failure-modes.md), TIMES=1 times in a row
	@files=$$(cd tests && ../$(BIN)/python -m support.reliability_index); for run in $$(seq $(or $(TIMES),1)); do \
		echo "--- run $$run"; $(BIN)/python -m pytest -q $(DIVIDED) -m p0 -p no:cacheprovider $$files || exit 1; done

test-matrix: $(STAMP)  ## run quick start and differential tests with several MLflow and Python versions (ARGS="mlflow-2.22" selects)
	@cd tests && ../$(BIN)/python -m matrix.run $(ARGS)

test-matrix-short: $(STAMP)  ## run two cells of the matrix, as CI does
	@cd tests && ../$(BIN)/python -m matrix.run short

test-floors: $(STAMP)  ## run the tests of formats, front ends and MLflow with the lowest allowed versions
	@cd tests && ../$(BIN)/python -m matrix.run floors

test-readme: $(STAMP)  ## run the README's commands in a clean virtual environment
	@$(BIN)/python -m pytest -q -m clean_venv tests/matrix

test-image: dist-files  ## build images with buildah (no daemon), and run them under three users with a read-only root
	@for program in buildah debootstrap; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
		test -z "$$missing" || (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing) >/dev/null
	@rm -f build/image/sizes.txt
	@$(BIN)/python -m pytest -q -m image tests/image
	@cat build/image/sizes.txt

check: $(STAMP)  ## check format, lint, types, layers, import weight (under half a minute)
	@$(BIN)/ruff format --check --quiet $(CODE) || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -r fE tests/unit/test_layers.py tests/unit/test_import_weight.py tests/unit/test_style.py

# Requirements of the documentation site.
$(SITE): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $(SITE)

docs: $(SITE)  ## build the documentation site into build/site; a dead link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@$(BIN)/python -m tools.site_check
	@echo "build/site/index.html"

docs-serve: $(SITE)  ## show the documentation site on http://127.0.0.1:8000 (Ctrl-C stops it)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# Tools of a release.
$(RELEASE): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	@touch $(RELEASE)

dist-files: $(RELEASE)  ## build wheels and source distributions into dist/, and check their metadata and contents
	@$(BIN)/python -m tools.distributions

dist: dist-files  ## the same, and run the quick start from them with each Python found
	@cd tests && ../$(BIN)/python -m matrix.dist

format: $(STAMP)  ## format the code with ruff
	@$(BIN)/ruff check --quiet --fix $(CODE) || true
	@$(BIN)/ruff format $(CODE)

screenshots: $(STAMP)  ## write the pictures of the console and the terminal in docs/assets (needs chromium; three minutes)
	@$(BIN)/python -m tools.console_screenshots docs/assets/console
	@$(BIN)/python -m tools.terminal_picture docs/assets/terminal.svg

reference: $(STAMP)  ## write the generated pages of docs/reference (a test compares them)
	@$(BIN)/python -m tools.reference

proto: $(STAMP)  ## generate the Python code of proto/*.proto (tests compare it)
	@$(BIN)/python proto/generate.py

# Requirements of the benchmark; the peers have their own environments under .venvs.
$(BENCH): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $(BENCH)

bench: $(BENCH)  ## measure all servers and write its page (about an hour; ARGS="--cases wine-1" selects)
	@$(BIN)/python -m benchmarks.run --report $(ARGS)

bench-start: $(BENCH)  ## measure all servers from the command to the first right answer, and write the pages (half an hour)
	@$(BIN)/python -m benchmarks.cold_start $(ARGS)
	@$(BIN)/python -m benchmarks.report

bench-report: $(STAMP)  ## write the charts and tables of the benchmark pages from benchmarks/results
	@$(BIN)/python -m benchmarks.report

bench-quick: $(BENCH)  ## measure two requests on four servers (about two minutes once the peers are installed)
	@$(BIN)/python -m benchmarks.run --quick $(ARGS)

bench-ray: $(BENCH)  ## measure plain Ray Serve, the engine `ray` and a single server, and write their tables (ten minutes)
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.ray_engine $(ARGS)

bench-micro: $(BENCH)  ## measure formats, frames and batches in microseconds
	@$(BIN)/python -m pytest benchmarks/micro --benchmark-columns=median,iqr,ops --benchmark-sort=name $(ARGS)

fuzz: $(STAMP)  ## send 100,000 mutated bodies, then draw 20 times the examples of the property tests (ROUNDS=..., SEED=...)
	@HYPOTHESIS_PROFILE=random FUZZ_ROUNDS=$(or $(ROUNDS),25000) FUZZ_SEED=$(or $(SEED),$(shell date +%s)) $(BIN)/python -m pytest -q tests/fuzz
	@HYPOTHESIS_PROFILE=random $(BIN)/python -m pytest -q -m hypothesis --timeout 1800 tests/unit tests/wire

chaos: $(STAMP)  ## kill all workers every 1.5 s for SECONDS=60 under load: no incorrect response, no hang, no 500
	@cd tests && ../$(BIN)/python -m soak.worker_kills $(or $(SECONDS),60)

rolling: $(STAMP)  ## replace two servers one after the other under load, TIMES=1 times in a row: no request is lost
	@cd tests && ../$(BIN)/python -m soak.rolling $(or $(TIMES),1)

soak: $(STAMP)  ## run load, crashing clients, killed workers and reloads for MINUTES=30; writes its page
	@cd tests && ../$(BIN)/python -m soak.run $(or $(MINUTES),30) --report

clean:  ## remove the files of the tools (keeps .venv)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .models build dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
