#!/bin/sh
# What the guide's shell functions do, without their checks: docker export | tar -x; find | cpio | compressor.
#   plain_pipeline.sh IMAGE FOLDER OUT [COMPRESSOR...]
set -eu
image=$1 folder=$2 out=$3
shift 3
[ $# -gt 0 ] || set -- cat
rm -rf "$folder"
mkdir "$folder"
id=$(docker create "$image" true)
docker export "$id" | tar -x -C "$folder"
docker rm "$id" >/dev/null
(cd "$folder" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0) | "$@" >"$out"
