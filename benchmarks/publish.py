"""What verification costs: publishing against plain ``rclone copy``, on loopback remotes.

``python -m benchmarks.publish`` starts an SFTP remote, which tells md5 as Google Drive does, and a
WebDAV remote, which tells no hash, so that every byte comes back to be verified. It measures, in
one run and taking turns, 102 small models and one checkpoint set, each against a plain copy that
verifies nothing, without a limit and at 100 Mbit/s each way.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.record import provenance, table_of, write
from vnquant.host.stores import Artefact, open_store

SETS = {"102 models of 2 MB": (102, 2_000_000), "checkpoint set of 200 MB": (2, 100_000_000)}
ROUNDS = 3
LINK = "12.5M:12.5M"  # bytes a second, up and down, of each rclone process


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder))
    print(table_of(result["rows"]))
    print("written:", write(Path("build/bench"), f"{result['date']}-publish", result))


def measure(folder: Path) -> dict[str, Any]:
    """A row for each remote, link and set: median seconds of `ROUNDS` turns."""
    rows = []
    for kind in ("sftp", "webdav"):
        os.environ["RCLONE_BWLIMIT"] = "off"  # of the server
        with served(folder, kind):
            for limit in ("off", LINK):
                os.environ["RCLONE_BWLIMIT"] = limit
                rows += [compare(folder, kind, limit, name, *SETS[name]) for name in SETS]
    version = subprocess.run(["rclone", "version"], capture_output=True, text=True, check=True)
    return {**provenance("cpu"), "rclone": version.stdout.split()[1], "rows": rows}


@contextlib.contextmanager
def served(folder: Path, kind: str) -> Iterator[None]:
    """A remote ``t:`` of that kind."""
    root = folder / kind
    root.mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = ["rclone", "serve", kind, str(root), "--addr", f"127.0.0.1:{port}"]
    obscured = subprocess.run(["rclone", "obscure", "p"], capture_output=True, check=True).stdout
    config = folder / "rclone.conf"
    if kind == "sftp":
        words += ["--user", "u", "--pass", "p"]
        settings = f"host = 127.0.0.1\nport = {port}\nuser = u\npass = {obscured.decode()}"
        settings += "known_hosts_file = none\n"
    else:
        settings = f"url = http://127.0.0.1:{port}\nvendor = other\n"
    config.write_text(f"[t]\ntype = {kind}\n{settings}")
    os.environ["RCLONE_CONFIG"] = str(config)
    server = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.0)
        yield
    finally:
        server.kill()
        server.wait()


def compare(
    folder: Path, kind: str, limit: str, name: str, count: int, size: int
) -> dict[str, Any]:
    """One set, published and copied in turns; every turn has names of its own."""
    source = folder / f"set-{count}"
    source.mkdir(exist_ok=True)
    for i in range(count):
        (source / f"{i:03d}.bin").write_bytes(os.urandom(size))
    published, copied = [], []
    store = open_store("t:store", cache=folder / f"cache-{kind}")
    for turn in range(ROUNDS if limit == "off" else 1):  # a limited link is steady
        place = f"{count}-{limit[:3]}-{turn}"
        batch = [Artefact(f"{place}/{p.name}", p) for p in sorted(source.iterdir())]
        began = time.perf_counter()
        store.publish(batch)
        published.append(time.perf_counter() - began)
        began = time.perf_counter()
        subprocess.run(["rclone", "copy", str(source), f"t:plain/{place}"], check=True)
        copied.append(time.perf_counter() - began)
    own, plain = statistics.median(published), statistics.median(copied)
    row = {
        "remote": f"{kind}, " + ("md5" if kind == "sftp" else "no hash: downloaded"),
        "link": "loopback" if limit == "off" else "100 Mbit/s",
        "set": name,
        "verified publish, s": round(own, 2),
        "plain rclone copy, s": round(plain, 2),
        "ratio": round(own / plain, 2),
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
