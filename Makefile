# Needs Python 3.10, 3.11 or 3.12 and pip, nothing else. "make help" lists the targets.
VENV_PYTHON := .venv/bin/python

.PHONY: help setup demo test mutants lint lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup:  ## create .venv from requirements/lock.txt (done by demo, test and lint on their own)
	@command -v python3 >/dev/null || { \
	  echo "setup: no python3 found; mmpd needs Python 3.10, 3.11 or 3.12" >&2; exit 2; }
	@PYTHON="$(PYTHON)" python3 tools/setup_env.py

demo: setup  ## train GLEAN and PDGLEAN on real pictures, compare them (work_dirs/demo)
	@$(VENV_PYTHON) tools/demo.py

test: setup  ## run the test suite (under 10 minutes on 2 cores)
	@$(VENV_PYTHON) -m pytest

mutants: setup  ## put faults into a copy, one at a time; the tests have to find each
	@$(VENV_PYTHON) tests/mutants.py

lint: setup  ## check the code with ruff
	@$(VENV_PYTHON) -m ruff check .

lock: setup  ## resolve requirements/lock.in anew into requirements/lock.txt
	@$(VENV_PYTHON) -m uv pip compile --quiet --universal --generate-hashes \
	  --python-version 3.10 requirements/lock.in -o requirements/lock.txt

clean:  ## remove .venv, caches and build products (work_dirs stays)
	rm -rf .venv build dist *.egg-info mmpd/.mim .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
