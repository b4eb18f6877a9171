"""Errors with exit codes. Imports nothing heavy: every module may raise these.

Exit codes are part of the public interface (see docs/exit-codes.md):
0 done; 1 our bug; 2 usage or bad spec; 3 data invalid; 4 finished, some symbols failed;
5 worth retrying; 130/143 stopped by Ctrl-C or SIGTERM with a checkpoint saved.
"""

from __future__ import annotations

OK = 0
BUG = 1
USAGE = 2
DATA = 3
PARTIAL = 4
RETRY = 5
INTERRUPTED = 130
TERMINATED = 143


class VnquantError(Exception):
    """One sentence each for what is wrong, where, and what to do about it.

    Args:
        what: the fault, as a sentence without a final stop.
        where: the file, column, symbol, field or flag it was found in.
        fix: what the reader can do, as a sentence without a final stop.
    """

    exit_code = BUG

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}. {self.fix}." if self.fix else f"{head}."

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call __init__ with the joined message and lose the parts.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[VnquantError], what: str, where: str, fix: str) -> VnquantError:
    return kind(what, where=where, fix=fix)


class UsageError(VnquantError):
    """A flag, a symbol or a spec that cannot be acted on. Nothing was written."""

    exit_code = USAGE


class DataError(VnquantError):
    """Prices that cannot be used. Nothing was written."""

    exit_code = DATA


class PartialFailure(VnquantError):
    """The stage finished, but some symbols failed; the others are complete."""

    exit_code = PARTIAL


class RetryableError(VnquantError):
    """The same command may succeed later: a lock is held, a disk is full, a remote is down."""

    exit_code = RETRY


class Stopped(VnquantError):
    """A signal asked us to leave; everything needed to resume has been saved."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", signum: int = 15) -> None:
        super().__init__(what, where=where, fix=fix)
        self.signum = signum

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        return INTERRUPTED if self.signum == 2 else TERMINATED
