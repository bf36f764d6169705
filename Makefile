# make sweep and make test need no other step before them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SEEDS ?= 1
COMMA := ,
EMPTY :=
SEED_LIST = $(subst $(EMPTY) $(EMPTY),$(COMMA),$(shell seq 42 $$((41 + $(SEEDS)))))
SWEEP := $(BIN)/python -m dpmi.train -m mechanism=none,ldp,dpsgd beta=1,2,4

.DEFAULT_GOAL := help
.PHONY: help setup sweep test test-all lint data figure4 report bench clean

help: ## print this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## make a virtual environment with all that is needed

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name another: make PYTHON=python3.12 setup" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

sweep: $(READY) ## run the benchmark (original, LDP and DP-SGD at β = 1, 2, 4) on drawn images
	$(SWEEP) $(ARGS)

test: $(READY) ## run the tests
	$(BIN)/python -m pytest $(ARGS)

test-all: $(READY) ## run the tests, the slow ones too
	$(BIN)/python -m pytest -m '' $(ARGS)

lint: $(READY) ## check format, rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

data: $(READY) ## download the chest X-rays and APTOS with a Kaggle account, or say how to place them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[kaggle]'
	$(BIN)/python -m dpmi.download $(ARGS)

figure4: $(READY) ## run the poster's fourteen cells (after make data; hours on a GPU), SEEDS times, and report
	$(SWEEP) experiment=figure4_pneumonia seed=$(SEED_LIST) $(ARGS)
	$(SWEEP) experiment=figure4_aptos seed=$(SEED_LIST) $(ARGS)
	$(BIN)/python -m dpmi.report

report: $(READY) ## write the report of all runs in outputs/
	$(BIN)/python -m dpmi.report $(ARGS)

bench: $(READY) ## measure a private training step beside a plain one
	$(BIN)/python -m dpmi.bench $(ARGS)

clean: ## remove the virtual environment and what tools left; outputs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find dpmi tests -name __pycache__ -type d -prune -exec rm -rf {} +
