#!/bin/sh
# The checks that pre-commit runs too: ruff, mypy --strict, shellcheck.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
shellcheck tools/*.sh .ci/run benchmarks/*.sh acon_nb/initrd/files/init acon_nb/initrd/files/profile \
	acon_nb/initrd/files/udhcpc acon_nb/bench/guest/swap-cell acon_nb/bench/guest/swap-study \
	acon_nb/bench/guest/show
