"""What a trial cost, from its run's events."""

from __future__ import annotations

from vnquant.studies.figures import training_seconds


def happened(at: str, event: str, **more: str) -> dict[str, str]:
    return {"time": f"2026-01-05T10:{at}+00:00", "event": event, **more}


BEGUN = {"stage": "walk_forward"}


def test_training_is_counted_in_all_starts_and_nothing_else_is() -> None:
    events = [
        happened("00:00", "stage_started", stage="features"),
        happened("01:00", "stage_started", **BEGUN),
        happened("01:10", "epoch"),
        happened("01:30", "checkpoint"),
        # Killed, and started again after half an hour.
        happened("31:00", "stage_started", **BEGUN),
        happened("31:05", "resumed"),
        happened("31:20", "models_finished"),
        happened("35:00", "rivals"),
        happened("36:00", "stage_finished", **BEGUN),
    ]
    assert training_seconds(events) == 30 + 20


def test_models_of_another_stage_are_not_counted() -> None:
    events = [
        happened("00:00", "stage_started", **BEGUN),
        happened("00:07", "epoch"),
        happened("10:00", "stage_started", stage="train"),
        happened("12:00", "epoch"),
    ]
    assert training_seconds(events) == 7
    assert training_seconds([]) == 0
