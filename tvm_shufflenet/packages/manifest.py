"""The manifest of a package: its fields, and how an untrusted one is read."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..errors import ImportFailed, PackageInvalid
from ..licences.texts import Licence
from ..precision import FLOAT32, PRECISIONS
from ..signature import Signature, TensorSpec, refuse_undeployable
from ..support.files import Malformed, parse_json, read_file, replacing
from ..text import clean
from ..verification.outcome import NEVER_VERIFIED, Verification
from .archive import MANIFEST_BYTES, safe_name

MANIFEST = "manifest.json"
INPUT, OUTPUT = "input", "output"  # in packages of before schema 4, which have one of each
SCHEMA = 4
# 1 lacks what an operator takes and multiplies, 2 the licences, and up to 3 there is one input and one output.
READABLE = (1, 2, 3, 4)
MOST_ELEMENTS, MOST_DIMENSIONS = 1 << 30, 16  # of a tensor that is drawn to check a library with


class Argument(msgspec.Struct, frozen=True):
    """A tensor that an operator reads or writes."""

    shape: tuple[int, ...]
    dtype: str


class OperatorEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One distinct operator: ``schedule`` is ``record``, ``near record`` (of a workload nearly the same), ``template``
    (its default) or ``none`` (TVM's plain loops).

    A record was ``tuned_for`` a CPU, perhaps another than the target's: a shipped record of one like it.
    ``multiply_adds`` and ``arguments`` are those of one call, None in packages of schema 1. ``layers`` are the names of
    the model's layers whose weights it holds, where they are known.
    """

    name: str
    occurrences: int
    schedule: str
    record_us: float | None = None
    tuned_for: str | None = None
    multiply_adds: int | None = None
    arguments: tuple[Argument, ...] | None = None
    layers: tuple[str, ...] = ()


class StandaloneEntry(msgspec.Struct, frozen=True):
    """A library that needs no runtime: the version of its C ``interface``, its ``files``, and the memory of an instance
    beside the weights: ``arena_bytes``, and ``workspace_bytes`` for each thread."""

    interface: int
    library: str
    bench: str
    files: tuple[str, ...]
    arena_bytes: int
    workspace_bytes: int


class OperatorTime(msgspec.Struct, frozen=True):
    """An operator's median latency, in microseconds."""

    name: str
    median_us: float


class Timing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Latencies of the package on one device, each with its kind of clock.

    One that was deployed to says which CPUs the threads were bound to (``affinity``), what the first inference took and
    what the process needed, and has its model, kernel, governor and cores in ``device``.
    """

    device: dict
    threads: int
    latency_us: dict
    affinity: str | None = None
    cold_us: float | None = None
    peak_memory_bytes: int | None = None
    operators: tuple[OperatorTime, ...] = ()

    @property
    def setting(self) -> tuple:
        return self.device, self.threads, self.affinity


class Probe(msgspec.Struct, frozen=True):
    """Inputs (probes.py) for which PyTorch's outputs are in the package, and how far each may be off."""

    name: str
    tolerances: dict[str, float]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """What is in a package. Sizes in bytes, hashes SHA-256 by file name.

    ``probes`` are those beside the reference inputs. By output: ``tolerances`` for the reference inputs, ``roundings``,
    how far PyTorch's float32 is from its float64, and ``sensitivities``, how far its answers to two inputs are apart.
    ``precision`` is what the network computes in. Old packages have none of the latter three, and no probes.
    """

    schema: int
    plan: str
    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    seed: int
    target: str
    target_config: dict
    machine: str
    tuned: bool
    records: str | None
    tvm: str
    ffi: str
    linker: tuple[str, ...]
    library: str
    operators: tuple[OperatorEntry, ...]
    activation_bytes: int
    weight_bytes: int
    tolerances: dict[str, float]
    hashes: dict[str, str]
    timings: tuple[Timing, ...] = ()
    standalone: StandaloneEntry | None = None
    licences: tuple[Licence, ...] = ()
    verified: Verification = NEVER_VERIFIED
    probes: tuple[Probe, ...] = ()
    roundings: dict[str, float | None] = {}
    sensitivities: dict[str, float | None] = {}
    precision: str = FLOAT32.name

    @property
    def tolerance(self) -> float:
        """The largest of any output."""
        return max(self.tolerances.values(), default=0.0)

    @property
    def signature(self) -> Signature:
        return Signature(self.inputs, self.outputs)

    @property
    def operators_without_record(self) -> list[str]:
        return [operator.name for operator in self.operators if operator.schedule != "record"]


def no_package(path: Path) -> PackageInvalid:
    return PackageInvalid(f"{path} is not a package", f"no {MANIFEST} in it", "tvm-shufflenet compile ... -o PACKAGE")


def read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        text = read_file(path, MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise no_package(folder) from exc
    except OSError as exc:
        raise PackageInvalid(f"{path} cannot be read: {exc}", "", "copy or compile the package again") from exc
    return decode_manifest(path, text)


def decode_manifest(path: Path, text: bytes) -> Manifest:
    """The manifest in ``text``, which was read from ``path``. Raises PackageInvalid for anything else."""
    try:
        facts = _cleaned(parse_json(text))
        if not isinstance(facts, dict):
            raise ValueError("it is no JSON object")
        schema = facts.get("schema")
        if schema not in READABLE:
            newer = isinstance(schema, int) and schema > SCHEMA
            raise PackageInvalid(
                f"{path} has schema {schema}, this version reads {', '.join(map(str, READABLE))}",
                "a newer version compiled it" if newer else "",
                "use that version, or compile it again with this one",
            )
        manifest = msgspec.convert(_with_signature(facts) if schema < 4 else facts, Manifest)
        _check_values(manifest)
        return manifest
    except ImportFailed as exc:
        raise PackageInvalid(f"{path}: {exc.what}", exc.cause, "use the version that compiled it") from exc
    except (Malformed, msgspec.ValidationError, ValueError) as exc:
        raise PackageInvalid(f"{path} cannot be read: {exc}", "it is damaged", "compile the package again") from exc


def _cleaned(value: object) -> object:
    """A JSON value whose texts can be printed. Names of files are not made others: safe_name refuses those."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(each) for each in value]
    if isinstance(value, dict):
        return {name: _cleaned(each) for name, each in value.items()}
    return value


def _with_signature(facts: dict) -> dict:
    """A manifest of before schema 4, which has one input and one output without names, as one of schema 4: that is
    written where something is noted in such a package."""
    old = {**facts, "schema": SCHEMA}
    for of, names in (("inputs", INPUT), ("outputs", OUTPUT)):
        old[of] = [{"name": names, "shape": old.pop(f"{of.removesuffix('s')}_shape", None)}]
    for one, by_output in (("tolerance", "tolerances"), ("rounding", "roundings"), ("sensitivity", "sensitivities")):
        if one in old:
            old[by_output] = {OUTPUT: old.pop(one)}
    probes = old.get("probes", [])
    if isinstance(probes, list) and all(isinstance(probe, dict) for probe in probes):
        old["probes"] = [{**probe, "tolerances": {OUTPUT: probe.get("tolerance")}} for probe in probes]
    return old


def _check_values(manifest: Manifest) -> None:
    """What types do not say. Raises ValueError."""
    for spec in (*manifest.inputs, *manifest.outputs):
        shape = spec.shape
        fits = all(isinstance(dim, int) and dim >= 0 for dim in shape) and spec.elements <= MOST_ELEMENTS
        if len(shape) > MOST_DIMENSIONS or not fits:
            raise ValueError(f"{spec.name} is no tensor that fits in memory")
    names = {spec.name for spec in manifest.outputs}
    by_output = (manifest.tolerances, *(probe.tolerances for probe in manifest.probes))
    if any(set(each) != names for each in by_output):
        raise ValueError("its tolerances are not those of its outputs")
    refuse_undeployable(manifest.signature, "it")
    if manifest.precision not in PRECISIONS:
        raise ValueError(f"precision is none of {', '.join(PRECISIONS)}")
    if not 0 <= manifest.seed < 1 << 64:
        raise ValueError("seed is none of a random generator")
    if not safe_name(manifest.model) or "/" in manifest.model:  # it names files, here and on devices
        raise ValueError("model is no name of a file")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    with replacing(folder / MANIFEST) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
