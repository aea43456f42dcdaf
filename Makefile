# The commands of a checkout. Each sets up what it needs first; see tools/setup.sh.
.PHONY: help tour test test-weekly nightly lab lint benchmarks clean

help:
	@echo "make tour        build, boot and measure; writes reports/tour.html"
	@echo "make test        set up what the tests need and run them all"
	@echo "make test-weekly the tests that take minutes, meant for once a week"
	@echo "make nightly     measure a night, hold it against the nights before (NIGHTLY_ARGS=options)"
	@echo "make lab         JupyterLab on a copy of the notebooks (NOTEBOOKS=folder)"
	@echo "make lint        ruff, mypy, shellcheck"
	@echo "make benchmarks  our cost beside the bare tools'"

tour:
	@tools/setup.sh tour
	@.venv/bin/acon-nb report notebooks/00_tour.ipynb -o reports/tour.html

test:
	@tools/setup.sh test
	@tools/lint.sh
	@.venv/bin/python -m pytest $(PYTEST_ARGS)

test-weekly:
	@tools/setup.sh test
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
	@.venv/bin/acon-nb lab $(NOTEBOOKS)

benchmarks:
	@tools/setup.sh test
	@.venv/bin/python benchmarks/boot_overhead.py
	@.venv/bin/python benchmarks/initrd_speed.py
	@.venv/bin/python benchmarks/boots_per_minute.py

clean:
	rm -rf .venv reports build dist
