"""A network from a Python file of the user's: ``FILE.py:factory``."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType

from torch import nn

from ...errors import BadInput, ImportFailed
from ...signature import refuse_several
from ...support.tracebacks import own_trace, refused_layer


def make_module(path: Path, factory: str) -> nn.Module:
    """What ``factory`` of the file makes, in the mode it was made in. Raises BadInput, ImportFailed.

    Whatever the file prints goes to standard error, since standard output may be JSON.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {path}", "", "write --model FILE.py:factory")
    with _folder_first(path.parent.resolve()), redirect_stdout(sys.stderr):
        file = _run(path)
        make = _find(file, path, factory)
        made = make if isinstance(make, nn.Module) else _call(make, path, factory)
    if not isinstance(made, nn.Module):
        raise ImportFailed(
            f"{path}:{factory} returned {type(made).__name__}, no torch.nn.Module", "", "return the network itself"
        )
    _check_inputs(made, path, factory)
    return made


@contextmanager
def _folder_first(folder: Path) -> Iterator[None]:
    """Imports of the file's neighbours work, as when Python runs the file.

    Later ones, in forward(), still do; but by then the folder comes last, so that a neighbour called ``profile.py``
    does not stand in for the standard library's in the rest of this program.
    """
    before = sys.path[:]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before if str(folder) in before else [*before, str(folder)]


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tvm_shufflenet_model_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:
        del sys.modules[spec.name]
        raise _raised(exc, path, str(path)) from exc
    return module


def _find(file: ModuleType, path: Path, factory: str) -> object:
    """The factory, called with nothing but its defaults. Raises ImportFailed."""
    found = getattr(file, factory, None) if factory.isidentifier() else None
    if found is None:
        public = [name for name, value in vars(file).items() if _is_own(value, file) and not name.startswith("_")]
        near = difflib.get_close_matches(factory, public, n=3, cutoff=0.4) or public[:8]
        what = f"it has: {', '.join(near)}" if near else "it has no functions or classes"
        raise ImportFailed(f"{path} has no '{factory}'; {what}", "", f"write --model {path}:FACTORY")
    if not callable(found):
        raise ImportFailed(f"{path}:{factory} is a {type(found).__name__}, no function", "", "name a function or class")
    try:
        inspect.signature(found).bind()
    except TypeError as exc:
        raise ImportFailed(
            f"{path}:{factory} cannot be called without arguments: {exc}",
            "",
            "give its parameters defaults, or write a function without any that calls it",
        ) from exc
    except ValueError:
        pass  # a callable of C++ code, whose parameters are not known
    return found


def _is_own(value: object, file: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == file.__name__


def _call(make, path: Path, factory: str) -> object:
    try:
        return make()
    except (Exception, SystemExit) as exc:
        raise _raised(exc, path, f"{path}:{factory}") from exc


def _raised(exc: BaseException, path: Path, where: str) -> ImportFailed:
    layer = refused_layer(exc)
    trace = own_trace(exc) + (f", in {layer}" if layer else "")
    return ImportFailed(f"{where} raised\n{trace}\n", "the model's own code", f"correct {path}")


def _check_inputs(module: nn.Module, path: Path, factory: str) -> None:
    """forward() takes one tensor. Raises ImportFailed."""
    try:
        signature = inspect.signature(module.forward)
    except ValueError:
        return  # not Python
    names = [each.name for each in signature.parameters.values() if each.default is each.empty]
    try:
        signature.bind(None)
    except TypeError:
        refuse_several(names, f"forward() of {path}:{factory}")
