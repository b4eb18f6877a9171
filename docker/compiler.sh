#!/bin/sh
# While building only: a C compiler, and Python's headers where the base has none.
set -eu
rm -f /etc/apt/apt.conf.d/docker-clean
headers=$(python3.11 -c 'import sysconfig; print(sysconfig.get_path("include", "posix_prefix"))')
more=
[ -e "$headers/Python.h" ] || more=libpython3.11-dev
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev $more
