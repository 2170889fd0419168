"""The bill of materials of a package: its contents and the tools that made it, as CycloneDX 1.5 JSON.

It has no time and no serial number, so the same package gives the same bill.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence

from .linked import is_zig
from .texts import Licence

SBOM = "sbom.cdx.json"
SPEC = "1.5"
OWN = "tvm-shufflenet"
NAMES = {"compiler runtime": "compiler-rt", "C library": "musl"}  # of parts that have a version


def bill(
    model: str, hashes: Mapping[str, str], licences: Sequence[Licence], tvm: str, ffi: str, linker: Sequence[str]
) -> bytes:
    """``hashes`` are SHA-256 by file name. The network's library stands for the package as a whole."""
    made_with = [_pypi(OWN, _version(OWN)), _pypi("apache-tvm", tvm), _pypi("apache-tvm-ffi", ffi)]
    if is_zig(linker):
        made_with.append(_pypi("ziglang", _version("ziglang"), "MIT"))
    value = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {
            "tools": {"components": made_with},
            "component": {"type": "machine-learning-model", "bom-ref": "package", "name": model},
        },
        "components": [_file(name, digest, licences) for name, digest in sorted(hashes.items())] + _linked(licences),
        "dependencies": [{"ref": "package", "dependsOn": [f"file:{name}" for name in sorted(hashes)]}],
    }
    return json.dumps(value, indent=2).encode() + b"\n"


def _pypi(name: str, version: str | None, licence: str = "Apache-2.0") -> dict:
    component = {"type": "library", "name": name, "licenses": _licences([licence])}
    return component if version is None else component | {"version": version, "purl": f"pkg:pypi/{name}@{version}"}


def _file(name: str, digest: str, licences: Sequence[Licence]) -> dict:
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": _licences(part.licence for part in licences if name in part.files),
    }


def _linked(licences: Sequence[Licence]) -> list[dict]:
    """What is in the files and no file of its own."""
    return [
        {
            "type": "library",
            "bom-ref": f"part:{part.part}",
            "name": NAMES.get(part.part, part.part),
            "description": part.origin,
            "licenses": _licences([part.licence]),
            **_versioned(part),
        }
        for part in licences
    ]


def _versioned(part: Licence) -> dict:
    """compiler-rt has zig's version: zig's is a port, and released with it."""
    if part.version is None:
        return {}
    return {"version": part.version, "purl": f"pkg:generic/{NAMES.get(part.part, part.part)}@{part.version}"}


def _licences(names: Iterable[str]) -> list[dict]:
    """SPDX's by their identifiers; a reference to the model's own terms has none."""
    own = "LicenseRef-"
    return [{"license": {"name" if name.startswith(own) else "id": name}} for name in dict.fromkeys(names)]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
