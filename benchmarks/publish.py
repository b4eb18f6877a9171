"""What verification costs: publishing against plain ``rclone copy``, on a loopback WebDAV remote.

``python -m benchmarks.publish`` starts ``rclone serve webdav`` and measures, in one run and taking
turns, 102 small models and one checkpoint set, each against a plain copy that verifies nothing.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import provenance, table, write
from vnquant.host.stores import Artefact, open_store

SETS = {"102 models of 2 MB": (102, 2_000_000), "checkpoint set of 200 MB": (2, 100_000_000)}
ROUNDS = 3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder))
    print(table(list(result["rows"][0]), [list(r.values()) for r in result["rows"]]))
    print("written:", write(Path("build/bench"), f"{result['date']}-publish", result))


def measure(folder: Path) -> dict[str, Any]:
    """Median seconds of `ROUNDS` turns."""
    (folder / "served").mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = ["rclone", "serve", "webdav", str(folder / "served"), "--addr", f"127.0.0.1:{port}"]
    server = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    config = folder / "rclone.conf"
    config.write_text(f"[t]\ntype = webdav\nurl = http://127.0.0.1:{port}\nvendor = other\n")
    os.environ["RCLONE_CONFIG"] = str(config)
    try:
        time.sleep(1.0)
        rows = [compare(folder, name, *size) for name, size in SETS.items()]
    finally:
        server.kill()
        server.wait()
    version = subprocess.run(["rclone", "version"], capture_output=True, text=True, check=True)
    return {**provenance("cpu"), "rclone": version.stdout.split()[1], "rows": rows}


def compare(folder: Path, name: str, count: int, size: int) -> dict[str, Any]:
    """One set, published and copied in turns; every turn has names of its own."""
    source = folder / f"set-{count}"
    source.mkdir()
    for i in range(count):
        (source / f"{i:03d}.bin").write_bytes(os.urandom(size))
    published, copied = [], []
    for turn in range(ROUNDS):
        store = open_store("t:store", cache=folder / "cache")
        batch = [Artefact(f"{count}-{turn}/{p.name}", p) for p in sorted(source.iterdir())]
        began = time.perf_counter()
        store.publish(batch)
        published.append(time.perf_counter() - began)
        began = time.perf_counter()
        subprocess.run(["rclone", "copy", str(source), f"t:plain/{count}-{turn}"], check=True)
        copied.append(time.perf_counter() - began)
    own, plain = statistics.median(published), statistics.median(copied)
    return {
        "set": name,
        "verified publish, s": round(own, 2),
        "plain rclone copy, s": round(plain, 2),
        "ratio": round(own / plain, 2),
    }


if __name__ == "__main__":
    main()
