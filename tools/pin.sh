#!/bin/sh
# Pin what set-up installs: constraints.txt from the versions in .venv. For the newest ones: rm -r .venv; : >constraints.txt;
# make test; tools/pin.sh
set -eu
cd "$(dirname "$0")/.."
{
	echo "# What set-up installs, made by tools/pin.sh; pyproject.toml says what is needed."
	.venv/bin/python -m pip freeze --exclude-editable --disable-pip-version-check
} >constraints.txt.new
mv constraints.txt.new constraints.txt
