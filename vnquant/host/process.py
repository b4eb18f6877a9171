"""The one place where the controller starts other programs.

Always with a list of words, never through a shell. What an error quotes of a program's output has
had its secrets taken out.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vnquant.errors import RetryableError, UsageError

SECRET = re.compile(
    r"((?:pass(?:word)?|secret|token|key|authorization|bearer)[\"']?\s*[=:\s]\s*)"
    r"(?:[\"'][^\"']*[\"']|[^\s,;&\"']+)",
    re.IGNORECASE,
)
CREDENTIALS = re.compile(r"(?i)(://)[^/\s:@]+:[^/\s@]+@")


@dataclass(frozen=True)
class Finished:
    """What a program left behind: exit code and both outputs as text."""

    code: int
    out: str
    err: str


def redacted(text: str) -> str:
    """``text`` without passwords, tokens and user names in addresses."""
    return CREDENTIALS.sub(r"\1***@", SECRET.sub(r"\1***", text))


def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    cwd: Path | None = None,
    detached: bool = False,
) -> Finished:
    """Run a program to its end.

    Args:
        input: bytes for its standard input; None: none.
        timeout: seconds after which it is killed.
        env: variables beside those of this process.
        check: raise if it fails; otherwise the caller looks at the code.
        detached: give it a session of its own, so that our terminal's signals do not reach it.

    Raises:
        UsageError: there is no such program.
        RetryableError: it failed or took too long; the end of its messages is quoted.
    """
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            list(argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **env} if env else None,
            check=False,
            cwd=cwd,
            start_new_session=detached,
        )
    except FileNotFoundError:
        raise UsageError("is not installed", where=name, fix=f"install {name}") from None
    except subprocess.TimeoutExpired:
        raise RetryableError(
            f"did not answer within {timeout:.0f} s", where=name, fix="try again later"
        ) from None
    finished = Finished(
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )
    if check and done.returncode:
        raise RetryableError(
            f"failed with exit code {done.returncode}: {last_words(finished)}",
            where=" ".join(redacted(word) for word in argv[:3]),
        )
    return finished


def last_words(finished: Finished, length: int = 600) -> str:
    """The end of what a program said, fit to be shown."""
    text = (finished.err.strip() or finished.out.strip())[-length:]
    return redacted(text) or "it said nothing"


def start(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    detached: bool = True,
    cpus: Collection[int] | None = None,
) -> int:
    """Start a program that goes on without us; returns its process id.

    Args:
        log: file that both its outputs are appended to.
        detached: give it a session of its own, so that our terminal's signals do not reach it.
        cpus: logical CPUs it may use; None: all that we may.

    Raises:
        UsageError: there is no such program.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    own = os.sched_getaffinity(0)
    with log.open("ab") as out:
        try:
            if cpus:
                # Inherited by the child; set back at once. Nothing may run between fork and exec.
                os.sched_setaffinity(0, set(cpus) & own or own)
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env} if env else None,
                start_new_session=detached,
            )
        except FileNotFoundError:
            name = Path(argv[0]).name
            raise UsageError(
                f"{name} is not installed", where=name, fix=f"install {name}"
            ) from None
        finally:
            os.sched_setaffinity(0, own)
    return child.pid


def started_at(pid: int) -> float | None:
    """When a process began (seconds since the epoch); None if there is none of this number."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None


def collect(pid: int) -> None:
    """Take the end of a child of ours from the kernel, or it would go on as a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def runs(pid: int, started: float | None) -> bool:
    """`alive`, for what may be a child of ours and may never have been seen running."""
    collect(pid)
    return started is not None and alive(pid, started)


def alive(pid: int, started: float) -> bool:
    """Whether the process of this number is still the one that began at ``started``."""
    began = started_at(pid)
    return began is not None and abs(began - started) < 1.0
