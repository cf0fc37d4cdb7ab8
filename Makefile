# Each target sets up what it needs in .venv first: plain pip, nothing to install beforehand.
#
#   make test PYTHON=python3.12      another interpreter
#   make test TORCH='torch>=2.6'     another torch, or the one already in .venv; a wheel's file name works too
#
# On Linux a bare torch brings gigabytes of CUDA. For the CPU build, set pip up with the package source that PyTorch's
# install selector names for "CPU", or pass the wheel as TORCH.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
ANALYSIS ?= td-emergence

BIN   := .venv/bin
READY := .venv/.ready
PIP   := $(BIN)/python -m pip -qq --disable-pip-version-check install

.PHONY: help reproduce reproduce-all figures test pytest lint bench lock clean
.DEFAULT_GOAL := help

help: ## say what each target does
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

reproduce: $(READY) ## train, probe, tabulate and draw the core analyses (laptop preset)
	$(BIN)/learnscope reproduce

reproduce-all: $(READY) ## the same for every analysis
	$(BIN)/learnscope reproduce --all

figures: $(READY) ## redraw the figures of ANALYSIS (td-emergence) from its tables
	$(BIN)/learnscope figures $(ANALYSIS)

# Pyright keeps one core busy for a minute, so the tests begin beside it.
test: $(READY) ## lint and every test
	@$(MAKE) --no-print-directory -j 2 lint pytest

# A worker per core and one thread per worker: more threads only get in each other's way.
pytest: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile

lint: $(READY) ## ruff, pyright and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

bench: $(READY) ## speed and memory against the named baselines
	@set -e; for benchmark in benchmarks/*.py; do echo "$$benchmark"; $(BIN)/python "$$benchmark"; done

lock: ## pin requirements.lock anew from pyproject.toml (needs uv)
	echo '$(TORCH)' | uv pip compile --quiet --upgrade --universal --all-extras --generate-hashes --no-header \
	  --no-emit-package torch pyproject.toml - --output-file requirements.lock
	@# what torch brings for the GPU comes with torch
	awk '/^[a-z]/ { keep = !/^(cuda|nvidia|triton)/ } keep' requirements.lock > requirements.tmp
	mv requirements.tmp requirements.lock

clean: ## remove the environment and the caches; results stay
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Once the lock is in, the last line only adds this checkout; where it does not fit, it brings the ranges.
$(READY): pyproject.toml requirements.lock
	@python="$(BIN)/python"; test -x "$$python" || python="$(PYTHON)"; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "learnscope needs Python 3.11 or newer, and $$python is not: remove .venv, or say make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@echo "Setting up .venv (once, some minutes) ..."
	@$(PIP) --no-deps --require-hashes -r requirements.lock \
	  || echo "requirements.lock could not be installed here (see above): taking the ranges of pyproject.toml instead" >&2
	@echo "... $(TORCH)"
	@$(PIP) '$(TORCH)'
	@$(PIP) -e '.[dev]'
	@touch $@
