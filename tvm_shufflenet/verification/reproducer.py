"""Keeps wrong code: a folder with everything needed to reproduce it, on another machine too.

    finding.json      what differed, of which target, on which device, by which versions; expected and found
    scheduled.json    an operator as it was compiled, TVM's JSON; scheduled.py is the same to read
    workload.json     the operator that it should compute; workload.py is the same to read
    trace.json        the schedule as in a tuning record, where it is known
    library.so        of a whole network in place of these, with input0.npy and so on, expected0.npy and found0.npy

Operators run on data that needs no file: argument i is filled by devices/operands.py with the seed i, and its digest
after the run is what is compared. ``tvm-shufflenet replay FOLDER`` does all of it again (workflow/replay.py).

A folder may come from anybody. An operator is checked to be one (graph/serialized.py) before TVM reads it, is compiled
here and runs on the device alone; a network's library is machine code, and runs there too.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from ..errors import BadInput
from ..hardware.targets import Target, find_target, is_cpu
from ..signature import Signature, Tensors, TensorSpec
from ..support.files import Malformed, open_file, read_json
from ..text import clean
from .answers import Answer
from .probes import REFERENCE

if TYPE_CHECKING:
    from ..devices.network import Network
    from .operators import Reference

VARIABLE = "TVM_SHUFFLENET_REPRODUCERS"
KEPT = 16  # the newest so many
SCHEMA = 2  # in 1, a network has one input and one output, in files of these names

Digests = tuple[tuple[float | None, ...], ...]  # None stands for NaN and infinity, which JSON has not


class Reproducer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``expected``, ``allowed`` and ``found`` are digests of an operator's arguments; a network's tensors are in files,
    and ``tolerances`` say how far each output may be off."""

    schema: int
    kind: Literal["operator", "network"]
    name: str
    what: str
    target: str
    target_config: dict
    machine: str
    device: str
    versions: dict[str, str | None]
    replay: str
    expected: Digests = ()
    allowed: Digests = ()
    again: Digests = ()
    found: Digests = ()
    signature: Signature | None = None
    tolerances: dict[str, float] = {}
    tolerance: float = 0.0  # of the only output, in schema 1


def reproducers() -> Path:
    """The folder that they are kept in: the environment's ``TVM_SHUFFLENET_REPRODUCERS``, else one of the user's."""
    override = os.environ.get(VARIABLE)
    if override:
        return Path(override)
    from platformdirs import user_data_path

    return user_data_path("tvm-shufflenet") / "reproducers"


def keep_operator(
    name: str,
    what: str,
    target: Target,
    device: str,
    scheduled_json: str,
    workload,
    expected: Reference,
    found: tuple[tuple[float, ...], ...],
    trace=None,
) -> str:
    """Keep a scheduled operator that computed something else than its ``workload``. Returns where it is, as a clause to
    end a message with."""
    import tvm

    def fill(folder: Path) -> None:
        (folder / "scheduled.json").write_text(scheduled_json)
        (folder / "scheduled.py").write_text(tvm.ir.load_json(scheduled_json).script())
        (folder / "workload.json").write_text(tvm.ir.save_json(workload))
        (folder / "workload.py").write_text(workload.script())
        if trace is not None:
            from ..support.containers import plain

            (folder / "trace.json").write_text(json.dumps(plain(trace.as_json())))

    digests = {"expected": expected.digests, "allowed": expected.allowed, "again": expected.again, "found": found}
    return _keep("operator", name, what, target, device, scheduled_json.encode(), fill, **digests)


def keep_network(
    what: str,
    network: Network,
    tolerances: Mapping[str, float],
    inputs: Tensors,
    expected: Tensors,
    found: Tensors,
) -> str:
    """Keep the library of a ``network`` whose outputs for ``inputs`` are not the ``expected`` ones, in the same way."""
    library, device = network.library, network.device
    if device.target is None:
        return "no reproducer was kept (nobody said what the library is for)"

    def fill(folder: Path) -> None:
        shutil.copyfile(library, folder / "library.so")
        for part, tensors in (("input", inputs), ("expected", expected), ("found", found)):
            for index, array in enumerate(tensors.values()):
                np.save(folder / f"{part}{index}.npy", array)

    code = library.read_bytes()
    facts = {"signature": network.signature, "tolerances": dict(tolerances)}
    return _keep("network", library.stem, what, device.target, device.name, code, fill, **facts)


def _keep(
    kind: str, name: str, what: str, target: Target, device: str, code: bytes, fill: Callable[[Path], None], **more
) -> str:
    stem = f"{kind}-{name}-{target.name}-{hashlib.sha256(code).hexdigest()[:12]}"
    folder = reproducers() / stem
    reproducer = Reproducer(
        SCHEMA, kind, name, what, target.name, target.tvm_config, target.machine, device, _versions(),
        f"tvm-shufflenet replay {folder}", **more,
    )  # fmt: skip
    try:
        reproducers().mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{stem}-", dir=reproducers()))
        try:
            fill(draft)
            (draft / "finding.json").write_bytes(msgspec.json.format(msgspec.json.encode(reproducer), indent=2))
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _forget_oldest()
    except OSError as exc:  # what was found is what counts
        return f"no reproducer was kept ({exc})"
    return f"reproducer: {folder}"


def _forget_oldest() -> None:
    found = sorted(reproducers().glob("[!.]*/finding.json"), key=lambda path: path.stat().st_mtime)
    for path in found[:-KEPT]:
        shutil.rmtree(path.parent, ignore_errors=True)


def _versions() -> dict[str, str | None]:
    found = {}
    for package in ("tvm-shufflenet", "apache-tvm", "apache-tvm-ffi", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def read_reproducer(folder: Path) -> Reproducer:
    """Raises BadInput."""
    path = Path(folder) / "finding.json"
    try:
        reproducer = read_json(path, Reproducer)
    except (OSError, Malformed) as exc:
        raise BadInput(f"{folder} is no reproducer", str(exc), f"name a folder of {reproducers()}") from exc
    if reproducer.schema > SCHEMA:
        raise BadInput(f"{path} has schema {reproducer.schema}", "a newer version wrote it", "use that version")
    if not is_cpu(reproducer.target_config):
        raise BadInput(f"{path} is not what this program writes", "its target is more than a CPU", "do not use it")
    shown = {name: clean(getattr(reproducer, name)) for name in ("name", "what", "target", "device", "machine")}
    return msgspec.structs.replace(reproducer, **shown)


def target_of(reproducer: Reproducer) -> Target:
    """Raises UnknownName. ``local`` meant another machine, perhaps."""
    return find_target(reproducer.target)


@dataclass(frozen=True)
class KeptNetwork:
    """What a network was given, and what PyTorch's outputs are."""

    signature: Signature
    inputs: Tensors
    answer: Answer


def read_network(folder: Path, reproducer: Reproducer) -> KeptNetwork:
    """Raises BadInput, and OSError or ValueError for a file that is missing or no tensor."""
    if reproducer.schema == 1:
        data, expected = _array(folder / "input.npy"), _array(folder / "expected.npy")
        signature = Signature((TensorSpec("input", data.shape),), (TensorSpec("output", expected.shape),))
        answer = Answer(REFERENCE, {"output": expected}, {"output": reproducer.tolerance})
        return KeptNetwork(signature, {"input": data}, answer)
    signature = reproducer.signature
    if signature is None or set(signature.output_names) != set(reproducer.tolerances):
        raise BadInput(f"{folder} does not say what its network takes and returns", "it was edited", "copy it again")
    inputs = {name: _array(folder / f"input{index}.npy") for index, name in enumerate(signature.input_names)}
    expected = {name: _array(folder / f"expected{index}.npy") for index, name in enumerate(signature.output_names)}
    return KeptNetwork(signature, inputs, Answer(REFERENCE, expected, reproducer.tolerances))


def _array(path: Path) -> np.ndarray:
    with open_file(path) as file:  # numpy.load would also open archives
        return np.lib.format.read_array(file, allow_pickle=False)
