"""The secret shared by a device and this host: a file that the user names, or one that lasts as long as a server.

The file is the one that TVM_SHUFFLENET_SECRET_FILE names, here and (``--secret-file``) on the device. Servers that this
program starts for itself get a random secret each, through a pipe. No secret is ever sent, only proven: see proof.py.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..errors import BadInput

VARIABLE = "TVM_SHUFFLENET_SECRET_FILE"
FORWARDED = "TVM_SHUFFLENET_FORWARDED"  # addresses, HOST:PORT and commas, that lead to devices by a forwarder or NAT
SHORTEST = 16


def secret_file() -> str | None:
    """The file that the environment names, if any. Raises BadInput where it cannot be used."""
    path = os.environ.get(VARIABLE)
    if path:
        read_secret(path)
    return path or None


def read_secret(path: str | Path) -> bytes:
    """What the file holds, without white space at its end, which editors add."""
    try:
        secret = Path(path).read_bytes().rstrip()
    except OSError as exc:
        raise BadInput(f"cannot read the secret in {path}", str(exc), f"correct or unset {VARIABLE}") from exc
    if len(secret) < SHORTEST:
        raise BadInput(
            f"the secret in {path} is shorter than {SHORTEST} characters",
            "",
            f"(umask 077; head -c 32 /dev/urandom | base64 > {path}), here and on the device",
        )
    return secret


def own_secret(path: Path) -> bytes:
    """What the file holds, which nobody else may read. Raises BadInput."""
    secret = read_secret(path)
    if path.stat().st_mode & 0o077:
        raise BadInput(f"others may read the secret in {path}", "", f"chmod 600 {path}")
    return secret


def new_secret() -> bytes:
    """For one run of one server; always as long, for a server's memory must not differ from run to run."""
    return secrets.token_hex(32).encode()


def is_forwarded(host: str, port: int) -> bool:
    """Whether the user has declared that another machine's server is reached at this address."""
    return f"{host}:{port}" in os.environ.get(FORWARDED, "").replace(" ", "").split(",")
