"""The Python that the controller sends to the machine's kernel; each ends with an answer."""

from __future__ import annotations

from pathlib import PurePosixPath

BASE = PurePosixPath("/content/vnquant")
CHUNK = 262_144
"""Bytes of each growing file that one question brings at most."""

PREPARE = """
import os
os.makedirs({folder!r}, exist_ok=True)
answer(os.path.isdir("/content/drive/MyDrive"))
"""

# The job is a process of its own, which outlives this cell. An idle kernel counts as an idle
# machine, so a thread of the kernel says something once a minute. When the job has ended and
# nobody comes for it, that thread gives the machine back; the results are on Drive.
START = """
import os, subprocess, sys, tarfile, threading, time
folder = {folder!r}
with tarfile.open(os.path.join(folder, "bundle.tar")) as bundle:
    bundle.extractall(folder, **({{"filter": "data"}} if hasattr(tarfile, "data_filter") else {{}}))
log = open(os.path.join(folder, "log"), "ab")
agent = subprocess.Popen([{python!r} or sys.executable, os.path.join(folder, "agent.py"), folder],
                         stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
def keep():
    while agent.poll() is None:
        time.sleep(60)
        print(".", flush=True)
    time.sleep({hold!r})
    from google.colab import runtime
    runtime.unassign()
threading.Thread(target=keep, daemon=True).start()
answer(agent.pid)
"""

LOOK = """
import base64, os
folder, run = {folder!r}, {run!r}
def whole(path):
    try:
        with open(os.path.join(folder, path)) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
def tail(path, begin):
    try:
        with open(os.path.join(folder, path), "rb") as file:
            file.seek(begin)
            return base64.b64encode(file.read({chunk!r})).decode()
    except OSError:
        return ""
def alive(pid):
    try:
        with open(f"/proc/{{pid}}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
running = alive({pid!r})
answer({{"running": running, "exit": whole("exit.json"),
        "progress": whole(f"workspace/runs/{{run}}/progress.json"),
        "events": tail(f"workspace/runs/{{run}}/events.jsonl", {events!r}),
        "log": tail("log", {log!r})}})
"""

STOP = """
import os
try:
    # It hands a wish on; a kill must reach its child as well.
    (os.killpg if {signum!r} == 9 else os.kill)({pid!r}, {signum!r})
except ProcessLookupError:
    pass
answer(True)
"""


def folder(launch: str) -> str:
    """Where a launch lives on the machine."""
    return str(BASE / launch)
