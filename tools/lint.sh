#!/bin/sh
# Run ruff, mypy --strict and shellcheck, as pre-commit does.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
shellcheck tools/*.sh .ci/run benchmarks/*.sh acon_nb/initrd/files/init acon_nb/initrd/files/profile \
	acon_nb/initrd/files/udhcpc acon_nb/guest/src/swap-study acon_nb/guest/src/image-measure \
	acon_nb/guest/src/show
