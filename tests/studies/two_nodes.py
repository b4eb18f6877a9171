"""A Ray cluster of two nodes, one of which is killed in the middle of a study.

``python two_nodes.py GIVEN WORKSPACE FOLDER`` prints, last, the rows and how many nodes there were.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from vnquant.spec import RunSpec
from vnquant.stages.context import Options
from vnquant.studies import engines, trials
from vnquant.studies.definition import Study
from vnquant.workspace import Workspace


def alive() -> int:
    return sum(bool(node["Alive"]) for node in ray.nodes())


def main(given: Path, workspace: Path, own: Path) -> None:
    content = json.loads(given.read_text())
    study, base = Study.model_validate(content["study"]), RunSpec.model_validate(content["base"])
    place = Workspace(workspace)
    folder, wanted = trials.folder_of(place, study, base), trials.planned(study, base)
    store = {"object_store_memory": engines.OBJECT_STORE}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, **store},
    )
    second = cluster.add_node(num_cpus=1, **store)
    cluster.wait_for_nodes()
    work = engines.Ray(folder, place, Options(threads=1), cluster.address)
    before = alive()

    def kill() -> None:
        # Both nodes are at a trial then, and neither has finished.
        begun = [place.run(t.spec).path / "events.jsonl" for t in wanted[:2]]
        while not all(path.exists() for path in begun):
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    threading.Thread(target=kill, daemon=True).start()
    rows = work(wanted)
    until = time.monotonic() + 60
    while alive() > 1 and time.monotonic() < until:
        time.sleep(0.5)
    print(json.dumps({"rows": rows, "nodes": {"before": before, "after": alive()}}, default=str))
    work.close()
    cluster.shutdown()


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:]))
