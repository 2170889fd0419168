"""Verifies a schedule at its first use: the built operator is compared with the unscheduled one.

Tuning does so in every trial. Records come in other ways too: shipped, merged from elsewhere, edited; and a template's
default or a candidate after a near record has had no trial at all. So the operators of a library are run one by one,
as they are in it, and what held is remembered: the same code for the same target is not run again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
import tvm_ffi

from ..devices.base import Device
from ..devices.kernels import Kernels
from ..library import alternate, lowering
from ..library.scheduling import Operator, Scheduled
from ..library.serial import workload_hash
from ..support.block_cache import BlockCache
from ..support.toolchain import FFI_VERSION, cache_dir
from .operators import Reference, computed_by, known_reference, wrong_run


@dataclass(frozen=True)
class Use:
    """A scheduled operator of a library: its name there, the function, the unscheduled ``workload``, and a key under
    which it is remembered that the two agree on a device."""

    name: str
    scheduled: tvm.IRModule
    workload: tvm.IRModule
    arguments: tuple[tuple[tuple[int, ...], str], ...]
    key: bytes


@dataclass(frozen=True)
class WrongUse:
    """An operator that computes something else: the digests it should have, and those ``found``."""

    use: Use
    expected: Reference
    found: tuple[tuple[float, ...], ...]
    what: str


def uses(scheduled: Scheduled, device: Device) -> list[Use]:
    """Every operator that a schedule was applied to."""
    chosen = [operator for operator in scheduled.operators if operator.schedule != "none"]
    return [_use(scheduled, operator, device) for operator in chosen]


def _use(scheduled: Scheduled, operator: Operator, device: Device) -> Use:
    function = scheduled.module[operator.name].with_attr("global_symbol", "main")
    workload = scheduled.workloads[operator.name]
    parts = (
        f"{_code()} {device.name} {scheduled.target.tvm_config} {workload_hash(workload)} "
        f"{tvm_ffi.structural_hash(function):x} {operator.arguments}"
    )
    key = hashlib.sha256(parts.encode()).digest()
    return Use(operator.name, tvm.IRModule({"main": function}), workload, operator.arguments, key)


@functools.cache
def _code() -> str:
    """What turns a scheduled operator into machine code, and judges what that computes."""
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in (alternate, lowering))
    return f"{hashlib.sha256(sources).hexdigest()} {FFI_VERSION} {computed_by()}"


@functools.cache
def _held() -> BlockCache:
    return BlockCache(cache_dir() / "verified.sqlite")


def first_uses(found: Sequence[Use]) -> list[Use]:
    """The uses that have not been verified yet."""
    return [use for use in found if _held().get(use.key) is None]


@contextlib.contextmanager
def references_ahead(found: Sequence[Use]) -> Iterator[None]:
    """Find out, beside what is done meanwhile, what unscheduled operators compute: it takes as long as a compilation,
    and TVM's compiler leaves the other cores alone."""

    def work() -> None:
        for use in found:
            if stopped.is_set():
                return
            known_reference(use.workload, workload_hash(use.workload))

    stopped = threading.Event()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        stopped.set()
        raise
    finally:
        thread.join()


def compare(found: Sequence[Use], library: Path, device: Device) -> WrongUse | None:
    """Run operators of a ``library`` on a started device, each on its own data: the first that differs, or None.

    Those that agree are remembered. Raises DeviceFailed.
    """
    with Kernels(device, library) as kernels:
        for use in found:
            expected = known_reference(use.workload, workload_hash(use.workload))
            wrong = wrong_run(expected, *kernels.digests(use.name, use.arguments))
            if wrong is not None:
                what, digests = wrong
                return WrongUse(use, expected, tuple(tuple(each.tolist()) for each in digests), what)
            _held().put([(use.key, b"")])
    return None
