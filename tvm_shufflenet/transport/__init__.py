"""Ways to a device: a shell and its files, by ssh or adb."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import BadInput
from .remote import Remote

FORMS = "adb, adb:SERIAL or ssh://USER@HOST[:PORT]/DIR"


def find_remote(spec: str, model: str, ssh_options: Sequence[str] = ()) -> Remote:
    """What ``--to`` names; on a phone, a package lies in a folder of its own. Raises BadInput, ToolMissing."""
    scheme, _, rest = spec.partition(":")
    if scheme == "adb" and (rest or spec == "adb"):
        from .adb import Adb

        return Adb(rest or None, model)
    if scheme == "ssh":
        from .ssh import Ssh

        return Ssh(spec, ssh_options)
    raise BadInput(f"'{spec}' is no place to deploy to", "", f"write {FORMS}")


__all__ = ["FORMS", "Remote", "find_remote"]
