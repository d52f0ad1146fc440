# `make` alone lists the targets. `make demo` and `make test` build the virtual environment when it is missing.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help venv check demo test test-slow test-adam8bit lint format types bench base-model train-portraits services doctor clean clean-all

VENV := .venv
BIN := $(VENV)/bin
CHECK := infra/check_machine.sh
# the environment is rebuilt when what it is made from changes
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml infra/constraints.txt | cksum | cut -d' ' -f1)
PYTEST := $(BIN)/python -m pytest
# whole files go to two processes, in their order: the long ones of tests/integration come first
TWO := -n 2 --dist loadfile --no-loadscope-reorder
ARGS ?=

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

check: ## say what this machine lacks, with the mend
	@sh $(CHECK)

venv: $(STAMP) ## make the virtual environment in .venv (about 3 GB, a few minutes)

$(STAMP):
	@sh $(CHECK)
	@echo "installing into $(VENV) (about 3 GB, a few minutes; the full log is $(VENV)/install.log)"
	@test -x $(BIN)/python || "$$(sh $(CHECK) --python)" -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
		-c infra/constraints.txt -e '.[dev]' > $(VENV)/install.log 2>&1 \
		|| { tail -n 5 $(VENV)/install.log; echo "error: the installation failed; the full log is $(VENV)/install.log"; exit 1; }
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP) ## from drawn photos to personalized pictures, about 10 minutes on a laptop
	@$(BIN)/photoverse demo $(ARGS)

test: $(STAMP) ## the whole suite but what is marked slow, gpu or network; ARGS='-k word' narrows it, ARGS='-n 0' is one process
	@$(PYTEST) $(TWO) $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes
	@$(PYTEST) -m slow $(ARGS)

test-adam8bit: $(STAMP) ## the 8-bit optimizer, its package beside the environment: in it, peft loads it everywhere
	@test -d $(VENV)/adam8bit/bitsandbytes || $(BIN)/python -m pip install --disable-pip-version-check -q \
		--no-deps --target $(VENV)/adam8bit -c infra/constraints.txt bitsandbytes
	@PYTHONPATH=$(VENV)/adam8bit:$$PYTHONPATH $(PYTEST) tests/unit/training/test_optimizers.py -k 8_bit \
		-m 'slow or not slow' $(ARGS)

lint: $(STAMP) ## ruff, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

types: $(STAMP) ## types alone
	@$(BIN)/mypy

bench: $(STAMP) ## speed against a reference measured in the same run; writes runs/bench.json
	@$(PYTEST) tests/benchmarks -m bench -q $(ARGS)

base-model: $(STAMP) ## draw people and train the portrait world's base model anew (hours)
	@$(BIN)/python -m components.portraits.pretrain $(ARGS)

train-portraits: $(STAMP) ## the portrait world to the end, an hour and a half; called again, it goes on
	@$(BIN)/photoverse train --profile portraits-full --name portraits-full --resume $(ARGS)

services: $(STAMP) ## Prefect's server and worker and MLflow's page on this machine, until Ctrl-C
	@$(BIN)/photoverse services $(ARGS)

doctor: $(STAMP) ## look at the machine and the installation, each finding with its mend
	@$(BIN)/photoverse doctor $(ARGS)

clean: ## remove what tools leave behind; runs and the environment stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find components flows tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean ## also remove runs/ and .venv
	rm -rf runs $(VENV)
