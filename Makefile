# `make test` is the one command that proves the project; .ci/run calls it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pip's notices about itself are of no interest here.
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: test check pytest cluster-test testbed demo mutation-check fuzz simulate scale wheel format clean

test: check pytest

# What needs no run: style, types.
check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One process has the tests that follow each other in one cluster; the others share the rest, file by file.
SIDE_BY_SIDE ?= 3

# From tests/, so that `import zmqmr` finds the installed wheel, in child processes too, and not the source tree.
pytest: $(VENV)/.installed
	cd tests && env -u PYTHONPATH ../$(BIN)/pytest --numprocesses $(SIDE_BY_SIDE) $(ARGS)

# Clusters on hosts that this machine boots, without the rest.
cluster-test: $(VENV)/.installed
	cd tests && env -u PYTHONPATH ../$(BIN)/pytest cluster --numprocesses 2 $(ARGS)

# What the tests of clusters need; their hosts' root file system is kept in ~/.cache/zmqmr-testbed.
testbed: $(VENV)/.installed
	cd tests && ../$(BIN)/python -m testbed

# The main job on real input: the words of Python's own standard library, the most frequent first.
demo: $(VENV)/.package
	$(BIN)/zmqmr-run examples/word_freq.py $$($(BIN)/python examples/stdlib_files.py) | sort -t '	' -k2,2nr | head -n 12

# Break the scheduler on purpose; its tests must see every break.
mutation-check: $(VENV)/.installed
	$(BIN)/python scripts/mutate_core.py

# A million malformed and hostile frames at a running coordinator and agent; the job's output must be exact.
fuzz: $(VENV)/.installed
	cd scripts && ../$(BIN)/python fuzz.py $(ARGS)

# Whole jobs in simulated misfortune, one a seed; seeds that fail are kept in simulate-failed.txt.
simulate: $(VENV)/.installed
	cd tests && ../$(BIN)/python -m core.simulate --seeds $(or $(SEEDS),10000) --keep ../simulate-failed.txt $(ARGS)

# What one coordinator can do, up to 10,000 workers and 1,000,000 tasks; written into docs/performance.md.
scale: $(VENV)/.installed
	$(BIN)/python scripts/scale.py --write $(ARGS)

wheel: dist/.built

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

SOURCES := $(shell find zmqmr build_support -type f ! -name '*.pyc') setup.cfg pyproject.toml MANIFEST.in $(wildcard README.md)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "zmqmr needs Python 3.10 or later; say which: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' \
	  || { echo "this Python has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# setuptools packs what it finds in build/, removed modules included: start from nothing.
dist/.built: $(VENV)/bin/python $(SOURCES)
	rm -rf build dist *.egg-info
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	touch $@

# The package and what it needs to run jobs, nothing else.
$(VENV)/.package: dist/.built
	$(BIN)/python -m pip install --quiet dist/*.whl
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	touch $@

# And what it takes to work on it.
$(VENV)/.installed: $(VENV)/.package
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "the tests need Python 3.11 or later, as Ansible does; make clean, then say which: make PYTHON=python3.12" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet "$$(echo dist/*.whl)[dev,testbed]"
	touch $@
