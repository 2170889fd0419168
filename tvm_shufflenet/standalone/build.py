"""Builds the files of a standalone model: library, headers, wrappers, benchmark."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm

from ..errors import ImportFailed, LinkFailed
from ..hardware.targets import Target, features_of
from ..library.link import CC_VARIABLE, elf_machine
from ..library.symbols import undefined_symbols
from ..signature import Signature, to_bytes
from ..support.processes import run_compiler
from ..support.toolchain import find_llvm_objcopy, require, zig_program
from ..text import ending
from ..verification.answers import Answers
from .kernels import compile_kernels
from .program import Program, plan
from .source import NATIVE, identifier, render, symbols

DRIVER = ("driver.c", "pool.c", "system_linux.c")
BENCH = ("bench.c", "device.c", "emulation.c", "probes.c", "samples.c")
MODEL = ("model.c", "weights.S", "kernels.o")
WARNINGS = ("-Wall", "-Wextra")
# The driver is its own C library: no stack protector, which wants one, and none of zig's sanitizers.
FLAGS = ("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-fno-stack-protector", "-fno-sanitize=all", *WARNINGS)
# Android keeps register x18 for itself; zig leaves out the flag that other compilers have for it.
KEEP_X18, ZIG_KEEPS_X18 = ("-ffixed-x18",), ("-Xclang", "-target-feature", "-Xclang", "+reserve-x18")
# Android's newest phones have pages of 16 KB.
LAYOUT = ("-Wl,-z,max-page-size=16384", "-Wl,--gc-sections", "-s")

# Templates of what a package holds beside the binaries, and its names there.
SHIPPED = {
    "model.h.j2": "{model}.h",
    "model.hpp.j2": "{model}.hpp",
    "model.py.j2": "{model}.py",
    "examples/example.c.j2": "examples/example.c",
    "examples/example.cpp.j2": "examples/example.cpp",
    "examples/example.py.j2": "examples/example.py",
    "examples/android/network_jni.c.j2": "examples/android/network_jni.c",
    "examples/android/Network.java.j2": "examples/android/Network.java",
    "cmake/config.cmake.j2": "cmake/{name}-config.cmake",
}


@dataclass(frozen=True)
class StandaloneLibrary:
    """What was built: ``files`` by their names in the package."""

    interface = 1  # TVMSN_INTERFACE of native/interface.h
    library: Path
    bench: Path
    files: dict[str, Path]
    program: Program


def build_standalone(
    module: tvm.IRModule,
    target: Target,
    model: str,
    signature: Signature,
    answers: Answers,
    folder: Path,
    static: bool = False,
) -> StandaloneLibrary:
    """Build everything that a package holds of a standalone model, in ``folder``; a static library only if asked to.

    ``module`` has scheduled operators; its benchmark carries PyTorch's ``answers``. Raises ImportFailed for a network
    that is more than calls of operators, LinkFailed, ToolMissing.
    """
    folder.mkdir()
    program = plan(module, compile_kernels(module, target, folder / "kernels.o"))
    write_sources(program, target, model, folder)
    library = link_library(target, model, folder)
    (folder / "reference_inputs.bin").write_bytes(to_bytes(answers.inputs, signature.inputs))
    outputs = b"".join(to_bytes(answer.expected, signature.outputs) for answer in answers.each)
    (folder / "reference_outputs.bin").write_bytes(outputs)
    bench = link_bench(target, model, signature, answers, folder)
    files = {library.name: library, bench.name: bench}
    if static:
        archive = make_archive(target, model, folder)
        files[archive.name] = archive
    for template, name in SHIPPED.items():
        path = folder / name.format(model=model, name=identifier(model))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(template, model, program, target=target.name))
        files[str(path.relative_to(folder))] = path
    return StandaloneLibrary(library, bench, files, program)


def write_sources(program: Program, target: Target, model: str, folder: Path) -> None:
    """The model's own C and its weights, beside its kernels."""
    (folder / "weights.bin").write_bytes(program.weights)
    facts = {"target": target.name, "machine": target.machine, "features": checked_features(target)}
    for name in ("model.c", "model.h", "weights.S", "reference.S", "exports.map"):
        text = render(f"{name}.j2", model, program, **facts)
        (folder / name).write_text(text)


def checked_features(target: Target) -> list[str]:
    """What the driver asks the CPU for before anything is computed: of all that code for the target may use, the
    features that native/cpu.h knows."""
    known = re.findall(r'FEATURE\("([^"]+)"', (NATIVE / "cpu.h").read_text())
    used = features_of(target)
    return [name for name in known if name in used]


def link_library(target: Target, model: str, folder: Path) -> Path:
    """``lib<model>.so``: it exports its interface, and needs no other library, but libm for an operator that calls it.

    Raises LinkFailed, ImportFailed for an operator that calls TVM's runtime.
    """
    output = folder / f"lib{model}.so"
    sources = native(*DRIVER, "memory.c")
    shared = ["-shared", "-nostdlib", "-ffreestanding", f"-Wl,-soname,{output.name}", *LAYOUT]
    shared.append("-Wl,--version-script=exports.map")
    compile_c(target, folder, [*shared, *sources, *MODEL], output)
    missing = undefined_symbols(output)
    if any(name.lstrip("_").startswith("TVM") for name in missing):
        raise ImportFailed(
            f"an operator calls {missing[0]} of TVM's runtime", "TVM has no code for it", "compile it with --format vm"
        )
    if missing:
        compile_c(target, folder, [*shared, *sources, *MODEL, _stub_of_libm(target, missing, folder)], output)
    return output


def _stub_of_libm(target: Target, functions: Sequence[str], folder: Path) -> str:
    """A library to link with in the place of libm: then any version of it serves, and Android's under its name."""
    (folder / "stub").mkdir(exist_ok=True)
    (folder / "stub.c").write_text("".join(f"void {name}(void) {{}}\n" for name in functions))
    name = "libm.so" if target.triple.endswith("android") else "libm.so.6"
    stub = ["-shared", "-nostdlib", "-fno-builtin", "-fvisibility=default", "-w", f"-Wl,-soname,{name}"]
    compile_c(target, folder, [*stub, "stub.c"], folder / "stub" / "libm.so")
    return str(Path("stub", "libm.so"))


def make_archive(target: Target, model: str, folder: Path) -> Path:
    """``lib<model>.a``: one object, in which every symbol but the interface's is local, so that a program may link any
    number of models. Raises LinkFailed, ToolMissing without llvm-objcopy."""
    objcopy, output = require(find_llvm_objcopy()), folder / f"lib{model}.a"
    whole = folder / f"{identifier(model)}.o"
    sources = native(*DRIVER, "memory.c")
    compile_c(target, folder, ["-r", "-nostdlib", "-ffreestanding", *sources, *MODEL], whole)
    (folder / "interface.txt").write_text("\n".join(symbols(model)))
    _run([objcopy, "--keep-global-symbols=interface.txt", "--strip-unneeded", whole.name], folder, output)
    _run([zig_program(), "ar", "rcsD", output.name, whole.name], folder, output)
    return output


def link_bench(target: Target, model: str, signature: Signature, answers: Answers, folder: Path) -> Path:
    """``<model>_bench``: a static program for any kernel of the target's machine. Raises LinkFailed."""
    output = folder / f"{model}_bench"
    (folder / "tolerance.c").write_text(_tolerances(signature, answers))
    sources = [*native(*DRIVER, *BENCH), "tolerance.c", "reference.S", *MODEL]
    compile_c(target, folder, ["-static", *LAYOUT, *sources, "-lm"], output)
    return output


def _tolerances(signature: Signature, answers: Answers) -> str:
    """What native/bench.c is told of the reference inputs and of the others, a list that ends with one without a name:
    the tolerance of each output."""
    names = signature.output_names
    rows = [", ".join(repr(answer.tolerances[name]) for name in names) for answer in answers.each]
    probes = [f'{{"{answer.probe}", tolerances[{index}]}}' for index, answer in enumerate(answers.each)]
    table = ", ".join(f"{{{row}}}" for row in rows)
    return (
        f'#include "probes.h"\nstatic const double tolerances[][{len(names)}] = {{{table}}};\n'
        f"const struct probe reference_probes[] = {{{', '.join(probes)}, {{0, 0}}}};\n"
    )


def native(*names: str) -> list[str]:
    """Paths of C that is the same for every model."""
    return [str(NATIVE / name) for name in names]


def compiler(target: Target) -> list[str]:
    """The C compiler for ``target``: TVM_SHUFFLENET_CC where set, else zig, whose musl makes static programs."""
    override, is_arm = os.environ.get(CC_VARIABLE), target.machine == "aarch64"
    if override:
        return [*shlex.split(override), *(KEEP_X18 if is_arm else ())]
    zig = [zig_program(), "cc", "-target", f"{target.machine}-linux-musl"]
    return [*zig, *(ZIG_KEEPS_X18 if is_arm else ())]


def compile_c(target: Target, folder: Path, arguments: Sequence[str], output: Path) -> None:
    """Compile and link what is in ``folder``. Raises LinkFailed."""
    command = [*compiler(target), *FLAGS, f"-I{NATIVE}", "-I.", *arguments]
    _run([*command, "-o", str(output)], folder, output)
    found = elf_machine(output)
    if found != target.machine:
        raise LinkFailed(f"the compiler made a {found} file", f"the target is {target.machine}", f"check {CC_VARIABLE}")


def _run(command: Sequence[str], folder: Path, output: Path) -> None:
    """A step towards ``output``. Raises LinkFailed."""
    failure, cause = f"{output.name} did not link: ", f"{command[0]} cannot make it"
    run_compiler(command, failure, cause, f"unset or correct {CC_VARIABLE}", folder, ending)
