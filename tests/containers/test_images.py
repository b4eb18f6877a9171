"""The images as they are: what is in them, how they run, and that they rebuild."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vnquant
from vnquant.events import read_events
from vnquant.host import image_build, image_context, images
from vnquant.host.image_archive import Archive, differences
from vnquant.spec import RunSpec, load_spec

pytestmark = pytest.mark.container

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "compose" / "demo.json"
COMPILERS = ("cc", "gcc", "g++", "clang", "make", "ld", "as")
GRACE = 60


def ask(engine: Any, image: str, label: str, *command: str, **how: Any) -> str:
    """What a command in a hardened container of the image prints."""
    output = engine.containers.run(
        image,
        list(command[1:]),
        entrypoint=command[0],
        remove=True,
        labels=dict([label.split("=")]),
        **{"network_mode": "none", "read_only": True, "cap_drop": ["ALL"], **how},
    )
    text: str = output.decode()
    return text


@pytest.fixture(params=["cpu_image", "publisher_image"])
def image(request: pytest.FixtureRequest) -> str:
    """Each of the images in turn."""
    tag: str = request.getfixturevalue(request.param)
    return tag


# ---- contents ----------------------------------------------------------------------------------


def test_no_compiler_no_pip_no_docker(engine: Any, image: str, label: str) -> None:
    script = "\n".join(
        [
            f"for tool in {' '.join(COMPILERS)} pip pip3 docker git; do command -v $tool; done",
            "for name in pip docker; do",
            '  /opt/venv/bin/python -c "import $name" 2>/dev/null && echo module $name; done',
            "python3.11 -m pip --version 2>/dev/null",
            "find / -xdev -name 'pip-*.whl' -o -path '*/.cache/*' -o -path '/var/cache/pip/*'",
            "true",
        ]
    )
    assert ask(engine, image, label, "sh", "-c", script, user="0") == ""


def test_the_controller_is_in_the_publisher_alone(
    engine: Any, cpu_image: str, publisher_image: str, label: str
) -> None:
    look = "from importlib.util import find_spec as f; print(*(f(n) is not None for n in {!r}))"
    words = ("python", "-c", look.format(["vnquant", "vnquant.host", "torch", "pandas"]))
    assert ask(engine, cpu_image, label, *words).split() == ["True", "False", "True", "True"]
    assert ask(engine, publisher_image, label, *words).split() == ["True", "True", "False", "False"]


def test_every_package_finds_what_it_needs(engine: Any, image: str, label: str) -> None:
    """Nothing resolves in the image, so the lock must be complete and agree with itself."""
    script = """
import importlib.metadata as metadata
from packaging.requirements import Requirement
left_out = {"publisher": {"jinja2", "matplotlib", "numpy", "pandas", "pandera", "pyarrow",
                          "safetensors", "scikit-learn", "scipy", "ta-lib", "torch"}}
import os
for dist in metadata.distributions():
    for line in dist.requires or []:
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        if need.name.lower() in left_out.get(os.environ["VNQUANT_VARIANT"], set()):
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            print(dist.name, "has no", need)
        else:
            if not need.specifier.contains(version, prereleases=True):
                print(dist.name, "wants", need, "and has", version)
"""
    if "publisher" in image:
        # It has no `packaging`; the host's copy reads metadata as well.
        import packaging

        where = str(Path(packaging.__file__).parent)
        how = {"volumes": {where: {"bind": "/x/packaging", "mode": "ro"}}}
        how["environment"] = {"PYTHONPATH": "/x"}  # type: ignore[dict-item]
        assert ask(engine, image, label, "python", "-c", script, **how) == ""
    else:
        assert ask(engine, image, label, "python", "-c", script) == ""


def test_labels_tell_commit_lock_schema_and_variant(engine: Any, image: str) -> None:
    variant = image.partition(":")[2]
    labels = engine.images.get(image).labels
    info = images.inspect(image)
    source = image_context.commit(ROOT, info.commit.removesuffix("-dirty"))
    lock = ROOT / "requirements" / "images" / f"{variant}.txt"
    assert labels["org.opencontainers.image.version"] == vnquant.__version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.revision"] in (source.sha, f"{source.sha}-dirty")
    assert info.variant == variant
    assert info.schema_version == str(load_spec(DEMO).schema_version)
    assert len(info.lock) == 64
    if image_context.commit(ROOT) == source:
        assert labels == {**labels, **image_build.labels(variant, source, [lock])}


def test_the_bill_of_materials_is_what_is_inside(engine: Any, cpu_image: str, label: str) -> None:
    from vnquant.host.sbom import sbom

    bill = json.loads(sbom(cpu_image.partition(":")[2]))
    addresses = {c.get("purl", "").partition("?")[0] for c in bill["components"]}
    inside = ask(engine, cpu_image, label, "dpkg-query", "-W", "-f", "${Package}@${Version}\n")
    assert len([a for a in addresses if a.startswith("pkg:deb")]) == len(inside.split())
    assert {f"pkg:pypi/vnquant@{vnquant.__version__}", "pkg:pypi/torch@2.13.0%2Bcpu"} <= addresses
    assert (
        bill["metadata"]["component"]["hashes"][0]["content"]
        in images.inspect(cpu_image).manifest_digest
    )


def test_byte_code_is_there_and_not_stale(engine: Any, cpu_image: str, label: str) -> None:
    """A read-only root cannot cache what is compiled at start."""
    script = "python -v -c 'import pandas' 2>&1 | grep -e 'code object from /.*py$' -e stale; true"
    said = ask(engine, cpu_image, label, "sh", "-c", script)
    assert said == ""


# ---- running -----------------------------------------------------------------------------------


def test_any_user_may_run_it_on_a_read_only_root(engine: Any, cpu_image: str, label: str) -> None:
    said = ask(
        engine,
        cpu_image,
        label,
        *("sh", "-c", "id -u; vnquant run ingest --spec /spec.json && ls /workspace/runs"),
        user="4321:4321",
        tmpfs={"/tmp": "rw,mode=1777", "/workspace": "rw,mode=1777"},
        volumes={str(DEMO): {"bind": "/spec.json", "mode": "ro"}},
    )
    assert said.splitlines()[0] == "4321"
    assert said.split()[-1] == load_spec(DEMO).run_id


def test_the_root_is_read_only_and_the_user_is_nobody_special(
    engine: Any, image: str, label: str
) -> None:
    script = "id -u; touch /opt/venv/x /etc/x /usr/x 2>/dev/null || echo refused"
    assert ask(engine, image, label, "sh", "-c", script).split() == ["1000", "refused"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder on the host that the image's user may write into."""
    path = tmp_path / "workspace"
    path.mkdir()
    path.chmod(0o777)
    return path


def long_spec(path: Path) -> RunSpec:
    """The demo's job with more epochs than anyone waits for."""
    value = json.loads(DEMO.read_text("utf-8"))
    value["training"] |= {"epochs": 2000, "patience": None}
    path.write_text(json.dumps(value), encoding="utf-8")
    path.chmod(0o644)
    return load_spec(path)


def start(engine: Any, image: str, label: str, folder: Path, spec: Path, *stages: str) -> Any:
    return engine.containers.run(
        image,
        [*stages, "--spec", "/spec.json"],
        detach=True,
        labels=dict([label.split("=")]),
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        tmpfs={"/tmp": "rw,nosuid,nodev,exec,mode=1777"},
        shm_size="256m",
        user=f"{os.getuid() or 1000}:{os.getgid() or 1000}",
        volumes={
            str(folder): {"bind": "/workspace", "mode": "rw"},
            str(spec): {"bind": "/spec.json", "mode": "ro"},
        },
    )


def wait_until(true: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, why()
        time.sleep(0.2)


def test_a_stopped_container_has_saved_and_a_new_one_goes_on(
    engine: Any, cpu_image: str, label: str, folder: Path, tmp_path: Path
) -> None:
    spec = long_spec(tmp_path / "spec.json")
    log = folder / "runs" / spec.run_id / "events.jsonl"

    def count(kind: str) -> int:
        return sum(event["event"] == kind for event in read_events(log))

    def stopped(container: Any) -> tuple[int, float]:
        began = time.monotonic()
        container.stop(timeout=GRACE)
        seconds = time.monotonic() - began
        return int(container.wait()["StatusCode"]), seconds

    first = start(engine, cpu_image, label, folder, tmp_path / "spec.json", "train")
    wait_until(lambda: count("epoch") >= 3, 120, lambda: first.logs().decode())
    assert first.exec_run(["vnquant-health"]).exit_code == 0
    code, seconds = stopped(first)
    assert (code, count("checkpoint") >= 1) == (143, True), first.logs().decode()
    assert seconds < GRACE
    epochs = count("epoch")

    second = start(engine, cpu_image, label, folder, tmp_path / "spec.json", "train")
    # Each process that shares the cores says it for its own models.
    wait_until(lambda: count("resumed") >= 1, 120, lambda: second.logs().decode())
    wait_until(lambda: count("epoch") > epochs, 120, lambda: second.logs().decode())
    assert max(e["epoch"] for e in read_events(log) if e["event"] == "resumed") >= 2
    assert stopped(second)[0] == 143


# ---- compose -----------------------------------------------------------------------------------


def compose(*words: str, project: str, check: bool = True, **environment: str) -> str:
    """Docker compose from the repository's root, with no -f."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("COMPOSE_", "RCLONE_"))}
    done = subprocess.run(
        ["docker", "compose", "--project-name", project, *words],
        cwd=ROOT,
        env={**plain, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + (done.stderr if check else "")


@pytest.mark.parametrize(
    ("profile", "remote", "services"),
    [
        ([], {}, {"train"}),
        (["--profile", "cpu"], {}, {"train"}),
        (["--profile", "cuda"], {}, {"train-cuda"}),
        (["--profile", "schedule"], {}, {"weekly"}),
        ([], {"RCLONE_REMOTE": "drive:VN"}, {"train", "publisher"}),
        (["--profile", "cuda"], {"RCLONE_REMOTE": "drive:VN"}, {"train-cuda", "publisher"}),
    ],
)
def test_compose_is_clean_for_every_profile(
    engine: Any, profile: list[str], remote: dict[str, str], services: set[str]
) -> None:
    said = compose(*profile, "config", "--quiet", project="vnquant-config", **remote)
    assert said == ""
    named = compose(*profile, "config", "--services", project="vnquant-config", **remote)
    assert set(named.split()) == services
    config = json.loads(
        compose(*profile, "config", "--format=json", project="vnquant-config", **remote)
    )
    for service in config["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["stop_grace_period"] == "1m0s"
        assert service["user"] == "1000:1000"


def test_compose_up_does_the_main_job_and_publishes_it(
    engine: Any, cpu_image: str, publisher_image: str, tmp_path: Path
) -> None:
    """In the default profile, on embedded prices, with the results in the volume."""
    project = f"vnquant-test-{os.getpid()}"
    engine.images.get(cpu_image).tag("vnquant", "cpu")
    settings = tmp_path / "rclone"
    settings.mkdir()
    settings.chmod(0o777)
    (settings / "rclone.conf").write_text("[disk]\ntype = local\n")
    (settings / "rclone.conf").chmod(0o666)
    remote = {
        "RCLONE_REMOTE": "disk:/config/rclone/remote",
        "RCLONE_CONFIG_FOLDER": str(settings),
        "RCLONE_CONFIG_MODE": "rw",
    }
    try:
        said = compose("up", "--no-color", project=project, **remote)
        assert said.count("exited with code 0") == 2, said
        script = "cat runs/*/manifest.json; echo ===; cat runs/*/forecast/DONE.json"
        text = engine.containers.run(
            cpu_image,
            ["-c", script],
            entrypoint="sh",
            volumes={f"{project}_workspace": {"bind": "/workspace", "mode": "ro"}},
            remove=True,
        ).decode()
        manifest, done = text.split("===")
        found = json.loads(manifest)
        run_id = load_spec(DEMO).run_id
        assert found["run_id"] == run_id
        wanted = {
            "ingest",
            "features",
            "train",
            "evaluate",
            "backtest",
            "deploy",
            "forecast",
            "report",
        }
        assert set(found["stages"]) == wanted
        info = images.inspect(cpu_image)
        for stage in found["stages"].values():
            assert stage["image_digest"] == info.manifest_digest
            assert stage["code"]["commit"] == info.commit
        sent = settings / "remote" / "runs" / run_id / "forecast" / "DONE.json"
        assert json.loads(sent.read_text("utf-8")) == json.loads(done)
    finally:
        compose("down", "--volumes", "--timeout=1", project=project, check=False)


# ---- reproducible ------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree as it is, in a repository of its own."""
    root = tmp_path / "copy"
    root.mkdir()
    image_context.lay_out(ROOT, image_context.Commit("", 0, dirty=True), root)
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    monkeypatch.setattr(image_context, "checkout", lambda: root)
    return root


def options(**more: Any) -> image_build.Options:
    base = os.environ.get("BASE_IMAGE") or None
    return image_build.Options(base_image=base, no_cache=True, **more)


def test_builds_on_different_days_are_one_image_until_a_file_changes(
    engine: Any, publisher_image: str, copied: Path
) -> None:
    source = image_context.Commit("c" * 40, 1_750_000_000, dirty=True)

    def rewrite(mtime: int, mode: int) -> None:
        """What differs between two checkouts of the same files."""
        for path in copied.rglob("*"):
            if path.is_file() and ".git" not in path.parts:
                os.utime(path, (mtime, mtime))
                path.chmod(mode)

    rewrite(1_600_000_000, 0o664)
    with image_build.built("publisher", source, options()) as one:
        rewrite(1_760_000_000, 0o600)
        with image_build.built("publisher", source, options()) as two:
            assert differences(one, two) == []
            assert (one.manifest, one.config, one.layers) == (two.manifest, two.config, two.layers)
        (copied / "vnquant" / "events.py").write_text("changed = 1\n", encoding="utf-8")
        cached = replace(options(), no_cache=False)
        with image_build.built("publisher", source, cached) as three:
            found = differences(one, three)
    assert len(found) == 1
    assert "site-packages/vnquant/events.py" in found[0]


def test_the_account_is_chosen_at_build(
    engine: Any, publisher_image: str, copied: Path, tmp_path: Path
) -> None:
    source = image_context.Commit("e" * 40, 1_750_000_000, dirty=True)
    chosen = replace(options(), no_cache=False, uid=1234, gid=2345)
    with image_build.built("publisher", source, chosen) as archive:
        assert archive.settings["config"]["User"] == "1234:2345"
        assert found_in(archive, b"vnquant:x:1234:2345:") == 1


def test_the_cpu_image_rebuilds_to_the_same_digest(engine: Any, cpu_image: str) -> None:
    info = images.inspect(cpu_image)
    if info.commit.endswith("-dirty"):
        pytest.skip("the image was built from files that no commit has")
    assert images.verify(cpu_image.partition(":")[2], options(), lambda _: None) == []


def test_index_and_certificate_stay_out_of_the_image(
    engine: Any, publisher_image: str, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build is given a word in each, which must be nowhere in what it made."""
    settings = image_context.pip_settings()
    word = "sentinel-of-the-index.invalid"
    bundle = tmp_path / "ca.pem"
    real = settings.get("cert") or os.environ.get("SSL_CERT_FILE")
    bundle.write_bytes((Path(real).read_bytes() if real else b"") + b"\n# sentinel-of-the-bundle\n")
    if not real:
        pytest.skip("this machine's pip names no certificate bundle to add a word to")
    changed = {**settings, "trusted-host": word, "cert": str(bundle)}
    monkeypatch.setattr(image_context, "pip_settings", lambda: changed)
    source = image_context.Commit("d" * 40, 1_750_000_000, dirty=True)
    with image_build.built("publisher", source, options()) as archive:
        assert found_in(archive, b"tini") > 0  # the search does find what is there
        assert found_in(archive, word.encode()) == 0
        assert found_in(archive, b"sentinel-of-the-bundle") == 0


def found_in(archive: Archive, word: bytes) -> int:
    """How many blobs and files of layers hold a word."""
    count = 0
    with tarfile.open(archive.path) as tar:
        for name in tar.getnames():
            blob = tar.extractfile(name)
            if blob is None:
                continue
            head = blob.read(2)
            blob.seek(0)
            if head != b"\x1f\x8b":
                count += word in blob.read()
                continue
            with tarfile.open(fileobj=blob, mode="r|*") as layer:
                for entry in layer:
                    held = layer.extractfile(entry) if entry.isreg() else None
                    count += word in entry.name.encode() or (
                        held is not None and word in held.read()
                    )
    return count


# ---- the publisher -----------------------------------------------------------------------------


def test_the_publisher_starts_without_torch(engine: Any, publisher_image: str, label: str) -> None:
    said = ask(
        engine, publisher_image, label, "sh", "-c", "vnquant publish --help && rclone version"
    )
    assert "--remote" in said
    assert "rclone v1." in said
