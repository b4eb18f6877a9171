"""Figures as people read them; None and what is not finite show as a dash."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

NOTHING = "–"


def percent(value: float | None, digits: int = 1, sign: bool = False) -> str:
    return _number(value, f"{'+' if sign else ''}.{digits}%")


def fixed(value: float | None, digits: int = 4, sign: bool = False) -> str:
    return _number(value, f"{'+' if sign else ''}.{digits}f")


def interval(value: Any) -> str:
    """A pair of shares, such as an accuracy's interval."""
    return NOTHING if not value else f"{percent(value[0])} to {percent(value[1])}"


def count(value: int | None) -> str:
    return _number(value, ",d")


def _number(value: float | None, pattern: str) -> str:
    known = value is not None and math.isfinite(value)
    return format(value, pattern) if known else NOTHING


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The single figures of a nested result, each with its path; tables inside are left out."""
    for key, found in value.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(found, Mapping):
            yield from flat(found, f"{name}, ")
        elif isinstance(found, (list, tuple)):
            if len(found) == 2 and all(isinstance(v, (int, float)) for v in found):
                yield name, f"{_plain(found[0])} to {_plain(found[1])}"
        else:
            yield name, _plain(found)


def _plain(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}" if math.isfinite(value) else NOTHING
    return str(value)
