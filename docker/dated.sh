#!/bin/sh
# Run a command, then give everything that it wrote one date: dated.sh SECONDS COMMAND...
#
# The exporter could do this too (rewrite-timestamp), but only for dates later than the epoch, only
# with one kind of image store, and by compressing all layers anew at every build.
set -eu
date=${1:?set SOURCE_DATE_EPOCH to the time of the commit}
shift
stamp=/dev/shm/stamp
touch "$stamp"
sleep 0.1  # the clock of file systems is a coarse one
"$@"
find / -xdev -cnewer "$stamp" -exec touch -h -d "@$date" {} +
