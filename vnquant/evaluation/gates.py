"""The bar that a set must clear before it may be deployed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vnquant.evaluation.comparison import Difference
from vnquant.spec import GateSpec

_SIDES = {"accuracy": "above", "rmse": "below", "sharpe": "above", "drawdown": "below"}


@dataclass(frozen=True)
class Check:
    """One figure against its bar; ``value`` is None where it is undefined, which never passes."""

    name: str
    value: float | None
    bar: float
    passed: bool


@dataclass(frozen=True)
class GateResult:
    """All checks together; ``reason`` is one sentence for people."""

    passed: bool
    checks: list[Check]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def decide(
    pooled: Mapping[str, Any],
    gate: GateSpec,
    *,
    book: Mapping[str, Any] | None = None,
    rival: Difference | None = None,
) -> GateResult:
    """Compare the pooled figures of `vnquant.evaluation.metrics.summarise` with the gate.

    Accuracy must be above its bar and RMSE below it: reaching a bar is not clearing it. With
    ``require_significance`` the lower end of the interval of accuracy minus the majority class
    must be above 0: the majority is the harder of the two naive constants, and the interval is of
    the difference on the same resampled dates.

    Args:
        book: ``metrics`` of the backtest (sharpe, max_drawdown); None: not known yet, as in the
            stage evaluate. The stage deploy decides with it.
        rival: Brier score of the candidate minus that of the deployed set, paired on the same rows
            (`vnquant.evaluation.comparison`); None: nothing is deployed or nothing in common.
    """
    accuracy, rmse = pooled.get("accuracy"), pooled.get("rmse")
    checks = [
        Check("accuracy", accuracy, gate.min_accuracy, _above(accuracy, gate.min_accuracy)),
        Check("rmse", rmse, gate.max_rmse, rmse is not None and rmse < gate.max_rmse),
    ]
    if gate.require_significance:
        interval = (pooled.get("edge_interval") or {}).get("majority")
        low = interval[0] if interval else None
        checks.append(Check("edge over the majority class", low, 0.0, _above(low, 0.0)))
    if book is not None:
        ratio, fall = book.get("sharpe"), book.get("max_drawdown")
        checks.append(Check("sharpe", ratio, gate.min_sharpe, _above(ratio, gate.min_sharpe)))
        shallow = fall is not None and fall < gate.max_drawdown
        checks.append(Check("drawdown", fall, gate.max_drawdown, shallow))
    if rival is not None and gate.against_deployed != "any":
        checks.append(_beside(rival, gate.against_deployed))
    failed = [_in_words(check) for check in checks if not check.passed]
    if failed:
        return GateResult(False, checks, "Refused: " + " and ".join(failed) + ".")
    passed = ", ".join(f"{c.name} {_number(c.value)} (bar {_number(c.bar)})" for c in checks)
    return GateResult(True, checks, f"Passed: {passed}.")


def _beside(rival: Difference, wanted: str) -> Check:
    """Lower is better. "better" needs the whole interval below 0, "not worse" its lower end."""
    end = 1 if wanted == "better" else 0
    value = None if rival.interval is None else rival.interval[end]
    passed = value is not None and (value < 0 if wanted == "better" else value <= 0)
    return Check(f"{wanted} than the deployed set", value, 0.0, passed)


def _above(value: float | None, bar: float) -> bool:
    return value is not None and value > bar


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _in_words(check: Check) -> str:
    if check.value is None:
        return f"{check.name} is undefined"
    if check.name in _SIDES:
        side = _SIDES[check.name]
        return f"{check.name} {_number(check.value)} is not {side} {_number(check.bar)}"
    if check.name.endswith("the deployed set"):
        return f"it is not {check.name} (end of the interval: {_number(check.value)})"
    return (
        f"{check.name} has a lower end that is not above {_number(check.bar)} "
        f"({_number(check.value)})"
    )
