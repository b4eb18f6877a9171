"""Measure the real images: ``./just test-images``. Writes a dated report.

Builds the IPEX image with every step repeated and the CUDA image on the layers that they share,
both again with everything cached, runs the main job in the IPEX image, looks whether the CUDA image
has what Triton needs, and rebuilds it from its commit to compare digests. Needs a container engine,
about 40 GB of disk and half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import REPORTS, provenance, table, write
from vnquant.errors import VnquantError
from vnquant.host import images
from vnquant.host.image_build import NAME, Options
from vnquant.host.image_context import checkout
from vnquant.host.image_engine import client
from vnquant.spec import PRESETS

SPEC = Path("compose", "demo.json")
STAGES = ("ingest", "features", "train", "evaluate", "backtest", "deploy", "forecast")
HARDENED = (
    *("docker", "run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL"),
    *("--tmpfs", "/tmp:rw,nosuid,nodev,exec,size=2g,mode=1777", "--shm-size=1g"),
)


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(f"images: {text}", file=sys.stderr, flush=True)


def unpacked(tag: str) -> int:
    """Bytes of the image's files."""
    words = [*HARDENED, "--user=0", "--entrypoint=du", tag, "-sxB1", "--exclude=/proc", "/"]
    # Without its capabilities root may not read all folders; those are empty ones.
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])


def layer_sizes(tag: str, contents: list[str]) -> dict[str, int]:
    """Unpacked bytes of each layer; steps that make no layer have size 0 in the history."""
    sizes = [step["Size"] for step in reversed(client().images.get(tag).history()) if step["Size"]]
    return dict(zip(contents, sizes, strict=True))


def start_up(
    tag: str, *, options: Sequence[str] = (), words: Sequence[str] = (), repeats: int = 5
) -> float:
    """Seconds until a container has come and gone, median."""
    times = []
    for _ in range(repeats + 1):
        call = [*HARDENED, *options, tag, *words]
        began = time.perf_counter()
        subprocess.run(call, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return round(statistics.median(times[1:]), 2)


def main_job(tag: str, digest: str) -> dict[str, Any]:
    """Run the demo's spec to the end, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name)
        workspace.chmod(0o777)
        mounts = ["-v", f"{workspace}:/workspace", "-v", f"{checkout() / SPEC}:/spec.json:ro"]
        words = [*HARDENED, *mounts, "-e", f"VNQUANT_IMAGE_DIGEST={digest}", tag, *STAGES]
        began = time.perf_counter()
        words += ["--spec", "/spec.json"]
        done = subprocess.run(words, stdout=subprocess.DEVNULL, check=False)
        seconds = time.perf_counter() - began
        manifest = json.loads(next(workspace.glob("runs/*/manifest.json")).read_text("utf-8"))
    train = manifest["stages"]["train"]
    return {
        "exit_code": done.returncode,
        "seconds": round(seconds, 1),
        "stages": sorted(manifest["stages"]),
        "image_digest": train["image_digest"],
        "packages": train["packages"],
        "ipex": train.get("ipex"),
        "ipex_reason": train.get("ipex_reason"),
    }


def measure(variant: str, options: Options) -> dict[str, Any]:
    """Build, build again, weigh, start."""
    say(f"building {variant}")
    first = images.build(variant, options, say)
    say(f"{first['seconds']} s, {first['manifest_digest']}")
    say(f"building {variant} again, all cached")
    second = images.build(variant, Options(options.base_image, options.network), say)
    tag = f"{NAME}:{variant}"
    return {
        "digest": first["manifest_digest"],
        "same_when_cached": first["manifest_digest"] == second["manifest_digest"],
        "layers": layer_sizes(tag, first["layers"]),
        "compressed_bytes": first["bytes"],
        "unpacked_bytes": unpacked(tag),
        "every_step_repeated": first["no_cache"],
        "build_seconds": first["seconds"],
        "warm_build_seconds": second["seconds"],
        "container_seconds": start_up(tag, options=["--entrypoint=true"]),
        "help_seconds": start_up(tag, words=["--help"]),
        "builder": first["builder"],
    }


def triton_modules(tag: str) -> bool:
    """Whether the image brings every C module that the kernels of the presets ask for."""
    checks = [
        f"TRITON_CACHE_DIR=/tmp/{n} python -m vnquant.training.precompile /{n}.json"
        f" --capability {capability} --check $VNQUANT_LAUNCHERS"
        for n in ("base", "small")
        for capability in (80, 90)
    ]
    spec = json.loads((checkout() / SPEC).read_text("utf-8"))
    with tempfile.TemporaryDirectory() as name:
        mounts = []
        for preset, model in PRESETS.items():
            path = Path(name, f"{preset}.json")
            path.write_text(json.dumps({**spec, "model": model.model_dump(mode="json")}), "utf-8")
            mounts += ["-v", f"{path}:/{preset}.json:ro"]
        Path(name).chmod(0o755)
        words = [*HARDENED, *mounts, "--entrypoint=sh", tag, "-c", " && ".join(checks)]
        return subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode == 0


def rebuild(variant: str, options: Options) -> dict[str, Any]:
    """Build the same commit anew; what differs, if anything does."""
    began = time.perf_counter()
    try:
        found: Any = images.verify(variant, options, say)
    except VnquantError as error:
        found = [str(error)]
    seconds = round(time.perf_counter() - began, 1)
    return {"variant": variant, "differences": found, "seconds": seconds}


def page(result: dict[str, Any]) -> str:
    """The report as text."""
    rows = [
        [
            *(name, f"{r['compressed_bytes'] / 1e9:.2f} GB", f"{r['unpacked_bytes'] / 1e9:.2f} GB"),
            "yes" if r["every_step_repeated"] else "no, on the layers of the image above",
            *(f"{r['build_seconds']:.0f} s", f"{r['warm_build_seconds']:.0f} s"),
            *(f"{r['container_seconds']} s", f"{r['help_seconds']} s", r["digest"][7:19]),
        ]
        for name, r in result["images"].items()
    ]
    head = [
        *("image", "compressed", "unpacked", "every step repeated", "build"),
        *("all cached", "container alone", "vnquant run --help", "digest"),
    ]
    job, again = result["main_job"], result["rebuild"]
    shared = f"{result['shared_bytes'] / 1e9:.2f} GB unpacked"
    differs = "; ".join(again["differences"]) or "the same digest"
    builder = ", ".join(
        f"{k} {v}" for k, v in next(iter(result["images"].values()))["builder"].items()
    )
    return "\n".join(
        [
            f"# Images, {result['date']}",
            "",
            f"{result['machine']}, {result['cores']} cores; {builder}; commit"
            f" {result['code']['commit']}. Written by `./just test-images`.",
            "",
            table(head, rows),
            "",
            f"Layers that both images have: {shared}.",
            "",
            f"Main job (compose/demo.json) in `{result['job_image']}`: exit code"
            f" {job['exit_code']}, {job['seconds']} s, torch {job['packages']['torch']}, image"
            f" digest in the manifest: {'yes' if job['image_digest'] else 'no'}; IPEX"
            f" {'on' if job['ipex'] else 'off'} ({job['ipex_reason']}).",
            "",
            f"Triton's C modules in `{result['modules_image']}`, for both presets and sm_80 and"
            f" sm_90: {'complete' if result['modules'] else 'INCOMPLETE'}.",
            "",
            f"Rebuild of `{again['variant']}` from its commit with every step repeated"
            f" ({again['seconds']} s): {differs}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    base = os.environ.get("BASE_IMAGE")
    parser.add_argument("--base-image", default=base, help="instead of the pinned one")
    parser.add_argument("--network", default="default")
    parser.add_argument("--cpu", default="cpu-pypi", help="the variant of the IPEX image")
    parser.add_argument("--cuda", default="cuda", help="the second image")
    parser.add_argument("--out", type=Path, default=REPORTS)
    args = parser.parse_args()
    fresh = Options(args.base_image, args.network, no_cache=True)
    result: dict[str, Any] = provenance("cpu")
    measured = {args.cpu: measure(args.cpu, fresh)}
    tag, digest = f"{NAME}:{args.cpu}", measured[args.cpu]["digest"]
    say("running the main job")
    result["job_image"], result["main_job"] = args.cpu, main_job(tag, digest)
    measured[args.cuda] = measure(args.cuda, Options(args.base_image, args.network))
    one, two = (r["layers"] for r in measured.values())
    result["images"] = measured
    result["shared_bytes"] = sum(one[digest] for digest in one.keys() & two.keys())
    say("looking for Triton's C modules")
    result["modules_image"] = args.cuda
    result["modules"] = triton_modules(f"{NAME}:{args.cuda}")
    result["rebuild"] = rebuild(args.cuda, fresh)
    written = write(args.out, f"{result['date']}-images", result)
    written.with_suffix(".md").write_text(page(result), encoding="utf-8")
    print(page(result))
    good = result["main_job"]["exit_code"] == 0 and result["modules"]
    sys.exit(0 if good and not result["rebuild"]["differences"] else 1)


if __name__ == "__main__":
    main()
