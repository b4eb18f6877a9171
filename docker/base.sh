#!/bin/sh
# What all images add to the base: tini, byte code of the standard library, an empty environment.
set -eu
rm -f /etc/apt/apt.conf.d/docker-clean
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates tini

# Traces of the day: inode numbers, copies of the state before.
rm -rf /var/cache/ldconfig/aux-cache /var/lib/dpkg/*-old /var/cache/debconf/*-old

# pip is of no use in an environment that nobody changes.
rm -rf /usr/local/bin/pip* /usr/local/lib/python3.11/site-packages/* \
  /usr/local/lib/python3.11/ensurepip /usr/lib/python3.11/ensurepip /usr/share/python-wheels

# Bases come without byte code, and a read-only root could not keep what is compiled at start.
library=$(python3.11 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
PYTHONHASHSEED=0 python3.11 "$(dirname "$0")/bytecode.py" "$library"
python3.11 -m venv --without-pip /opt/venv
