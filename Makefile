# The commands of a checkout. Each sets up what it needs first; see tools/setup.sh.
.PHONY: help tour test test-weekly nightly lab lint benchmarks docs clean

help:
	@echo "make tour        build, boot and measure; writes reports/tour.html"
	@echo "make test        set up what the tests need and run them all"
	@echo "make test-weekly the tests that take minutes, meant for once a week"
	@echo "make nightly     measure a night, compare it with the nights before (NIGHTLY_ARGS=options)"
	@echo "make lab         JupyterLab on a copy of the notebooks (NOTEBOOKS=folder, LAB_ARGS=options)"
	@echo "make lint        ruff, mypy, shellcheck"
	@echo "make docs        the documentation site, build/docs/index.html, and as a zip to read offline"
	@echo "make benchmarks  our cost compared with the bare tools' (BENCHMARKS=names of benchmarks/*.py)"

tour:
	@tools/setup.sh tour
	@.venv/bin/acon-nb tour

# A process for each CPU and one more, since guests, browsers and locks are waited for; the tests of a file stay
# together, since they share what they build. tests/conftest.py has the order of the files.
PYTEST_WORKERS ?= -n $(shell expr $$(nproc) + 1) --dist loadfile --no-loadscope-reorder
test:
	@tools/setup.sh test
	@tools/lint.sh
	@.venv/bin/python -m pytest $(PYTEST_WORKERS) $(PYTEST_ARGS)

test-weekly:
	@tools/setup.sh weekly
	@ACON_NB_WEEKLY=1 .venv/bin/python -m pytest -m "weekly or slow" $(PYTEST_ARGS)

nightly:
	@tools/setup.sh lab
	@.venv/bin/acon-nb bench nightly $(NIGHTLY_ARGS)

lint:
	@tools/setup.sh test
	@tools/lint.sh

NOTEBOOKS ?= acon-notebooks
lab:
	@tools/setup.sh lab
	@.venv/bin/acon-nb lab $(NOTEBOOKS) $(LAB_ARGS)

BENCHMARKS ?= boot_overhead initrd_speed boots_per_minute
benchmarks:
	@tools/setup.sh benchmarks
	@for name in $(BENCHMARKS); do .venv/bin/python benchmarks/$$name.py || exit; done

docs:
	@tools/setup.sh docs
	@.venv/bin/python -m sphinx -q -W --keep-going -b html docs build/docs
	@cd build && ../.venv/bin/python -m zipfile -c acon_nb-docs.zip docs
	@echo "build/docs/index.html, build/acon_nb-docs.zip"

clean:
	rm -rf .venv reports build dist
