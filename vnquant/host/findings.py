"""What a check before a start found: what is so, and what to do where it is not right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vnquant.errors import UsageError

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One sentence without a final stop, and for anything but ok what to do about it."""

    level: Level
    what: str
    fix: str = ""

    @property
    def ok(self) -> bool:
        return self.level != "error"

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}." if self.fix else f"{self.what}."


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Stop before anything is started if a finding is an error; all of them are named.

    Raises:
        UsageError: there is one.
    """
    errors = [f for f in findings if not f.ok]
    if errors:
        raise UsageError(
            "; ".join(f.what for f in errors),
            where="before the start",
            fix="; ".join(dict.fromkeys(f.fix for f in errors if f.fix)),
        )
