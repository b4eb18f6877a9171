"""What interrupts training: signals, the clock, epoch boundaries."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from vnquant.training.memory import MemoryMonitor
from vnquant.training.watch import Watch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def watch(clock: Clock, **given: object) -> Watch:
    monitor = MemoryMonitor(lambda *_, **__: None, limit=2**60)
    return Watch(monitor, clock=clock, **given)  # type: ignore[arg-type]


def test_a_checkpoint_is_due_after_the_interval_and_not_again_once_saved(clock: Clock) -> None:
    w = watch(clock, checkpoint_seconds=60)
    clock.now += 59
    assert not w.checkpoint_due()
    clock.now += 1
    assert w.checkpoint_due()
    w.saved()
    assert not w.checkpoint_due()


def test_epoch_boundaries(clock: Clock) -> None:
    assert not watch(clock).epoch_checkpoint_due(4)
    due = watch(clock, checkpoint_epochs=2)
    assert [due.epoch_checkpoint_due(e) for e in (1, 2, 3, 4)] == [False, True, False, True]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_becomes_a_request_and_the_second_is_not_swallowed(
    clock: Clock, signum: signal.Signals
) -> None:
    seen: list[int] = []
    before = signal.signal(signum, lambda n, _: seen.append(n))
    try:
        w = watch(clock)
        with w.listening():
            os.kill(os.getpid(), signum)
            assert w.signum == signum
            assert seen == []
            os.kill(os.getpid(), signum)
            assert seen == [signum]
        os.kill(os.getpid(), signum)
        assert seen == [signum, signum], "the handlers of before are back"
    finally:
        signal.signal(signum, before)


def test_another_thread_may_train_without_signals(clock: Clock) -> None:
    w, errors = watch(clock), []

    def work() -> None:
        try:
            with w.listening():
                pass
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_memory_is_sampled_about_once_a_second(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    w, calls = watch(clock), []
    monkeypatch.setattr(MemoryMonitor, "check", lambda _, *, can_narrow: calls.append(can_narrow))
    for _ in range(30):
        w.check_memory(can_narrow=True)
        clock.now += 0.1
    assert 3 <= len(calls) <= 4
