"""Which logical CPUs are fast cores, which are slow ones, and which we may use. Linux sysfs only.

Sources, best first (https://docs.kernel.org/admin-guide/abi-testing.html):

1. ``/sys/devices/cpu_core/cpus`` and ``cpu_atom/cpus``: Intel hybrid processors, kernel 5.13 on.
2. ``cpu*/cpu_capacity``: Arm, and Intel from kernel 6.12 on.
3. ``cpu*/cpufreq/cpuinfo_max_freq``: cores that reach less than 80 % of the best are slow ones.

Hyperthreads of one core come from ``cpu*/topology/thread_siblings_list``. psutil cannot tell these
kinds apart. Standard library only: the controller reads this too.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["p", "e", "all"]
ROOT = Path("/sys/devices")
SLOW = 0.8


def cpu_list(text: str) -> set[int]:
    """A list such as ``0-7,16``, as the kernel and Docker write it.

    Raises:
        ValueError: it is no such list.
    """
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        begin, end = int(first), int(last if dash else first)
        if not 0 <= begin <= end:
            raise ValueError(part)
        found.update(range(begin, end + 1))
    return found


def parse_cpus(text: str) -> set[int]:
    """`cpu_list` of a file in sysfs; what is no list is empty."""
    try:
        return cpu_list(text)
    except ValueError:
        return set()


@dataclass(frozen=True)
class Core:
    """One physical core: its logical CPUs, and whether it is a fast (p) or a slow (e) one."""

    kind: Literal["p", "e"]
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """The machine's cores. Without slow ones every core is a p core."""

    cores: tuple[Core, ...]
    source: str

    @property
    def hybrid(self) -> bool:
        return len({c.kind for c in self.cores}) > 1

    def cpus(self, kind: Kind = "all", allowed: Collection[int] | None = None) -> tuple[int, ...]:
        """One logical CPU for each physical core of a kind: what computing threads are put on.

        Two hyperthreads of a core share its multipliers, so a second thread there gains nothing
        for matrix products.

        Args:
            kind: on a machine that is not hybrid every kind means all cores.
            allowed: logical CPUs that may be used; None: those of this process, which a
                container's cpuset or taskset may have narrowed.

        Returns:
            Empty if the machine has such cores but none of them is allowed.
        """
        return tuple(c[0] for c in self._usable(kind, allowed))

    def threads(self, kind: Kind = "all", allowed: Collection[int] | None = None) -> set[int]:
        """All logical CPUs, hyperthreads included, of a kind."""
        return {cpu for c in self._usable(kind, allowed) for cpu in c}

    def _usable(self, kind: Kind, allowed: Collection[int] | None) -> list[tuple[int, ...]]:
        may = set(os.sched_getaffinity(0)) if allowed is None else set(allowed)
        wanted = [c for c in self.cores if kind == "all" or not self.hybrid or c.kind == kind]
        usable = [tuple(sorted(may & set(c.cpus))) for c in wanted]
        return [c for c in usable if c]

    def describe(self) -> str:
        """``8 P cores, 12 E cores`` or ``2 cores``."""
        if not self.hybrid:
            return f"{len(self.cores)} cores"
        count = {k: sum(c.kind == k for c in self.cores) for k in ("p", "e")}
        return f"{count['p']} P cores, {count['e']} E cores"


def read(root: Path = ROOT) -> Topology:
    """Read the topology below ``root``; what cannot be read counts as one kind of core."""
    cpu = root / "system" / "cpu"
    online = parse_cpus(_text(cpu / "online")) or set(os.sched_getaffinity(0))
    slow, source = _slow(root, cpu, online)
    cores: dict[tuple[int, ...], Core] = {}
    for number in sorted(online):
        siblings = parse_cpus(_text(cpu / f"cpu{number}" / "topology" / "thread_siblings_list"))
        together = tuple(sorted((siblings & online) | {number}))
        cores.setdefault(together, Core("e" if number in slow else "p", together))
    return Topology(tuple(cores.values()), source)


def _slow(root: Path, cpu: Path, online: set[int]) -> tuple[set[int], str]:
    """The slow CPUs, if there are fast ones beside them, and where that is from."""
    fast, atom = (parse_cpus(_text(root / f"cpu_{n}" / "cpus")) for n in ("core", "atom"))
    if fast & online and atom & online:
        return atom & online, "cpu_core and cpu_atom"
    for name, part in (
        ("cpu_capacity", Path("cpu_capacity")),
        ("cpuinfo_max_freq", Path("cpufreq") / "cpuinfo_max_freq"),
    ):
        values = {n: _number(cpu / f"cpu{n}" / part) for n in online}
        known = [v for v in values.values() if v]
        if len(known) == len(online) and known:
            slow = {n for n, v in values.items() if v is not None and v < SLOW * max(known)}
            if slow:
                return slow, name
    return set(), "one kind of core"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None
