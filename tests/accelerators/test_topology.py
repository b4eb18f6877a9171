"""Fast and slow cores from made-up sysfs trees, and real affinity on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from vnquant.accelerators import affinity
from vnquant.accelerators.affinity import teams
from vnquant.accelerators.cpu import choose_cpus
from vnquant.accelerators.topology import Kind, parse_cpus, read
from vnquant.errors import UsageError


def machine(
    root: Path,
    siblings: Sequence[str],
    *,
    core: str = "",
    atom: str = "",
    capacity: Sequence[int] = (),
    frequency: Sequence[int] = (),
) -> Path:
    """A sysfs tree with one entry of ``siblings`` for each logical CPU."""
    cpu = root / "system" / "cpu"
    for number, together in enumerate(siblings):
        folder = cpu / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(together + "\n")
        if capacity:
            (cpu / f"cpu{number}" / "cpu_capacity").write_text(f"{capacity[number]}\n")
        if frequency:
            (cpu / f"cpu{number}" / "cpufreq").mkdir()
            path = cpu / f"cpu{number}" / "cpufreq" / "cpuinfo_max_freq"
            path.write_text(f"{frequency[number]}\n")
    (cpu / "online").write_text(f"0-{len(siblings) - 1}\n")
    for name, cpus in (("cpu_core", core), ("cpu_atom", atom)):
        if cpus:
            (root / name).mkdir()
            (root / name / "cpus").write_text(cpus + "\n")
    return root


def pairs(cores: int) -> list[str]:
    return [f"{n - n % 2}-{n - n % 2 + 1}" for n in range(2 * cores)]


I7_14700 = [*pairs(8), *(str(n) for n in range(16, 28))]


def test_an_i7_14700(tmp_path: Path) -> None:
    found = read(machine(tmp_path, I7_14700, core="0-15", atom="16-27"))
    assert found.hybrid
    assert found.describe() == "8 P cores, 12 E cores"
    every = range(28)
    assert found.cpus("p", every) == (0, 2, 4, 6, 8, 10, 12, 14)
    assert found.cpus("e", every) == tuple(range(16, 28))
    assert len(found.cpus("all", every)) == 20
    assert found.threads("p", every) == set(range(16))


def test_an_i9_12900k_by_frequency_alone(tmp_path: Path) -> None:
    """Two of its fast cores reach 5.2 GHz and six 5.1: they must not be taken for slow ones."""
    siblings = [*pairs(8), *(str(n) for n in range(16, 24))]
    frequency = [5_200_000] * 4 + [5_100_000] * 12 + [3_900_000] * 8
    found = read(machine(tmp_path, siblings, frequency=frequency))
    assert found.source == "cpuinfo_max_freq"
    assert found.describe() == "8 P cores, 8 E cores"


def test_by_capacity(tmp_path: Path) -> None:
    found = read(machine(tmp_path, ["0", "1", "2", "3"], capacity=[1024, 1024, 446, 446]))
    assert found.cpus("e", range(4)) == (2, 3)


def test_a_homogeneous_server(tmp_path: Path) -> None:
    siblings = [f"{n % 32},{n % 32 + 32}" for n in range(64)]
    found = read(machine(tmp_path, siblings, frequency=[3_500_000] * 64))
    assert not found.hybrid
    assert found.describe() == "32 cores"
    every = range(64)
    assert found.cpus("p", every) == found.cpus("e", every) == found.cpus("all", every)
    assert found.cpus("p", every) == tuple(range(32))


def test_a_container_limited_to_some_cpus(tmp_path: Path) -> None:
    found = read(machine(tmp_path, I7_14700, core="0-15", atom="16-27"))
    assert found.cpus("p", {3, 4, 5, 20}) == (3, 4)
    assert found.cpus("e", {3, 4, 5, 20}) == (20,)
    assert found.cpus("e", {3, 4}) == ()
    assert found.cpus("all", {3, 4, 5, 20}) == (3, 4, 20)


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert not found.hybrid
    assert set(found.cpus("p")) == os.sched_getaffinity(0)


def test_rubbish_is_no_list(tmp_path: Path) -> None:
    assert parse_cpus("x-y") == set()
    assert parse_cpus("0-2,5\n") == {0, 1, 2, 5}
    found = read(machine(tmp_path, ["?", "nonsense"], core="what", atom="16-"))
    assert found.describe() == "2 cores"


def test_a_real_cpuset_is_respected() -> None:
    own = sorted(os.sched_getaffinity(0))
    code = (
        "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\n"
        "from vnquant.accelerators.topology import read; print(read().cpus('all'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(own[-1])], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"({own[-1]},)"


@pytest.mark.parametrize(("cores", "count"), [("p", 8), ("e", 12), ("all", 20)])
def test_training_threads_follow_the_cores(tmp_path: Path, cores: str, count: int) -> None:
    found = read(machine(tmp_path, I7_14700, core="0-15", atom="16-27"))
    chosen, note = choose_cpus(found, cores, range(28))  # type: ignore[arg-type]
    assert len(chosen) == count
    assert note is None


def test_no_such_core_falls_back_and_says_so(tmp_path: Path) -> None:
    plain = read(machine(tmp_path / "a", ["0", "1"]))
    chosen, note = choose_cpus(plain, "e", range(2))
    assert chosen == (0, 1)
    assert "one kind" in str(note)
    hybrid = read(machine(tmp_path / "b", I7_14700, core="0-15", atom="16-27"))
    chosen, note = choose_cpus(hybrid, "e", {0, 1, 2, 3})
    assert chosen == (0, 2)
    assert "none of the e cores" in str(note)


def test_teams_of_an_i7_14700_are_equal_and_of_one_kind(tmp_path: Path) -> None:
    found = read(machine(tmp_path, I7_14700, core="0-15", atom="16-27"))
    assert teams(found, "all", None, range(28)) == [
        (0, 2, 4, 6),
        (8, 10, 12, 14),
        (16, 17, 18, 19),
        (20, 21, 22, 23),
        (24, 25, 26, 27),
    ]
    assert teams(found, "p", None, range(28)) == []
    assert teams(found, "all", 1, range(28)) == []
    assert teams(found, "p", 4, range(28)) == [(0, 2), (4, 6), (8, 10), (12, 14)]
    assert teams(found, "all", None, range(16)) == [], "there is one kind left"
    # Two teams of nine would mix kinds: so eight cores each, and four are left over.
    assert [len(t) for t in teams(found, "all", 2, range(28))] == [8, 8]


@pytest.mark.parametrize(("p", "e", "size"), [(8, 16, 8), (6, 8, 2), (2, 8, 2), (5, 7, 1)])
def test_teams_leave_no_core_of_either_kind_idle(tmp_path: Path, p: int, e: int, size: int) -> None:
    siblings = [*pairs(p), *(str(n) for n in range(2 * p, 2 * p + e))]
    core, atom = f"0-{2 * p - 1}", f"{2 * p}-{2 * p + e - 1}"
    found = read(machine(tmp_path, siblings, core=core, atom=atom))
    made = teams(found, "all", None, range(2 * p + e))
    assert {len(t) for t in made} == {size}
    assert sorted(c for t in made for c in t) == list(found.cpus("all", range(2 * p + e)))


def test_teams_of_equal_cores(tmp_path: Path) -> None:
    found = read(machine(tmp_path, ["0", "1", "2", "3", "4"]))
    assert teams(found, "all", None, range(5)) == []
    assert teams(found, "all", 2, range(5)) == [(0, 1), (2, 3)]
    assert teams(found, "all", 5, range(5)) == [(0,), (1,), (2,), (3,), (4,)]
    with pytest.raises(UsageError, match="6 teams are more than the 5 cores"):
        teams(found, "all", 6, range(5))


@pytest.mark.parametrize(
    ("stage", "cores", "bound"),
    [("ingest", None, {2, 3}), ("features", None, {2, 3}), ("train", None, None),
     ("ingest", "p", None)],
)  # fmt: skip
def test_light_stages_leave_the_fast_cores_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    cores: Kind | None,
    bound: set[int] | None,
) -> None:
    found = read(machine(tmp_path, ["0", "1", "2", "3"], capacity=[1024, 1024, 446, 446]))
    asked: list[set[int]] = []
    monkeypatch.setattr(affinity.os, "sched_setaffinity", lambda _, cpus: asked.append(set(cpus)))
    monkeypatch.setattr(affinity, "given", lambda: frozenset(range(4)))
    affinity.bind_for(stage, cores, found)
    assert asked == ([] if bound is None else [bound])


def test_what_was_given_at_the_start_outlives_a_binding() -> None:
    own = sorted(os.sched_getaffinity(0))
    code = (
        "import os; from vnquant.accelerators import affinity\n"
        f"affinity.bind([{own[-1]}])\n"
        "print(sorted(affinity.given()), sorted(os.sched_getaffinity(0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{own} [{own[-1]}]"
