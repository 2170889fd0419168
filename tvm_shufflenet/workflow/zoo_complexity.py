"""Multiply-adds and parameters of the zoo, counted once for each version of its sources and cached."""

from __future__ import annotations

import fcntl
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import msgspec

from .. import models
from ..support import toolchain
from ..support.files import Malformed, parse_json, read_file, replacing

PACKAGES = ("torch", "apache-tvm")
GRAPH = Path(models.__file__).parent.parent / "graph"
COUNTING = (Path(__file__), GRAPH / "complexity.py", GRAPH / "passes" / "fold_batch_norm.py")


class Kept(msgspec.Struct):
    """Names of the whole zoo where they have been asked for, and what has been counted."""

    names: list[str] = []
    counts: dict[str, tuple[int, int]] = {}


def zoo_complexity(names: list[str] | None, on_count: Callable[[int, int], None]) -> dict[str, tuple[int, int]]:
    """(multiply-adds, parameters) of zoo networks at 224x224 by name, of all for None, in the order of the zoo.

    ``on_count(done, total)`` is called before the first network that has not been counted yet and after each. Neither
    torch nor TVM is imported when all have been. Raises UnknownName.
    """
    with _cache() as kept:
        if names is None:
            names = kept.names = kept.names or models.names()
        missing = [name for name in dict.fromkeys(names) if name not in kept.counts]
        for name in missing:
            models.check_name(name)
        if missing:
            on_count(0, len(missing))
        for done, name in enumerate(missing, 1):
            kept.counts[name] = _count(name)
            on_count(done, len(missing))
    return {name: kept.counts[name] for name in names}


def _count(name: str) -> tuple[int, int]:
    """By TVM's importer of symbolic traces, in a tenth of the time that exporting and importing the network takes.

    That importer is no good for compiling: it ignores keywords of functions, such as the stride of a functional max
    pool, for which the networks here have modules therefore. The tests hold every count against torch's own counter,
    and one of each architecture against the graph that is compiled.
    """
    import torch
    from torch import fx
    from tvm.relax.frontend.torch import from_fx

    from ..graph.complexity import count
    from ..graph.passes.fold_batch_norm import FoldBatchNorm

    class Tracer(fx.Tracer):
        def to_bool(self, _proxy) -> bool:
            return False  # the networks' only conditions refuse channel counts that no network of the zoo has

    with torch.device("meta"):
        module = models.builder(name)().eval()
    # Counting needs no weights: memory that is never written costs nothing, and zeros fold without a warning.
    module._apply(lambda tensor: torch.zeros_like(tensor, device="cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and TVM deprecate each other's habits here
        traced = fx.GraphModule(module, Tracer().trace(module))
        relax_module = from_fx(traced, [(models.IMAGENET_SHAPE, "float32")])
    complexity = count(FoldBatchNorm()(relax_module))  # type: ignore[operator]  # module_pass makes it a pass
    return complexity.multiply_adds, complexity.parameters


@contextmanager
def _cache() -> Iterator[Kept]:
    """What is kept, and kept again at the end if it has changed. One process at a time counts.

    Where nothing can be kept, nothing is.
    """
    name = f"complexity-{_key()}.json"
    try:
        path = toolchain.cache_dir() / name
        descriptor = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_WRONLY, 0o644)
    except OSError:
        yield Kept()
        return
    with open(descriptor, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            before = read_file(path)
            kept = parse_json(before, Kept)
        except (OSError, Malformed):
            before, kept = b"", Kept()
        try:
            yield kept
        finally:  # an interrupt loses nothing
            after = msgspec.json.encode(kept)
            if after != before:
                with suppress(OSError), replacing(path) as file:
                    file.write(after)


def _key() -> str:
    """Changes with all that the counts depend on: the networks, how they are folded and counted, torch and TVM."""
    key = hashlib.sha256()
    networks = Path(models.__file__).parent
    for source in [*sorted(networks.rglob("*.py")), *COUNTING]:
        key.update(f"{source.name}\0{source.read_text()}\0".encode())
    for name in PACKAGES:
        key.update(f"{name}\0{metadata.version(name)}\0".encode())
    return key.hexdigest()[:16]
