# Everything runs in .venv, which the first target that needs it sets up. `make` alone lists the targets.

# Candidates: the first that is new enough is taken. Another one: make PYTHON=/path/to/python3.12
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
WORKERS ?= 2
export FEATHERWEIGHT_DATA ?= $(abspath ../shared/data)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: help install demo test check bench format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## set up .venv with the versions that were tested

demo: $(STAMP) ## train, compress and prove a small network; the report lands in demo-run
	$(BIN)/python -m featherweight demo --out demo-run

test: $(STAMP) ## run the tests, in random order
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

check: $(STAMP) ## check format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo

bench: $(STAMP) ## run every benchmark, on the data in FEATHERWEIGHT_DATA
	@set -e; for file in benchmarks/[!_]*.py; do \
		test -e "$$file" || { echo "There are no benchmarks yet."; exit 0; }; \
		echo "== $$file"; \
		$(BIN)/python "$$file"; \
	done

format: $(STAMP) ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv, the demo's run and all caches
	rm -rf $(VENV) demo-run build dist *.egg-info
	rm -rf .pytest_cache .hypothesis .ruff_cache .import_linter_cache
	find featherweight tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# Debian's Python comes without ensurepip unless python3-venv is installed; then the system's pip fills the environment.
$(STAMP): pyproject.toml constraints.txt
	@set -e; $(BIN)/python -m pip --version >/dev/null 2>&1 && exit; \
	for python in $(PYTHON) none; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && break; \
	done; \
	if test "$$python" = none; then \
		echo "Featherweight needs Python 3.11 or newer; none of these is: $(PYTHON)"; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12"; \
		exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$python" --version)"; \
	if "$$python" -c 'import ensurepip' 2>/dev/null; then \
		"$$python" -m venv $(VENV); \
	elif "$$python" -m pip --version >/dev/null 2>&1; then \
		"$$python" -m venv --without-pip $(VENV); \
		"$$python" -m pip --python $(BIN)/python install pip; \
	else \
		echo "$$python has neither ensurepip nor pip, so no environment can be filled."; \
		echo "Install one of them (Debian, Ubuntu: apt install python3-venv) and run make again."; \
		exit 1; \
	fi
	@echo "Installing what Featherweight needs (a minute or two)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@
