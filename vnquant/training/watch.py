"""What may interrupt training between two steps: a signal, the clock, or memory."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

from vnquant.training.memory import MemoryMonitor

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Watch:
    """Asked after every step; answers from flags and clocks, so asking costs nothing.

    Args:
        memory: sampled about once a second.
        checkpoint_seconds: time between checkpoints.
        checkpoint_epochs: also save at every such epoch boundary; None: only by time.
        clock: monotonic seconds; a test may pass its own.
    """

    memory: MemoryMonitor
    checkpoint_seconds: float = 1200.0
    checkpoint_epochs: int | None = None
    clock: Callable[[], float] = time.monotonic
    signum: int | None = None
    _saved: float = field(init=False)
    _sampled: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self._saved = self.clock()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Watch]:
        """Turn Ctrl-C and SIGTERM into a request that the next step boundary answers.

        A second signal of the same kind is not swallowed: the handlers step aside after one.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def note(signum: int, _frame: FrameType | None) -> None:
            self.signum = signum
            signal.signal(signum, before[signal.Signals(signum)])

        before = {s: signal.signal(s, note) for s in SIGNALS}
        try:
            yield self
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    def checkpoint_due(self) -> bool:
        return self.clock() - self._saved >= self.checkpoint_seconds

    def epoch_checkpoint_due(self, epoch: int) -> bool:
        """Whether the boundary after ``epoch`` finished epochs was asked for."""
        return self.checkpoint_epochs is not None and epoch % self.checkpoint_epochs == 0

    def saved(self) -> None:
        self._saved = self.clock()

    def check_memory(self, *, can_narrow: bool) -> None:
        now = self.clock()
        if now - self._sampled >= 1.0:
            self._sampled = now
            self.memory.check(can_narrow=can_narrow)
