# Needs Python 3.10 to 3.14 and pip, nothing else. "make help" lists the targets.
VENV_PYTHON := .venv/bin/python
# two processes of one thread: small operations and imports, which threads do not help
PYTEST := OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n 2 --dist loadfile
COMPILE := $(VENV_PYTHON) -m uv pip compile --quiet --universal --generate-hashes \
  --override

.PHONY: help setup setup-web demo web test test-all test-web test-matrix mutants mutants-drawn \
  coverage lint docs docs-check dist lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup:  ## create .venv from requirements/lock-tests.txt (done by demo, test and lint on their own)
	@command -v python3 >/dev/null || { \
	  echo "setup: no python3 found; mmpd needs Python 3.10 to 3.14" >&2; exit 2; }
	@PYTHON="$(PYTHON)" python3 tools/setup_env.py

demo: setup  ## Real-ESRGAN made consistent; GLEAN and PDGLEAN trained (work_dirs/demo)
	@$(VENV_PYTHON) tools/demo/run.py

setup-web:
	@PYTHON="$(PYTHON)" python3 tools/setup_env.py web

web: setup-web  ## the web page, from .venv-web (made from requirements/lock-web.txt): ARGS="--port 7861 ..."
	@.venv-web/bin/mmpd-web $(ARGS)

test: setup  ## run the test suite (under 10 minutes on 2 cores)
	@$(PYTEST)

test-all: setup  ## run also the slow tests (all wrong values of the config fuzz)
	@$(PYTEST) -m "slow or not slow"

test-web: setup-web  ## test the web page in Chromium and the notebook in Jupyter, in .venv-web
	@.venv-web/bin/python -m pytest tests/test_web tests/test_tools/test_tutorial.py

test-matrix: setup  ## test every Python and PyTorch supported, write the README's table
	@$(VENV_PYTHON) tools/test_matrix.py

mutants: setup  ## put faults into a copy, one at a time; the tests have to find each
	@$(VENV_PYTHON) tests/mutants.py

mutants-drawn: setup  ## the same with faults drawn in every package (an hour): ARGS="--seed 3 ..."
	@$(VENV_PYTHON) tests/mutants.py --package all $(ARGS)

coverage: setup  ## lines and branches that the fast suite reaches; fails under 92 % and 85 %
	@$(VENV_PYTHON) tools/fast_suite_coverage.py

lint: setup  ## check the code with ruff
	@$(VENV_PYTHON) -m ruff check .

docs: setup  ## build the site in docs/_build/html, offline; any warning is an error
	@python3 tools/setup_env.py docs
	@$(VENV_PYTHON) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

docs-check: setup  ## run the command blocks of the README and the docs
	@$(VENV_PYTHON) tools/docs_check.py

dist: setup  ## build sdist and wheel of the commit, check and try them (dist/)
	@$(VENV_PYTHON) tools/dist.py

lock: setup  ## resolve requirements/lock*.in anew (lock-mmagic.txt is frozen)
	@$(COMPILE) requirements/overrides.txt --override requirements/overrides-slim.txt \
	  --python-version 3.10 requirements/lock.in -o requirements/lock.txt
	@$(COMPILE) requirements/overrides.txt --python-version 3.10 requirements/lock-tests.in \
	  -o requirements/lock-tests.txt
	@$(COMPILE) requirements/overrides.txt --python-version 3.11 requirements/lock-docs.in \
	  -o requirements/lock-docs.txt
	@$(COMPILE) requirements/overrides-web.txt --python-version 3.10 requirements/lock-web.in \
	  -o requirements/lock-web.txt

clean:  ## remove .venv, .venv-web, caches and build products (work_dirs stays)
	rm -rf .venv .venv-web build dist docs/_build docs/_pages *.egg-info mmpd/.mim .pytest_cache \
	  .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
