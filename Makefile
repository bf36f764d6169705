# make sweep and make test need no other step before them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SWEEP := $(BIN)/python -m dpmi.train -m mechanism=none,ldp,dpsgd beta=1,2,4
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SEEDS ?= 1
FIGURE4 := outputs/figure4
RESULTS := outputs/results
WEIGHTS ?= imagenet

.DEFAULT_GOAL := help
.PHONY: help setup sweep test test-all chaos planted lint data figure4 results report audit dashboard wandb-sync bench bench-check docs notebooks clean

help: ## print this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(READY) ## make a virtual environment with all that is needed

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name another: make PYTHON=python3.12 setup" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev]'
	@touch $@

sweep: $(READY) ## run the benchmark (original, LDP and DP-SGD at β = 1, 2, 4) on drawn images
	$(SWEEP) $(ARGS)

# A process a core, each with one thread: tests are many and small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test: $(READY) ## run the tests
	$(PYTEST) -n auto --dist loadfile $(ARGS)

test-all: $(READY) ## run the tests, the slow ones too
	$(PYTEST) -n auto --dist loadfile -m '' $(ARGS)

chaos: $(READY) ## kill a run a hundred times, at random, and compare it with one that was not
	DPMI_KILLS=100 $(PYTEST) tests/run/durability/test_resume.py -m '' -k random $(ARGS)

planted: $(READY) ## plant bugs that would break the guarantee, one at a time: a test must fail on each
	$(PYTEST) -n auto --dist load tests/test_planted_bugs.py -m '' $(ARGS)

lint: $(READY) ## check format, rules, types and who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

data: $(READY) ## download the chest X-rays and APTOS with a Kaggle account, or say how to place them
	$(INSTALL) -e '.[kaggle]'
	$(BIN)/python -m dpmi.download $(ARGS)

# A cell that fails (exit status 1) stops neither the others nor the report, where it is shown.
figure4: $(READY) ## run the poster's fourteen cells, SEEDS=3 times, then the report (hours on a GPU)
	@status=0; seeds=$$($(BIN)/python -c 'print(*range(42, 42 + $(SEEDS)), sep=",")') || exit; \
	for set in pneumonia aptos; do \
		$(SWEEP) experiment=figure4_$$set seed=$$seeds output_dir=$(FIGURE4) $(ARGS) || \
			{ status=$$?; [ $$status -eq 1 ] || exit $$status; }; \
	done; \
	$(BIN)/python -m dpmi.report $(FIGURE4) && exit $$status

# Heads on public features first, which take minutes; then whole networks, which take hours on a CPU. DP-SGD as
# published needs 32 backward passes a step, and is run smaller.
# What is done is not run again: the same command goes on where it was stopped.
results: $(READY) ## run all mechanisms on the chest X-rays, then the report: DATA=FOLDER WEIGHTS=FILE SEEDS=5 (hours)
	@[ -d "$(DATA)" ] || { echo 'error: DATA="$(DATA)" is no folder; give that of the chest X-rays: make results DATA=FOLDER' >&2; exit 2; }
	@status=0; seeds=$$($(BIN)/python -c 'print(*range(42, 42 + $(SEEDS)), sep=",")') || exit; \
	run() { \
		$(BIN)/python -m dpmi.train -m "$$@" seed=$$seeds data.root="$(DATA)" model.weights="$(WEIGHTS)" \
			output_dir=$(RESULTS) $(ARGS) || { status=$$?; [ $$status -eq 1 ] || exit $$status; }; \
	}; \
	for test in official other_patients; do \
		run experiment=frontier_pneumonia mechanism=none,dpsgd beta=1,2,4 data.test=$$test; \
		run experiment=frontier_class_means beta=1,2,4 data.test=$$test; \
		run experiment=frontier_second_moments beta=1,2,4 data.test=$$test; \
		run experiment=frontier_ldp_features beta=1,2,4 data.test=$$test; \
	done; \
	run experiment=frontier_pneumonia mechanism=none,dpsgd beta=1,2,4 data.test=held_out \
		model.prior=train model.learning_rate=2; \
	for recipe in class_means second_moments; do \
		run experiment=frontier_$$recipe beta=1,2,4 data.test=held_out; \
	done; \
	run experiment=frontier_pneumonia mechanism=dpsgd beta=1,2,4 privacy.unit=patient; \
	run experiment=frontier_pneumonia mechanism=dpsgd beta=1,2,4 data.test=held_out \
		model.prior=train model.learning_rate=2 privacy.unit=patient; \
	run experiment=frontier_class_means beta=1,2,4 data.test=official,held_out privacy.unit=patient; \
	run experiment=frontier_ldp_features beta=1,2,4 privacy.unit=patient; \
	run data=chest_xray data.image_size=64 privacy.unit=image mechanism=none,ldp,dpsgd beta=1,2,4; \
	run experiment=as_published_pneumonia data.resize=72 data.image_size=64 trainer.max_epochs=5 \
		mechanism=none,ldp_published beta=1,2,4; \
	run experiment=as_published_pneumonia data.resize=36 data.image_size=32 trainer.max_epochs=2 \
		mechanism=dpsgd_published beta=1,2,4; \
	$(BIN)/python -m dpmi.report $(RESULTS) && exit $$status

report: $(READY) ## write report and cards of all runs in outputs/, or of ARGS="FOLDER ..."
	$(BIN)/python -m dpmi.report --cards $(ARGS)

audit: $(READY) ## attack a run with the default config, or those in ARGS="FOLDER ...", and bound its ε from below
	$(BIN)/python -m dpmi.audit $(ARGS)

dashboard: $(READY) ## make the W&B dashboard, or write it to a file for later
	$(INSTALL) -e '.[dashboard]'
	$(BIN)/python -m dpmi.dashboard $(ARGS)

wandb-sync: $(READY) ## push what was logged offline to W&B; safe to repeat
	$(BIN)/python -m dpmi.wandb_sync $(ARGS)

bench: $(READY) ## measure a private training step beside a plain one
	$(BIN)/python -m dpmi.bench $(ARGS)

bench-check: $(READY) ## measure the fast engine's ratios, and say which moved since docs/bench.json
	$(BIN)/python -m dpmi.bench --check docs/bench.json $(ARGS)

docs: $(READY) ## build the documentation site, in site/; a dead link is an error
	$(INSTALL) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

notebooks: $(READY) ## run the notebooks in docs/notebooks from top to bottom
	$(PYTEST) tests/test_notebooks.py -m '' $(ARGS)

clean: ## remove the virtual environment and what tools left; outputs/ stays
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find dpmi tests -name __pycache__ -type d -prune -exec rm -rf {} +
