"""The proof that we know a device's shared secret; see SECURITY.md and devices/native/gate.h.

The secret is in a file that TVM_SHUFFLENET_SECRET_FILE names, here and (``--secret-file``) on the device. It is never
sent: the server gives a challenge, on a connection of its own, and the next connection carries the challenge's HMAC.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import socket
import struct
from pathlib import Path

from ..errors import BadInput

VARIABLE = "TVM_SHUFFLENET_SECRET_FILE"
SHORTEST = 16
CHALLENGE_MAGIC = 0x43535654
CHALLENGE = re.compile(rb"[0-9a-f]{80}")
ANSWER_S = 5.0


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


def proof_option(host: str, port: int, path: str | Path) -> str:
    """What to add to the key when connecting to the server. Raises OSError, ValueError where it asks for no secret."""
    challenge = _challenge(host, port)
    return f" -proof={challenge.decode()}:{hmac.new(read_secret(path), challenge, hashlib.sha256).hexdigest()}"


def _challenge(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), timeout=ANSWER_S) as connection, connection.makefile("rb") as answer:
        connection.sendall(struct.pack("<i", CHALLENGE_MAGIC))
        challenge = answer.read(200)
    if not CHALLENGE.fullmatch(challenge):
        raise ValueError(f"the server asks for no secret, but {VARIABLE} names one: start it with --secret-file")
    return challenge
