#!/bin/sh
# Installs what the fault tests need and what is missing here: nbdkit and nbdfuse
# (a disk that can be cut off, stopped or made to fail), fuse3 and strace.
# Needs root and apt-get; does nothing where all of it is present.
set -eu
missing=
for pair in nbdkit:nbdkit nbdfuse:libnbd-bin fusermount3:fuse3 strace:strace; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
apt-get install -y -qq --no-install-recommends $missing
