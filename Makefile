# Everything happens in one virtual environment, made from requirements.txt when it is missing, broken or out of date.
# PYTHON chooses the interpreter:  PYTHON=python3.12 make test

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
READY := $(VENV)/ready
PEERS := .venv-bench
CONSUMERS := .venv-consumers
PACKAGES := $(wildcard keras_vae export serving)

PRINT_VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
OFFERED = $(shell $(PYTHON) $(PRINT_VERSION) 2>/dev/null)
# An environment that was finished, still runs, and has the Python that the caller named, if he named one.
FINISHED := $(filter $(shell cat $(READY) 2>/dev/null),$(shell $(BIN)/python $(PRINT_VERSION) 2>/dev/null))
GOOD := $(if $(filter file,$(origin PYTHON)),$(FINISHED),$(filter $(FINISHED),$(if $(FINISHED),$(OFFERED))))

.DEFAULT_GOAL := help
.PHONY: help test quickstart lint format coverage javascript docs bench consumers wheel clean distclean FORCE
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

help:  ## Say what there is to make.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: $(READY)  ## Check style, types and imports, then run every test (PYTEST_ARGS="-k name" for some).
	@$(MAKE) -j 2 lint javascript
	@echo "== pytest"
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

quickstart: $(READY)  ## Train on real data, evaluate, export and verify: two minutes after the installation.
	@$(BIN)/python -m keras_vae quickstart

lint: $(READY)  ## Check style, types and the direction of imports.
	@echo "== ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "Run 'make format' and look at what it changed."; exit 1; }
	@echo "== mypy"
	@$(BIN)/mypy $(PACKAGES)
	@echo "== import-linter"
	@log=$$($(BIN)/lint-imports 2>&1) && echo "$$log" | grep '^Contracts:' || { echo "$$log"; exit 1; }

format: $(READY)  ## Lay out the code and repair what can be repaired without a thought.
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

coverage: $(READY) javascript  ## Run every test and say which lines and branches none of them reached.
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term $(PYTEST_ARGS)

javascript: $(READY)  ## Install the JavaScript packages that tests run artifacts in, if they are missing or others.
	@$(BIN)/python -m export.runtimes install

docs: $(READY)  ## Build the documentation site into docs/_build/html; a warning is an error.
	@$(BIN)/python -m sphinx -b html -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

bench: $(READY) $(PEERS)/ready  ## Measure `fit` beside JAX, PyTorch, Pythae and plain Keras (BENCH_ARGS="--cases mlp-100").
	@$(BIN)/python -m benchmarks.peers --peers $(PEERS)/bin/python $(BENCH_ARGS)

$(PEERS)/ready: benchmarks/requirements.txt
	@echo "== $(PEERS): JAX, PyTorch and Pythae, which the project itself does not need (log: $(PEERS)/install.log)"
	@$(PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --no-input install -r benchmarks/requirements.txt >$(PEERS)/install.log 2>&1 \
		|| { tail -n 30 $(PEERS)/install.log >&2; exit 1; }
	@touch $@

consumers: $(READY) $(CONSUMERS)/ready  ## Run ONNX files in IREE, TVM, tinygrad and others, and say how far each gets.
	@$(BIN)/python -m benchmarks.consumers --python $(CONSUMERS)/bin/python --results benchmarks/results/consumers.txt

$(CONSUMERS)/ready: benchmarks/consumers/requirements.txt
	@echo "== $(CONSUMERS): programs that read ONNX, which the project itself does not need (log: $(CONSUMERS)/install.log)"
	@$(PYTHON) -m venv --clear $(CONSUMERS)
	@$(CONSUMERS)/bin/python -m pip --disable-pip-version-check --no-input install -r benchmarks/consumers/requirements.txt \
		>$(CONSUMERS)/install.log 2>&1 || { tail -n 30 $(CONSUMERS)/install.log >&2; exit 1; }
	@touch $@

wheel: $(READY)  ## Build the wheel into dist/.
	@rm -rf build
	@$(PIP) --quiet wheel --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build && ls dist/*.whl

clean:  ## Remove caches and build leftovers; the environment, runs/ and artifacts/ stay.
	@rm -rf build dist docs/_build docs/reference *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov
	@find . \( -path ./$(VENV) -o -path ./.git \) -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean  ## Remove the environments too.
	@rm -rf $(VENV) $(PEERS) $(CONSUMERS)

# $(READY) is removed first and written last, so an interrupted installation is never taken for a finished one. Without
# it the environment is made anew; with it only what changed in the files below is installed. pip would byte-compile on
# one core; compileall takes all, and leaves out the tests that packages carry. A file that it refuses stays as it is.
$(READY): requirements.txt pyproject.toml $(if $(GOOD),,FORCE)
ifneq ($(GOOD),)
	@rm -f $(READY)
else
	@case "$(OFFERED)" in \
		3.11 | 3.12 | 3.13) ;; \
		"") echo "'$(PYTHON)' does not run: install Python 3.11, 3.12 or 3.13, or name one, as in PYTHON=python3.12 make test" >&2; exit 1 ;; \
		*) echo "'$(PYTHON)' is Python $(OFFERED), and this project runs on 3.11, 3.12 and 3.13: name one of these, as in PYTHON=python3.12 make test" >&2; exit 1 ;; \
	esac
	@echo "== $(VENV): Python $(OFFERED)"
	@$(PYTHON) -m venv --clear $(VENV) || { echo "'$(PYTHON) -m venv' failed; where ensurepip is missing, 'apt-get install python3-venv' brings it on Debian and Ubuntu" >&2; exit 1; }
endif
	@echo "== $(VENV): installing $$(grep -c == requirements.txt) pinned packages (the first time this takes minutes and 3 GB; log: $(VENV)/install.log)"
	@{ $(PIP) install --no-compile -r requirements.txt \
		&& { $(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib || true; } \
		&& $(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat --editable . \
		&& $(PIP) check; \
	} >$(VENV)/install.log 2>&1 || { tail -n 30 $(VENV)/install.log >&2; \
		echo "The installation failed: above is the end of $(VENV)/install.log" >&2; exit 1; }
	@$(BIN)/python $(PRINT_VERSION) >$(READY)
