"""What can go wrong between us and a price service. Each says who failed and what to do."""

from __future__ import annotations

from vnquant.errors import DataError, RetryableError


class Unreachable(RetryableError):
    """No answer: no connection, a timeout, a connection that broke."""


class Refused(RetryableError):
    """The service said no: 401, 403 or another 4xx. Asking again at once would be impolite."""


class Faulty(RetryableError):
    """An answer that is not what was asked for: 5xx, HTML, truncated JSON. Often passes."""


class Throttled(RetryableError):
    """429, or 503 with Retry-After.

    Args:
        after: seconds that the service asks for; None if it does not say.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "", after: float | None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.after = after

    def __reduce__(self) -> tuple[object, ...]:
        return (_throttled, (self.what, self.where, self.fix, self.after))


def _throttled(what: str, where: str, fix: str, after: float | None) -> Throttled:
    return Throttled(what, where=where, fix=fix, after=after)


class Unusable(DataError):
    """Well-formed, but not bars that can be trusted. Nothing of it is kept."""
