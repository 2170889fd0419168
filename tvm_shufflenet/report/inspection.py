"""Shows the contents of a package, on the terminal or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..packages.manifest import MANIFEST
from ..text import counted
from .grid import new_table
from .tables import SCHEDULED

if TYPE_CHECKING:
    from rich.console import Console

    from ..packages.manifest import Timing
    from ..packages.package import Package


def facts_of(package: Package) -> dict:
    """For JSON: the package's files with size, SHA-256 and licences, and its manifest as it is."""
    manifest = package.manifest
    files = [
        {
            "name": name,
            "bytes": (package.folder / name).stat().st_size,
            "sha256": digest,
            "licences": [part.licence for part in manifest.licences if name in part.files],
        }
        for name, digest in sorted(manifest.hashes.items())
    ]
    return {
        "schema": 1,
        "package": str(package.path),
        "form": "folder" if package.folder == package.path else "archive",
        "files": files,
        "manifest": msgspec.to_builtins(manifest),
    }


def print_inspection(console: Console, facts: dict, package: Package) -> None:
    manifest = package.manifest
    console.print(f"{facts['package']}: {facts['form']}, schema {manifest.schema}, all hashes match", markup=False)
    console.print(manifest.plan, markup=False)
    by_schedule = [f"{_count(package, kind)} {words}" for kind, words in SCHEDULED.items() if _count(package, kind)]
    console.print(f"operators: {len(manifest.operators)}, {', '.join(by_schedule)}")
    needed = f"weights {manifest.weight_bytes / 1e6:.2f} MB, activations {manifest.activation_bytes / 1e6:.2f} MB"
    console.print(f"memory: {needed}; largest error allowed against PyTorch {manifest.tolerance:.2g}")
    console.print(str(manifest.verified), markup=False)
    table = new_table("file", "SHA-256", "licences", "bytes", left=3)
    for file in facts["files"]:
        licences = ", ".join(dict.fromkeys(file["licences"])) or "not said"
        table.add_row(file["name"], file["sha256"][:12], licences, str(file["bytes"]))
    console.print(table)
    for part in manifest.licences:
        console.print(f"{part.licence}: {part.part}, {part.origin}", markup=False)
    for timing in manifest.timings:
        console.print(_described(timing), markup=False)
    if not manifest.timings:
        console.print(f"no latency in its {MANIFEST} yet: bench and deploy write them")


def _count(package: Package, kind: str) -> int:
    return sum(operator.schedule == kind for operator in package.manifest.operators)


def _described(timing: Timing) -> str:
    median, kind = timing.latency_us.get("median"), timing.latency_us.get("kind", "kind not said")
    latency = f"{median / 1e3:.3f} ms" if isinstance(median, int | float) else "no median"
    bound = f", CPUs {timing.affinity}" if timing.affinity else ""
    threads = f"{counted(timing.threads, 'thread')}{bound}"
    known = [f"{key} {timing.device[key]}" for key in ("model", "kernel", "governor") if timing.device.get(key)]
    return f"{latency} ({kind}) on {timing.device.get('name')}, {'; '.join([threads, *known])}"
