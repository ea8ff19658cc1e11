# Each target installs what it needs on a fresh machine, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest

# Processes that share the quick tests. Two fit two cores; each imports AudioCraft once and needs about 2 GB of memory.
WORKERS ?= 2

# Versions that `make install` keeps to, and the file that it installs instead with LOCKED=1: all packages, with their hashes.
CONSTRAINTS ?= --constraint requirements/constraints.txt
LOCK := requirements/lock.txt
LOCKED ?=

# Rounds of faults, and the folder that their table is written to; none if empty.
FAULT_ROUNDS ?= 500
FAULT_REPORT ?= docs/results

.PHONY: help install test test-integ test-browser chromium test-gpu test-slurm test-faults slurm-packages slurm-grid results demo docs lint lock audit zoo clean

help:
	@echo "make install     create .venv with the plugin and the tools for development"
	@echo "make demo        train for a minute, generate four clips and write demo/index.html"
	@echo "make test        run the quick tests (a few minutes on two cores)"
	@echo "make test-integ  run the slow tests: Dora runs, several ranks, grids, installation (about half an hour)"
	@echo "make test-browser  run the tests of magnet app in Chromium (as root on Debian, installs it; a few minutes)"
	@echo "make test-gpu    run the tests that need a GPU"
	@echo "make test-slurm  run jobs in a temporary SLURM on this host (as root on Debian; installs SLURM's packages)"
	@echo "make test-faults kill trainings and fill disks, $(FAULT_ROUNDS) rounds, and write the table to docs/results"
	@echo "make slurm-grid  run the tiny span grid in that SLURM and write its report to docs/results"
	@echo "make results     write all tables and plots in docs/results again from their records, without measuring"
	@echo "make docs        write the documentation site to site/"
	@echo "make lint        check style and types with ruff and mypy"
	@echo "make lock        write requirements/lock.txt: the newest versions that fit, with hashes; LOCKED=1 installs them"
	@echo "make audit       look up the locked packages in PyPI's list of vulnerabilities"
	@echo "make zoo         train and evaluate the four bundled models again (about four hours on one core)"
	@echo "make clean       remove build and cache folders"

install: $(READY)

$(READY): setup.py requirements/constraints.txt $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "Python 3.10 to 3.12 is needed, $(PYTHON) is another: make install PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
ifeq ($(LOCKED),)
	$(BIN)/uv pip install --python $(BIN)/python --no-deps 'audiocraft<1.5' tinysoundfont
	$(BIN)/uv pip install --python $(BIN)/python $(CONSTRAINTS) --editable '.[dev,app,docs]'
else
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --require-hashes --requirement $(LOCK)
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --editable .
endif
	@touch $@

# One thread per process: several processes with a thread per core each would slow each other down.
test: install
	OMP_NUM_THREADS=1 $(PYTEST) -m "not gpu and not integ and not slurm and not browser and not faults" -n $(WORKERS) --dist loadfile

test-integ: install
	OMP_NUM_THREADS=1 $(PYTEST) -m "integ and not gpu and not slurm and not faults" -n $(WORKERS) --dist loadfile

# The tests skip, with the reason, where there is no Chromium.
chromium:
	@if [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ] && ! test -x /usr/bin/chromium; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; fi

test-browser: install chromium
	$(PYTEST) -m browser -rs tests/app

# The tests skip, with the reason, where SLURM's packages are missing and cannot be installed.
slurm-packages:
	@if [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ] && ! { test -x /usr/sbin/slurmctld && test -x /usr/sbin/slurmdbd && \
		test -x /usr/sbin/munged && test -x /usr/sbin/mariadbd; }; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			slurm-wlm munge slurmdbd mariadb-server; fi

test-slurm: install slurm-packages
	$(PYTEST) -m slurm -rs -s tests/integ/slurm

results: install
	$(BIN)/python -m tools.results

slurm-grid: install slurm-packages
	MAGNET_REPORTS=docs/results $(PYTEST) -m slurm -rs -s tests/integ/slurm -k span_grid

test-gpu: install
	$(PYTEST) -m gpu -rs

test-faults: install
	OMP_NUM_THREADS=1 MAGNET_FAULT_ROUNDS=$(FAULT_ROUNDS) MAGNET_REPORTS=$(FAULT_REPORT) $(PYTEST) -m faults tests/faults

demo: install
	$(BIN)/magnet demo --out demo

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "Open site/index.html; for the search: $(BIN)/python -m http.server -d site"

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

# AudioCraft and tinysoundfont are locked without their requirements (see setup.py).
lock: install
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --universal --python-version 3.11 --generate-hashes $(CONSTRAINTS) \
		--extra dev --extra app --extra docs --output-file $(LOCK) setup.py
	printf '%s\n' 'audiocraft<1.5' tinysoundfont | $(BIN)/uv pip compile --quiet --no-header --no-annotate --no-deps \
		--python-version 3.11 --generate-hashes - >> $(LOCK)

audit: install
	$(BIN)/python -m tools.audit $(LOCK)

zoo: install
	for kind in codec magnet musicgen hybrid; do $(BIN)/python -m tools.zoo $$kind --train || exit 1; done

clean:
	rm -rf build dist demo site *.egg-info .pytest_cache .mypy_cache .ruff_cache
