#!/bin/sh
# Install into an environment without leaving pip, a cache or a date behind.
#
#   install.sh VENV LOCK.txt [WHEELS]   everything in the lock, by hash; WHEELS is looked in first
#   install.sh VENV FILE.whl            one wheel, with none of its dependencies
#
# The package index and its certificate come from the build secrets pip.conf and ca.crt, if given.
set -eu
venv=$1 what=$2 wheels=${3:-}
umask 022
export PYTHONHASHSEED=0 PIP_CACHE_DIR=/var/cache/pip
if [ -s /run/secrets/pip.conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip.conf; fi
if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi

before=$(mktemp)
case $what in
  *.whl) set -- --no-index "$what" ;;
  *)
    grep -q '^[A-Za-z0-9]' "$what" || { rm "$before"; exit 0; }
    set -- --require-hashes --only-binary :all: -r "$what"
    if [ -n "$wheels" ]; then set -- --find-links "$wheels" "$@"; fi ;;
esac
/build/pip/bin/pip --python "$venv/bin/python" --disable-pip-version-check --no-input \
  install --quiet --root-user-action=ignore --no-compile --no-deps "$@"
python3.11 "$(dirname "$0")/bytecode.py" "$venv/lib" "$before"

rm "$before"
