#!/bin/sh
# vnquant itself, the health check, the account that the image runs as: finish.sh UID GID
set -eu
uid=$1 gid=$2 here=$(dirname "$0")
sh "$here/install.sh" /opt/venv /build/wheel/*.whl
install -m 0755 /build/health.py /usr/local/bin/vnquant-health
groupadd --gid "$gid" vnquant
useradd --no-log-init --uid "$uid" --gid "$gid" --no-create-home --home-dir /tmp vnquant
rm -f /etc/*- /var/log/lastlog /var/log/faillog
# Anyone may write into an empty workspace, as in /tmp: a container may run as any user.
mkdir -m 1777 /workspace
mkdir /prices
