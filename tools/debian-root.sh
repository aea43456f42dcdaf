#!/bin/sh
# Make a fresh Debian by debootstrap and run a command in it, in a clean checkout of this repository (its last commit).
#   tools/debian-root.sh [--user] [--keep DIR] [--cache DIR] [--kvm] bookworm|trixie COMMAND [ARGUMENT]...
# --user       run it as an unprivileged user (who has no sudo); default: as root
# --keep DIR   make the root in DIR and leave it there; a root that is there is used again, its checkout brought up to date
# --cache DIR  the command's ~/.cache/acon_nb is this folder of the host
# --kvm        give it /dev/kvm; default: guests run on TCG
# Needs root and debootstrap. The mirror, apt's and pip's settings, certificates and proxies are the host's own.
# Mounts and processes live in namespaces of their own and end with the command, whatever ends it.
set -eu

usage="usage: tools/debian-root.sh [--user] [--keep DIR] [--cache DIR] [--kvm] bookworm|trixie COMMAND [ARGUMENT]..."
checkout=$(cd "$(dirname "$0")/.." && pwd)
uid=1000
sharing="HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE"
sharing="$sharing TERM CI PYTEST_ARGS PYTEST_WORKERS HYPOTHESIS_PROFILE"

die() {
	echo "debian-root: $*" >&2
	exit 2
}

# The absolute path of a folder, which is made.
folder() {
	mkdir -p "$1"
	(cd "$1" && pwd)
}

# ---- within the namespaces ----

mirror() {
	apt-get indextargets --format "\$(LABEL) \$(REPO_URI)" 2>/dev/null | sed -n "s|^$1 ||p" | head -n 1
}

# What pip is configured with on this host, a setting a line, from its files and its environment.
pip_settings() {
	python3 -m pip config list 2>/dev/null || true
	env | grep '^PIP_' || true
}

make_root() {
	[ -e "$root/.debian-root" ] && return
	main=$(mirror Debian)
	# shellcheck disable=SC2086 # no mirror of this host: debootstrap's own
	debootstrap --variant=minbase --include=ca-certificates,git,make "$release" "$root" $main >"$root.log" 2>&1 || {
		tail -n 20 "$root.log" >&2
		die "debootstrap failed"
	}
	rm "$root.log"
	main=${main:-$(sed -n 's/^deb \([^ ]*\) .*/\1/p' "$root/etc/apt/sources.list" | head -n 1)}
	security=$(mirror Debian-Security)
	security=${security:-${main%/}-security}
	cat >"$root/etc/apt/sources.list" <<-END
		deb $main $release main
		deb $main $release-updates main
		deb $security $release-security main
	END
	apt-config dump | grep '^Acquire::' | grep -v '^Acquire::IndexTargets' >"$root/etc/apt/apt.conf.d/99debian-root"
	chroot "$root" useradd --create-home --uid "$uid" --shell /bin/sh user
	install_certificates
	: >"$root/.debian-root"
}

# Those that the host trusts beyond Debian's own.
install_certificates() {
	find /usr/local/share/ca-certificates -name '*.crt' -exec cp -t "$root/usr/local/share/ca-certificates" {} + 2>/dev/null || true
	chroot "$root" update-ca-certificates >/dev/null 2>&1
}

# Files of pip's settings go in; folders that they name (indexes, wheels) are bound at the same path.
share_pip() {
	for file in /etc/pip.conf /etc/xdg/pip/pip.conf; do
		[ -f "$file" ] && install -D -m 644 "$file" "$root$file"
	done
	for file in "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
		[ -f "$file" ] && install -D -m 644 "$file" "$root$home/.config/pip/pip.conf"
	done
	pip_settings | grep -oE "(file://)?/[^ ,'\"]+" | sed 's|^file://||' | while read -r named; do
		if [ -d "$named" ]; then
			named=${named%/}
			named=${named%/simple} # an index' pages lead to files beside them
			mkdir -p "$root$named"
			mount --rbind "$named" "$root$named"
		elif [ -f "$named" ] && [ ! -e "$root$named" ]; then
			install -D -m 644 "$named" "$root$named"
		fi
	done
}

mount_all() {
	mount --bind "$root" "$root" # a container engine changes how its / is mounted, which no mere folder allows
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount -t tmpfs -o mode=755,size=1m dev "$root/dev"
	mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/dev/net"
	for node in null zero full random urandom tty fuse net/tun $kvm; do
		if [ -c "/dev/$node" ]; then
			: >"$root/dev/$node"
			mount --bind "/dev/$node" "$root/dev/$node"
		fi
	done
	mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
	mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
	ln -s pts/ptmx "$root/dev/ptmx"
	ln -s /proc/self/fd "$root/dev/fd"
	for number in 0:stdin 1:stdout 2:stderr; do
		ln -s "/proc/self/fd/${number%%:*}" "$root/dev/${number#*:}"
	done
	cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	if [ -n "$cache" ]; then
		mkdir -p "$root$home/.cache/acon_nb"
		mount --bind "$cache" "$root$home/.cache/acon_nb"
	fi
}

# The last commit, as a clone has it; what git ignores (.venv, reports) stays in a kept root.
copy_checkout() {
	copy=$root$home/acon_nb
	[ -d "$copy/.git" ] || git -c init.defaultBranch=main init -q "$copy"
	git -c safe.directory='*' -C "$copy" fetch -q --depth 1 "file://$checkout" HEAD
	git -c safe.directory='*' -C "$copy" checkout -q --force --detach FETCH_HEAD
	git -c safe.directory='*' -C "$copy" clean -fdq
}

# run COMMAND...: as the user, with nothing of the host's environment but what names proxies, certificates and pip's settings
run() {
	for name in $sharing $(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p'); do
		eval "value=\${$name-}"
		[ -z "$value" ] || set -- "$name=$value" "$@"
	done
	# Child of this shell, which is process 1 and gets no signal: Control-C ends the command.
	chroot --userspec="$who" "$root" env -i -C "$home/acon_nb" HOME="$home" USER="$login" LOGNAME="$login" \
		LANG=C.UTF-8 PATH="$path" "$@"
}

inside() {
	if [ "$login" = user ]; then
		who=$uid:$uid home=/home/user path=/usr/local/bin:/usr/bin:/bin
	else
		who=0:0 home=/root path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	fi
	make_root
	mount_all
	share_pip
	exec 9>"$root/.debian-root-$login"
	flock --nonblock 9 || die "a command of $login runs in $root already; its checkout must stay as it is"
	copy_checkout
	[ "$login" = root ] || chown -R "$who" "$root$home"
	run "$@" 9>&-
}

# ---- outside ----

login=root keep='' cache='' kvm=''
while [ $# -gt 0 ]; do
	case $1 in
	--user) login=user ;;
	--kvm) kvm=kvm ;;
	--keep) keep=$(folder "${2:?$usage}") && shift ;;
	--cache) cache=$(folder "${2:?$usage}") && shift ;;
	--inside) # what this script starts itself with
		root=$2 release=$3 login=$4 cache=$5 kvm=$6
		shift 6
		inside "$@"
		exit
		;;
	-h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit ;;
	-*) die "$usage" ;;
	*) break ;;
	esac
	shift
done
[ $# -ge 2 ] || die "$usage"
release=$1
shift
case $release in
bookworm | trixie) ;;
*) die "'$release' is not one of bookworm, trixie" ;;
esac
[ "$(id -u)" -eq 0 ] || die "only root can make a root: run it as root or by sudo"
for program in debootstrap unshare git; do
	command -v "$program" >/dev/null || die "$program is missing: apt-get install debootstrap util-linux git"
done
[ -z "$(git -c safe.directory='*' -C "$checkout" status --porcelain)" ] ||
	echo "debian-root: changes that are not committed are not in the copy" >&2

child=''
# Process 1 of the namespaces dies with unshare (which blocks SIGTERM), and with it all that runs in the root.
# shellcheck disable=SC2317 # called by trap
finish() {
	if [ -n "$child" ]; then
		kill -KILL "$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	[ -n "$keep" ] || rm -rf --one-file-system "$root"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [ -n "$keep" ]; then
	root=$keep
else
	root=$(mktemp -d "${TMPDIR:-/var/tmp}/debian-root.XXXXXX")
	chmod 755 "$root"
fi
unset TMPDIR # the root has no such folder
exec 3<&0 # a shell gives what it starts with & an empty standard input
unshare --mount --pid --fork --kill-child "$0" --inside "$root" "$release" "$login" "$cache" "$kvm" "$@" <&3 3<&- &
child=$!
status=0
wait "$child" || status=$?
child=''
exit "$status"
