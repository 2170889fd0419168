"""Opens a session with a server that requires a secret. Protocol: server/native/gate.h; security: SECURITY.md.

TVM's client cannot answer a challenge, so the proof goes over a connection of its own, while TVM's waits on another.
The proof names the addresses of that one's ends: whoever passes it on from elsewhere has others, and gets no session.
"""

from __future__ import annotations

import contextlib
import ctypes
import hmac
import ipaddress
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator

from ..errors import DeviceFailed
from .secret import FORWARDED, VARIABLE

KNOCK, GREETING, OPEN = b"TVSC", b"TVSP", b"TVSO"
VERSION = 2
NONCE_BYTES, MAC_BYTES, ADDRESS_BYTES = 16, 32, 18
DIRECT, FORWARDER = b"d", b"f"
ANSWER_S = 5.0
_libc = ctypes.CDLL(None)


def proven_session(host: str, port: int, key: str, seconds: int, secret: bytes, forwarded: bool | None):
    """A TVM RPCSession from the server, which proves that it knows the ``secret``, as this process does.

    The server must see both ends of the connection as they are seen here. With ``forwarded`` it need not. With None it
    need not where it is at the very address of loopback that was asked for, as behind ``ssh -L PORT:127.0.0.1:PORT``.
    Raises DeviceFailed, OSError, and RuntimeError where TVM does.
    """
    from tvm import rpc
    from tvm.rpc import _ffi_api

    _ffi_api.Connect.release_gil = True  # while TVM waits, the proof is made
    with _knock(host, port) as connection:
        proof = _Proof(connection, secret)
        proof.meet(forwarded)
        key = f"{key} -session={proof.name} -timeout={seconds}"
        with _beside(lambda: proof.give(f"client:{key}".encode()), connection):
            address = socket.getnameinfo(connection.getpeername(), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
            return rpc.connect(address, port, key)


@contextlib.contextmanager
def _knock(host: str, port: int) -> Iterator[socket.socket]:
    with socket.create_connection((host.strip("[]"), port), timeout=ANSWER_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


@contextlib.contextmanager
def _beside(work, connection: socket.socket) -> Iterator[None]:
    """Does the work in a thread of its own, until the body ends; its error explains the body's."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as exc:
            failed.append(exc)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # the server gives up what was to be proven

    thread = threading.Thread(target=run, name="proof", daemon=True)
    thread.start()
    try:
        yield
    except Exception as exc:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # whatever the thread waits for does not come
        thread.join()
        telling = [failure for failure in failed if isinstance(failure, DeviceFailed)]
        raise (telling or [exc])[0] from exc
    thread.join()


class _Proof:
    """What is said on one knock, in order: ``meet``, then ``give`` while the session's connection waits."""

    def __init__(self, connection: socket.socket, secret: bytes):
        self._connection, self._secret = connection, secret
        self._own, self._peer = (_packed(name()) for name in (connection.getsockname, connection.getpeername))
        self._mode = DIRECT

    @property
    def name(self) -> str:
        """Of the session that is to be proven."""
        return self._server_nonce.hex()

    def meet(self, forwarded: bool | None) -> None:
        """Prove to know the secret, see that the server does, and compare what each sees of the other."""
        self._connection.sendall(KNOCK)
        self._server_nonce = self._greeting()
        client_nonce = os.urandom(NONCE_BYTES)
        self._nonces = self._server_nonce + client_nonce
        self._connection.sendall(client_nonce + self._mac(b"TVSP2C"))
        answer = self._received(2 * ADDRESS_BYTES + MAC_BYTES)
        server, client, mac = _cut(answer, ADDRESS_BYTES, ADDRESS_BYTES, MAC_BYTES)
        if not hmac.compare_digest(mac, self._mac(b"TVSP2S", server + client)):
            what = f"the server at {_readable(self._peer)} does not know the secret that this host knows"
            raise DeviceFailed(what, f"it hung up, or is another's; is its secret the one that {VARIABLE} names?")
        if (server, client) != (self._peer, self._own):
            self._mode = FORWARDER
            if not (forwarded or (forwarded is None and server == self._peer and _is_loopback(server))):
                raise self._elsewhere(server, client)

    def give(self, key: bytes) -> None:
        """Prove that the connection that has come with ``key`` is ours."""
        came_from = self._received(ADDRESS_BYTES)
        if len(came_from) < ADDRESS_BYTES:
            return  # the server has ended, or refused the connection: TVM's client says so
        if self._mode == DIRECT and not _is_ours(came_from, self._peer):
            raise DeviceFailed(
                f"{_readable(came_from)} asked for this process's session at {_readable(self._peer)}",
                "somebody between here and the device reads along",
                "reach the device through ssh",
            )
        words = self._mode + self._peer + came_from
        self._connection.sendall(words + self._mac(b"TVSP2D", words + key))

    def _greeting(self) -> bytes:
        """The server's nonce."""
        start = self._received(8)
        magic, version = start[:4], int.from_bytes(start[4:], "little")
        if magic == OPEN or not start:
            raise ValueError(f"the server asks for no secret, but {VARIABLE} names one: start it with --secret-file")
        if magic != GREETING or version != VERSION:
            theirs = version if magic == GREETING else 1
            raise DeviceFailed(
                f"the server at {_readable(self._peer)} has version {theirs} of the proof, this host {VERSION}",
                "the device's bundle is of another version of tvm-shufflenet",
                "tvm-shufflenet serve --bundle DIR here, and copy it to the device",
            )
        return self._received(NONCE_BYTES).ljust(NONCE_BYTES, b"\0")

    def _received(self, size: int) -> bytes:
        """So many bytes, or fewer where the server hangs up."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while len(data) < size and (part := self._connection.recv(size - len(data))):
                data += part
        return data

    def _mac(self, role: bytes, words: bytes = b"") -> bytes:
        return hmac.digest(self._secret, role + self._nonces + words, "sha256")

    def _elsewhere(self, server: bytes, client: bytes) -> DeviceFailed:
        peer, seen = _readable(self._peer), f"{_readable(server)}, asked by {_readable(client)}"
        return DeviceFailed(
            f"what answers at {peer} is not the device but a way to it: the device is {seen}",
            "a forwarded port or NAT, or somebody who wants your session",
            f"if the way is yours, export {FORWARDED}={peer}",
        )


def _cut(data: bytes, *sizes: int) -> tuple[bytes, ...]:
    """The data in pieces; the last are short where it is."""
    return struct.unpack("".join(f"{size}s" for size in sizes), data.ljust(sum(sizes), b"\0"))


def _packed(name: tuple) -> bytes:
    """A socket's name as proofs have it: an IPv6 address, into which IPv4 is mapped, and the port."""
    address = ipaddress.ip_address(name[0].partition("%")[0])
    mapped = address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
    return mapped + name[1].to_bytes(2, "big")


def _address(packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.IPv6Address(packed[:16])
    return address.ipv4_mapped or address


def _is_loopback(packed: bytes) -> bool:
    return _address(packed).is_loopback


def _readable(packed: bytes) -> str:
    address, port = _address(packed), int.from_bytes(packed[16:], "big")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _is_ours(own: bytes, peer: bytes) -> bool:
    """Whether a socket of this process is connected so."""
    return any(
        _name(_libc.getsockname, int(fd)) == own and _name(_libc.getpeername, int(fd)) == peer
        for fd in os.listdir("/dev/fd")
    )


def _name(function, fd: int) -> bytes | None:
    """What the C function says of the socket; Python's own would have to take it into possession."""
    buffer, size = ctypes.create_string_buffer(128), ctypes.c_uint32(128)
    if function(fd, buffer, ctypes.byref(size)) != 0:
        return None
    family, port = int.from_bytes(buffer.raw[:2], sys.byteorder), int.from_bytes(buffer.raw[2:4], "big")
    places = {socket.AF_INET: (4, 8), socket.AF_INET6: (8, 24)}
    if family not in places:
        return None
    return _packed((str(ipaddress.ip_address(buffer.raw[slice(*places[family])])), port))
