"""The JSON documents of doctor, clean and targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..hardware.boards import Board
    from ..hardware.targets import Target
    from ..workflow.cleaning import Remnant
    from ..workflow.doctor import Ability, Requirement

SCHEMA = 1


class RequirementDocument(Struct, frozen=True):
    """``install`` and ``problem`` where it is not ``ok``."""

    name: str
    purpose: str
    found: str | None
    ok: bool
    required: bool
    install: str | UnsetType = UNSET
    problem: str | UnsetType = UNSET

    @classmethod
    def of(cls, requirement: Requirement) -> RequirementDocument:
        facts = requirement.name, requirement.purpose, requirement.found, requirement.ok, requirement.required
        return cls(*facts) if requirement.ok else cls(*facts, requirement.error.next_step, requirement.error.what)


class AbilityDocument(Struct, frozen=True):
    what: str
    works: bool
    missing: tuple[str, ...]


class DoctorDocument(Struct, frozen=True):
    schema: int
    findings: list[RequirementDocument]
    abilities: list[AbilityDocument]
    install: list[str]

    @classmethod
    def of(cls, requirements: list[Requirement], abilities: list[Ability], install: list[str]) -> DoctorDocument:
        able = [AbilityDocument(each.what, not each.missing, each.missing) for each in abilities]
        return cls(SCHEMA, [RequirementDocument.of(each) for each in requirements], able, install)


class RemnantDocument(Struct, frozen=True):
    what: str
    paths: list[str]
    bytes: int
    kept: str


class CleanDocument(Struct, frozen=True):
    schema: int
    found: list[RemnantDocument]
    removed_bytes: int

    @classmethod
    def of(cls, found: list[Remnant], removed_bytes: int) -> CleanDocument:
        remnants = [RemnantDocument(each.what, list(map(str, each.paths)), each.bytes, each.kept) for each in found]
        return cls(SCHEMA, remnants, removed_bytes)


class TargetDocument(Struct, frozen=True):
    name: str
    triple: str
    mcpu: str
    mattr: tuple[str, ...]
    num_cores: int
    machine: str
    lanes: int
    vector_registers: int
    core: str | None
    note: str
    shipped: str | None

    @classmethod
    def of(cls, target: Target) -> TargetDocument:
        return cls(
            target.name, target.triple, target.mcpu, target.mattr, target.num_cores, target.machine,
            target.isa.lanes(), target.isa.registers, target.board, target.note, target.shipped,
        )  # fmt: skip


class CoreDocument(Struct, frozen=True):
    name: str
    clock_ghz: float
    source: str


class TargetsDocument(Struct, frozen=True):
    schema: int
    targets: list[TargetDocument]
    cores: list[CoreDocument]

    @classmethod
    def of(cls, targets: Iterable[Target], boards: Iterable[Board]) -> TargetsDocument:
        cores = [CoreDocument(each.name, each.clock_ghz, f"{each.source}; {each.core.source}") for each in boards]
        return cls(SCHEMA, [TargetDocument.of(target) for target in targets], cores)
