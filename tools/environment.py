"""Make the project's virtual environment: one idempotent, interruptible, hash-checked setup.

    python3 tools/environment.py          everything: pinned packages, torch, vnquant itself
    python3 tools/environment.py just     only the pinned task runner (what ./just needs)

Only the standard library is used, and only syntax that an old Python can parse, so that it can say
what is wrong with one. The folder is .venv, or what VNQUANT_VENV names. A stamp, written last,
holds the digests of what was installed: while they agree, a run costs milliseconds; without it,
whatever an interrupted run left is completed. A lock lets one setup work at a time.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

OLDEST = (3, 11)
CANDIDATES = ("python3.13", "python3.12", "python3.11", "python3.14")
ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
VENV = Path(os.path.abspath(ROOT / (os.environ.get("VNQUANT_VENV") or ".venv")))
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "vnquant-stamp.json"
OURS = VENV / "vnquant-made-this"
PINNED = ("runtime.txt", "dev.txt", "host.txt", "study.txt")
TORCH = ("torch-cpu.txt", "torch.txt", "torch-cuda.txt")

# Run inside the environment; exit 0 means yes.
HAS_TORCH = """
import importlib.metadata as m, sys
found = next((d.version for d in m.distributions(name="torch")), "")
sys.exit(found.partition("+")[0] != sys.argv[1])
"""
# Names in torch's metadata that only a CUDA wheel has: the same as in tools/lock.py.
NEEDS_CUDA_PARTS = """
import importlib.metadata as m, sys
names = (m.requires("torch") or []) if sys.platform == "linux" else []
sys.exit(0 if any(n.startswith(("nvidia-", "cuda-", "triton")) for n in names) else 1)
"""


def say(text):
    """Progress goes to stderr: stdout belongs to the recipe that runs next."""
    print("setup: " + text, file=sys.stderr, flush=True)


def stop(what, fix, code=1):
    """Leave with one sentence for what is wrong and one for what to do."""
    say(f"{what}. {fix}.")
    raise SystemExit(code)


def require_python():
    """Go on with Python >= 3.11, switching to another installed one if this one is older."""
    if sys.version_info < OLDEST:
        for name in CANDIDATES:
            other = shutil.which(name)
            if other and not os.environ.get("VNQUANT_SWITCHED"):
                os.environ["VNQUANT_SWITCHED"] = "1"
                os.execv(other, [other, *sys.argv])
        stop(
            "vnquant needs Python 3.11 or newer, and {} is Python {}.{}".format(
                sys.executable, *sys.version_info[:2]
            ),
            "Install Python 3.11, 3.12 or 3.13 and run the same command again",
        )


def digest(*paths):
    """One SHA-256 over the names and contents of files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def wanted_state():
    """What the stamp says when the environment is up to date."""
    project = (ROOT / "pyproject.toml", ROOT / "vnquant" / "__init__.py")
    return {
        "venv": str(VENV),  # console scripts name it, so a moved environment is not usable
        "root": str(ROOT),  # and the editable install names this
        "just": digest(LOCKS / "just.txt"),
        "packages": digest(*(LOCKS / name for name in (*PINNED, *TORCH))),
        "project": digest(*project),
    }


def read_state():
    """The stamp's content; empty when there is none, or the environment's Python has gone."""
    try:
        return json.loads(STAMP.read_text()) if PYTHON.exists() else {}
    except (OSError, ValueError):
        return {}


def write_state(state):
    """Replace the stamp in one step."""
    aside = STAMP.with_suffix(".new")
    aside.write_text(json.dumps(state, indent=1) + "\n")
    aside.replace(STAMP)


@contextlib.contextmanager
def only_one():
    """Wait for another setup of the same folder. The kernel frees the lock if its holder dies."""
    VENV.parent.mkdir(parents=True, exist_ok=True)
    with open(str(VENV) + ".lock", "w") as lock:
        try:
            import fcntl
        except ImportError:  # a system without it: go on unlocked
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another setup of {VENV} to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield


def is_healthy():
    """Whether the folder holds a Python that is new enough and has pip."""
    question = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    return PYTHON.exists() and not subprocess.call(
        [str(PYTHON), "-c", question], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def make_venv(state):
    """Create the folder, or replace what is of no use; True if it is a new one now."""
    if state.get("venv", str(VENV)) == str(VENV) and is_healthy():
        return False
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            stop(
                f"this Python ({sys.executable}) comes without the module {module}",
                "Install it (Debian, Ubuntu: the package python3-venv) and try again",
            )
    if VENV.exists() and any(VENV.iterdir()) and not OURS.exists():
        stop(
            f"{VENV} is there, but is no usable environment and was not made by this setup",
            "Remove it, or set VNQUANT_VENV to another folder",
        )
    say(f"creating {VENV} with Python {sys.version.split()[0]}")
    shutil.rmtree(str(VENV), ignore_errors=True)
    VENV.mkdir(parents=True, exist_ok=True)
    OURS.write_text("Removing this folder is safe: ./just setup makes it again.\n")
    if subprocess.call([sys.executable, "-m", "venv", str(VENV)]):
        stop("python3 -m venv failed", "Its message is above")
    return True


def pip(*arguments, **options):
    """Run pip in the environment; 0 when it worked. Off a terminal it prints errors only."""
    quiet = [] if sys.stderr.isatty() else ["-qq"]
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", *quiet]
    return subprocess.call([*command, *arguments], cwd=str(ROOT), **options)


def pip_install(*arguments):
    """Run pip; its own error message stays visible when it fails."""
    if pip(*arguments, stdout=sys.stderr):
        stop(
            "pip could not install what is needed (its message is above)",
            "If the network failed, run the same command again: finished downloads are kept",
            5,
        )


def answers_yes(question, *arguments):
    """Ask the environment's Python."""
    return subprocess.call([str(PYTHON), "-c", question, *arguments]) == 0


def pinned(*names):
    """pip arguments that install requirement files exactly: complete, so nothing is resolved."""
    files = [argument for name in names for argument in ("-r", str(LOCKS / name))]
    return ["--require-hashes", "--no-deps", *files]


def complete(only_just):
    """Bring the environment up to date with the files of this checkout."""
    state, wanted = read_state(), wanted_state()
    parts = ["venv", "just"] if only_just else list(wanted)
    if all(state.get(part) == wanted[part] for part in parts):
        return
    began = time.monotonic()
    if make_venv(state):
        state = {}
    state["venv"] = wanted["venv"]
    for part, install in (("just", install_just), ("packages", install_packages)):
        if part in parts and state.get(part) != wanted[part]:
            state.pop(part, None)
            write_state(state)
            install()
            state[part] = wanted[part]
            write_state(state)
    if not only_just and any(state.get(part) != wanted[part] for part in ("project", "root")):
        pip_install("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        write_state(wanted)
    if not only_just:
        say(f"ready in {time.monotonic() - began:.0f} s")


def install_just():
    """The task runner: one binary wheel."""
    pip_install(*pinned("just.txt"))


def discard_half_installed():
    """Make pip install again what it was writing when it was killed.

    pip believes a package's METADATA, which may lie there before all files do; INSTALLER it
    writes after them.
    """
    for info in VENV.glob("lib/python*/site-packages/*.dist-info"):
        if not (info / "INSTALLER").exists():
            shutil.rmtree(str(info), ignore_errors=True)


def install_packages():
    """All pinned packages, then torch."""
    discard_half_installed()
    say("installing pinned packages; the first time takes a few minutes")
    pip_install(*pinned(*PINNED))
    cpu, public, cuda = TORCH
    release = re.search(r"^torch==([0-9.]+)", (LOCKS / public).read_text(), re.MULTILINE).group(1)
    # A torch of the right release that is there already stays, whatever it was built for.
    if not answers_yes(HAS_TORCH, release):
        # pip prefers an index's wheel to a local one, so the small CPU wheel is asked for first.
        # Where there is none, pip finds no match, and that is no error.
        pip(*pinned(cpu), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pip_install(*pinned(public))
    if answers_yes(NEEDS_CUDA_PARTS):
        say("this torch is a CUDA build: installing its CUDA libraries")
        pip_install(*pinned(cuda))


def main():
    """Check the stamp first without the lock: it exists only when everything is complete."""
    require_python()
    only_just = sys.argv[1:] == ["just"]
    if sys.argv[1:] and not only_just:
        stop("unknown words: {}".format(" ".join(sys.argv[1:])), "Say nothing, or just", 2)
    state, wanted = read_state(), wanted_state()
    if all(state.get(part) == wanted[part] for part in (["venv", "just"] if only_just else wanted)):
        return
    try:
        with only_one():
            complete(only_just)
    except KeyboardInterrupt:
        say("stopped; the same command continues from here")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
