#!/bin/sh
# The account that the image runs as, and the folder that a volume is mounted on.
set -eu
uid=$1 gid=$2
groupadd --gid "$gid" vnquant
useradd --no-log-init --uid "$uid" --gid "$gid" --no-create-home --home-dir /tmp vnquant
rm -f /etc/*- /var/log/lastlog /var/log/faillog
mkdir -m 1777 /workspace
mkdir /prices
