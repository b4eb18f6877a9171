"""The bill of materials of an image, made from the image itself: CycloneDX 1.6, JSON.

A container of the image lists what is installed in it: Debian's packages from dpkg's database,
Python's distributions from their metadata. What the build meant to install plays no part.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from vnquant.errors import RetryableError
from vnquant.host.image_build import NAME
from vnquant.host.image_engine import client
from vnquant.host.images import ImageInfo, inspect

# Runs inside: standard library only.
LISTING = """
import importlib.metadata as metadata, json, platform, subprocess
asked = ["dpkg-query", "-W", "-f", "${Package}\\t${Version}\\t${Architecture}\\n"]
debian = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
print(json.dumps({
    "os": platform.freedesktop_os_release(),
    "python": platform.python_version(),
    "debian": [line.split("\\t") for line in debian.splitlines()],
    "distributions": [
        [d.metadata["Name"], d.version, d.metadata.get("License-Expression") or ""]
        for d in metadata.distributions()
    ],
}))
"""


def listing(tag: str) -> dict[str, Any]:
    """What is installed in an image.

    Raises:
        RetryableError: the container did not answer.
    """
    import docker.errors

    try:
        output = client().containers.run(
            tag,
            entrypoint=["/opt/venv/bin/python", "-I", "-c", LISTING],
            remove=True,
            network_mode="none",
            read_only=True,
            labels={"vnquant.purpose": "sbom"},
        )
    except docker.errors.DockerException as error:
        raise RetryableError(
            f"its contents could not be listed ({error})", where=f"image {tag}", fix="try again"
        ) from error
    found: dict[str, Any] = json.loads(output)
    return found


def sbom(variant: str) -> str:
    """The bill of materials as CycloneDX JSON; the same image gives the same text.

    Raises:
        UsageError: there is no such image.
    """
    tag = f"{NAME}:{variant}"
    info = inspect(tag)
    return render(info, listing(tag))


def render(info: ImageInfo, found: dict[str, Any]) -> str:
    """CycloneDX JSON of a listing."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import LicenseExpression
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    digest = info.manifest_digest
    system = found["os"]
    image = Component(
        name=NAME,
        version=info.commit or None,
        type=ComponentType.CONTAINER,
        bom_ref=digest,
        purl=PackageURL("oci", name=NAME, version=digest),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest.partition(":")[2])],
        properties=[
            Property(name="vnquant:variant", value=info.variant),
            Property(name="vnquant:lock", value=info.lock),
            Property(name="vnquant:python", value=found["python"]),
        ],
    )
    parts = [
        Component(
            name=system.get("NAME", "Linux"),
            version=system.get("VERSION_ID"),
            type=ComponentType.OPERATING_SYSTEM,
            bom_ref="operating-system",
        )
    ]
    distro = f"{system.get('ID', 'linux')}-{system.get('VERSION_ID', '')}"
    for name, version, architecture in found["debian"]:
        address = PackageURL(
            "deb", "debian", name, version, {"arch": architecture, "distro": distro}
        )
        parts.append(Component(name=name, version=version, purl=address, bom_ref=str(address)))
    for name, version, license_ in found["distributions"]:
        address = PackageURL("pypi", name=name, version=version)
        parts.append(
            Component(
                name=name,
                version=version,
                purl=address,
                bom_ref=str(address),
                licenses=[LicenseExpression(license_)] if license_ else None,
            )
        )
    # No random serial number and no time of writing: the text depends on the image alone.
    serial = uuid.uuid5(uuid.NAMESPACE_OID, digest)
    bom = Bom(components=parts, serial_number=serial, metadata=BomMetaData(component=image))
    bom.register_dependency(image, parts)
    text = json.loads(JsonV1Dot6(bom).output_as_string())
    text["metadata"]["timestamp"] = info.created or None
    if not info.created:
        del text["metadata"]["timestamp"]
    return json.dumps(text, indent=2, sort_keys=True) + "\n"
