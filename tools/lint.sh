#!/bin/sh
# Run ruff, mypy --strict and shellcheck, as pre-commit does.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/ruff check .
.venv/bin/ruff format --check .
# From nothing mypy takes a minute of CPU, and some seconds with what it knew of the same files before: a new checkout
# starts with a copy of the last one's cache. mypy itself compares the contents of all files with it.
known=${XDG_CACHE_HOME:-${HOME-}/.cache}/acon_nb/mypy
if [ -d .mypy_cache ]; then
	.venv/bin/mypy
else
	[ ! -d "$known" ] || cp -R "$known" .mypy_cache
	.venv/bin/mypy
	{ mkdir -p "${known%/*}" && cp -R .mypy_cache "$known.$$" && rm -rf "$known" && mv "$known.$$" "$known"; } ||
		echo "lint: what mypy knows is not kept for the next checkout" >&2
fi
shellcheck tools/*.sh .ci/run benchmarks/*.sh docs/case-studies/redis/visits.sh acon_nb/initrd/files/init acon_nb/initrd/files/profile \
	acon_nb/initrd/files/udhcpc acon_nb/guest/src/swap-study acon_nb/guest/src/image-measure \
	acon_nb/guest/src/show
