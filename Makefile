# make demo and make test set up all they need on a fresh machine; nothing is installed twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest

.PHONY: help install test test-quick test-gpu test-slurm slurm-packages results demo lint zoo clean

help:
	@echo "make demo        train for a minute, generate four prompts, write demo/index.html"
	@echo "make test        the whole suite, without GPU and SLURM"
	@echo "make test-quick  without real Dora runs"
	@echo "make test-gpu    what needs a GPU"
	@echo "make test-slurm  jobs in a real SLURM on this host; as root on Debian it installs what that needs"
	@echo "make results     run the tiny span grid in that SLURM and write its report into docs/results"
	@echo "make lint        ruff and mypy"
	@echo "make zoo         train and measure the bundled models again"

install: $(READY)

$(READY): setup.py requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "Python 3.10 to 3.12 is needed, $(PYTHON) is another: make install PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --python $(BIN)/python --no-deps 'audiocraft<1.5' tinysoundfont
	$(BIN)/uv pip install --python $(BIN)/python --constraint requirements/constraints.txt --editable '.[dev]'
	@touch $@

test: install
	$(PYTEST) -m "not gpu and not slurm"

test-quick: install
	$(PYTEST) -m "not gpu and not integ and not slurm"

# What is missing is told by the tests where this may not install it.
slurm-packages:
	@if [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ] && ! { test -x /usr/sbin/slurmctld && test -x /usr/sbin/slurmdbd && \
		test -x /usr/sbin/munged && test -x /usr/sbin/mariadbd; }; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			slurm-wlm munge slurmdbd mariadb-server; fi

test-slurm: install slurm-packages
	$(PYTEST) -m slurm -rs -s tests/integ/slurm

# The tiny span grid in a SLURM of this host's, and what it found.
results: install slurm-packages
	MAGNET_REPORTS=docs/results $(PYTEST) -m slurm -rs -s tests/integ/slurm -k span_grid

test-gpu: install
	$(PYTEST) -m gpu -rs

demo: install
	$(BIN)/magnet demo --out demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

zoo: install
	$(BIN)/python -m tools.zoo codec --train
	$(BIN)/python -m tools.zoo magnet --train

clean:
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
