#!/bin/sh
# Set up what a job needs: Debian packages that are missing, and a virtual environment in .venv.
#   tools/setup.sh tour|lab|test|weekly|benchmarks|docs
# Idempotent. Says what it installs before it does; needs root (or sudo) only when a Debian package is missing;
# changes nothing outside the checkout, the user cache and apt.
set -eu

jobs="tour, lab, test, weekly, benchmarks, docs"
job=${1:?"usage: tools/setup.sh JOB, one of $jobs"}
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv

tour_packages="python3-venv qemu-system-x86 gcc libc6-dev make flex bison bc patch libelf-dev zstd xz-utils"
# The codecs' static libraries: data ratios and the calibration of swap studies
tour_packages="$tour_packages liblz4-dev libzstd-dev liblzo2-dev"
test_packages="git kmod openssl openssh-client bzip2 lz4 shellcheck cpio libarchive-tools ovmf swtpm swtpm-tools chromium fonts-dejavu-core docker.io docker-cli podman valgrind"
# Debian roots (tools/debian-root.sh, benchmarks/initrd_speed.py), kernels with keys, roots on a disk
root_packages="debootstrap libssl-dev erofs-utils squashfs-tools cryptsetup-bin fakeroot"
python=test extras="[lab,docker,cluster,sbom,snp,corim]" groups="--group dev"
case $job in
tour) packages=$tour_packages python=tour extras="" groups="" ;;
lab) packages="$tour_packages" python=lab extras="[lab,docker]" groups="" ;;
test) packages="$tour_packages $test_packages" ;;
docs) packages=python3-venv python=docs extras="[lab,docker]" groups="--group docs" ;;
weekly | benchmarks) packages="$tour_packages $test_packages $root_packages" ;;
*)
	echo "setup: '$job' is not one of $jobs" >&2
	exit 2
	;;
esac

have_python() {
	python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Whether `docker` is a package of its own here: since Debian 13; before, and in Ubuntu, docker.io has it.
has_docker_cli() (
	# shellcheck source=/dev/null
	. /etc/os-release
	[ "$ID" = debian ] && [ "${VERSION_ID:-}" != 12 ]
)

# The Debian packages of the job that are not there; a program that came another way counts.
missing_packages() {
	for package in $packages; do
		case $package in
		python3-venv) have_python && continue ;;
		qemu-system-x86) command -v qemu-system-x86_64 >/dev/null && continue ;;
		gcc | make | flex | bison | bc | zstd | bzip2 | lz4 | openssl | git | patch | shellcheck | cpio | chromium | podman) command -v "$package" >/dev/null && continue ;;
		xz-utils) command -v xz >/dev/null && continue ;;
		libarchive-tools) command -v bsdtar >/dev/null && continue ;;
		docker.io) command -v dockerd >/dev/null && continue ;;
		docker-cli) { command -v docker >/dev/null || ! has_docker_cli; } && continue ;;
		esac
		dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || printf '%s ' "$package"
	done
}

# as_root LINE: a line of shell that only root may run
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		sh -c "$1"
	elif command -v sudo >/dev/null; then
		sudo sh -c "$1"
	else
		echo "setup: root is needed, and there is no sudo. Have root run this, then run make again:" >&2
		echo "    $1" >&2
		exit 1
	fi
}

lists_name_source() {
	apt-cache show --no-all-versions linux-source-6.12 >/dev/null 2>&1
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "setup: this is not Debian: install the counterparts of: $packages" >&2
	echo "setup: or run make in a Debian: a container of debian:13, or by tools/debian-root.sh" >&2
	exit 1
fi

missing=$(missing_packages)
if [ -n "$missing" ]; then
	echo "setup: installing Debian packages: $missing"
	install="apt-get install -y -q --no-install-recommends ${missing% }"
	as_root "apt-get update -q && DEBIAN_FRONTEND=noninteractive $install"
elif [ "$job" != docs ] && ! lists_name_source; then
	echo "setup: refreshing apt's lists (they do not name linux-source-6.12)"
	as_root "apt-get update -q"
fi
if [ "$job" != docs ] && ! lists_name_source; then
	echo "setup: apt's lists have no linux-source-6.12, which the tour and the tests build. Debian 12 has it in" >&2
	echo "setup: bookworm-security, Debian 13 in main; Ubuntu LTS has none. Two ways out:" >&2
	echo "setup:   run make in a Debian: a container of debian:13, or sudo tools/debian-root.sh trixie make $job" >&2
	echo "setup:   build kernels of another source: a folder, FILE.tar.xz or URL#REF (docs/kernel.md, Sources)" >&2
	[ "$job" = lab ] || exit 1
fi
if ! have_python; then
	echo "setup: python3 of 3.11 or later with venv is needed; this is $(python3 --version 2>&1)" >&2
	exit 1
fi

# What is installed is named by a stamp: nothing is done when neither the requirements nor the Python changed. What the tests
# need holds all that the lab needs, and that all of the tour's.
wanted="$(cat "$root/pyproject.toml" "$root/constraints.txt" "$0" | sha256sum | cut -c1-64) $(python3 --version) $root"
case $python in
tour) enough="tour lab test" ;;
lab) enough="lab test" ;;
docs) enough="docs test" ;;
*) enough="test" ;;
esac
for stamp in $enough; do
	if [ -x "$venv/bin/acon-nb" ] && [ "$(cat "$venv/.acon-$stamp" 2>/dev/null)" = "$wanted" ]; then
		exit 0
	fi
done
echo "setup: installing Python packages into $venv (pyproject.toml, constraints.txt)"
# An environment that was moved, or whose Python is gone, is made anew.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
	python3 -m venv --clear "$venv"
fi
"$venv/bin/python" -m pip install -q --disable-pip-version-check 'pip>=25.1'
# shellcheck disable=SC2086 # options are words
(cd "$root" && "$venv/bin/python" -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e ".$extras" $groups)
# pip would compile 10,000 files one after the other. A quarter of them are tests of the packages; some are templates, which do not compile.
"$venv/bin/python" -m compileall -q -q -j 0 -x '/tests?/' "$venv/lib" >/dev/null || :
echo "$wanted" >"$venv/.acon-$python"
