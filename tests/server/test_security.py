"""Who may use a device server, and what a session on it may do; what host and device tell each other first."""

from __future__ import annotations

import contextlib
import hmac
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import rpc
from tvm.rpc import base
from tvm.rpc.tracker import Tracker

from helpers.servers import RunningServer, answers, eventually, linker, servers, session_info, status_of, target_for
from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.devices import find_device, handshake, proof, secret
from tvm_shufflenet.devices.base import Device, Endpoint
from tvm_shufflenet.errors import BadInput, DeviceFailed
from tvm_shufflenet.hardware.targets import find_target, host_machine
from tvm_shufflenet.server import build
from tvm_shufflenet.support import toolchain

HOST = build.HOST_ARCH
SECRET = "correct horse battery staple"
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused, and only root becomes another user")


def secret_file(folder: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    path = folder / f"secret-{abs(hash(text))}"
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


@pytest.fixture
def serve(tmp_path):
    with servers(HOST, tmp_path) as start:
        yield start


@pytest.fixture
def guarded(serve, tmp_path) -> RunningServer:
    return serve("--secret-file", secret_file(tmp_path))


def refused(*options: object) -> str:
    """What a server says that does not start."""
    command = [str(build.server_binary(HOST)), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert done.returncode in (1, 2) and done.stdout == ""
    return done.stderr


# The secret


@pytest.mark.parametrize("text", [SECRET, "x" * 64, "y" * 65, "z" * 1000, "ünïcödé sécrèt"], ids=len)
def test_who_knows_the_secret_gets_a_session(serve, tmp_path, text):
    path = secret_file(tmp_path, text)
    server = serve("--secret-file", path)
    endpoint = Endpoint("127.0.0.1", server.port, secret_file=str(path))
    assert all(session_info(endpoint.connect(10))["arch"] == HOST for _ in range(2))


def test_who_does_not_gets_a_closed_socket_and_no_slot(serve, tmp_path):
    path = secret_file(tmp_path)
    server = serve("--secret-file", path, "--max-sessions", 1)
    for endpoint in (
        Endpoint("127.0.0.1", server.port),
        Endpoint("127.0.0.1", server.port, secret_file=str(secret_file(tmp_path, "another secret entirely"))),
    ):
        started = time.monotonic()
        with pytest.raises(DeviceFailed):
            endpoint.connect(10)
        assert time.monotonic() - started < 2
    assert server.sessions() == []
    assert "does not know the secret" in server.log.read_text() and SECRET not in server.log.read_text()
    assert session_info(Endpoint("127.0.0.1", server.port, secret_file=str(path)).connect(10))


def exchange(port: int, data: bytes) -> tuple[bytes, float]:
    """What the server says to ``data`` until it closes, and how long that took."""
    started, said = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        try:
            client.sendall(data)
            while chunk := client.recv(4096):
                said += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
    return said, time.monotonic() - started


def hello(key: str) -> bytes:
    return struct.pack("<ii", base.RPC_MAGIC, len(key.encode())) + key.encode()


class Client:
    """The proof as server/native/gate.h has it, each message apart: what an attacker may send, too."""

    def __init__(self, port: int, text: str = SECRET, host: str = "127.0.0.1"):
        self.to, self._text, self._connections = (host, port), text, []
        self.knock = self._connect()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc) -> None:
        for connection in self._connections:
            connection.close()

    def _connect(self) -> socket.socket:
        self._connections.append(socket.create_connection(self.to, timeout=10))
        return self._connections[-1]

    def mac(self, role: str, words: bytes = b"") -> bytes:
        return hmac.digest(self._text.encode(), role.encode() + self.nonces + words, "sha256")

    def greeted(self) -> Client:
        self.knock.sendall(b"TVSC")
        greeting = receive(self.knock, 24)
        assert greeting[:8] == b"TVSP" + struct.pack("<i", proof.VERSION)
        self.nonces = greeting[8:] + b"c" * 16
        return self

    def first(self) -> bytes:
        return self.nonces[16:] + self.mac("TVSP2C")

    def met(self) -> Client:
        self.greeted().knock.sendall(self.first())
        assert len(receive(self.knock, 68)) == 68
        return self

    def asking(self, key: str = "client:") -> Client:
        """The session's connection has come."""
        self.key = f"{key} -session={self.nonces[:16].hex()}"
        self.session = self._connect()
        self.session.sendall(hello(self.key))
        self.came_from = receive(self.knock, 18)
        return self

    def second(self, mode: str = "d", server: tuple | None = None, client: tuple | None = None) -> bytes:
        words = mode.encode() + proof._packed(server or self.session.getpeername())
        words += proof._packed(client or self.session.getsockname())
        return words + self.mac("TVSP2D", words + self.key.encode())

    def is_let_in(self, second: bytes) -> bool:
        self.knock.sendall(second)
        return receive(self.session, 4) == struct.pack("<i", base.RPC_CODE_SUCCESS)


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer where the other side hangs up."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while len(data) < size and (part := connection.recv(size - len(data))):
            data += part
    return data


def test_nothing_is_said_to_who_proves_nothing(guarded):
    with Client(guarded.port).met() as known:
        name = known.nonces[:16].hex()
        for key in ("client:", "client:nonsense", f"client: -session={'0' * 32}", f"client: -session={name[:-1]}"):
            assert exchange(guarded.port, hello(key))[0] == b"", key
    for wrong in (lambda client: client.first()[:-1] + b"x", lambda client: b"\0" * 48):
        with Client(guarded.port).greeted() as client:
            client.knock.sendall(wrong(client))
            assert receive(client.knock, 100) == b""
    with Client(guarded.port, "another secret entirely").greeted() as client:
        client.knock.sendall(client.first())
        assert receive(client.knock, 100) == b""
    assert guarded.sessions() == []
    with ThreadPoolExecutor() as threads:
        unfinished = (b"", struct.pack("<i", base.RPC_MAGIC), hello("client:")[:-1])
        for said, took_s in threads.map(lambda data: exchange(guarded.port, data), unfinished):
            assert said == b"" and took_s < 2.5


def test_the_second_proof_is_for_one_connection(guarded):
    """The address that was asked for, the address that asked, the mode, the key and the nonces: none may differ."""
    with Client(guarded.port).met().asking() as right:
        assert right.came_from == proof._packed(right.session.getsockname())
        assert right.is_let_in(right.second()) and len(guarded.sessions()) == 1
    asked = ("127.0.0.1", guarded.port)
    for change in (
        {"server": ("127.0.0.1", guarded.port ^ 1)},
        {"server": ("127.0.0.2", guarded.port)},
        {"client": ("127.0.0.1", 9)},
        {"client": ("127.0.0.2", 9)},
        {"server": asked, "mode": "x"},
        {"mode": "\0"},
    ):
        with Client(guarded.port).met().asking() as client:
            assert not client.is_let_in(client.second(**change)), change
    with Client(guarded.port).met().asking("client: -timeout=3") as client:
        client.key = client.key.replace("3", "9")
        assert not client.is_let_in(client.second())
    eventually(lambda: not guarded.sessions(), "session over")


def test_a_proof_serves_once(guarded):
    with Client(guarded.port).met().asking() as first:
        second = first.second()
        assert first.is_let_in(second)
        assert exchange(guarded.port, hello(first.key))[0] == b""
        for again in (first.first() + second, second):
            with Client(guarded.port).greeted() as thief:
                thief.knock.sendall(again)
                assert receive(thief.knock, 100) == b""
        with Client(guarded.port).met().asking() as thief:  # even one who knows the secret, with what he overheard
            assert not thief.is_let_in(second)


def test_only_the_first_connection_is_proven(guarded):
    """Who has overheard a session's name comes too late, or its owner does and gets nothing: never both."""
    with Client(guarded.port).met().asking() as client:
        assert exchange(guarded.port, hello(client.key))[0] == b""
        assert client.is_let_in(client.second())
    with Client(guarded.port).met() as client:
        client.key = f"client: -session={client.nonces[:16].hex()}"
        thief = socket.create_connection(("127.0.0.1", guarded.port), timeout=10)
        thief.sendall(hello(client.key))
        came_from = receive(client.knock, 18)
        assert came_from == proof._packed(thief.getsockname()) and not proof._is_ours(
            came_from, proof._packed(("::", 1))
        )
        client.session = client._connect()
        client.session.sendall(hello(client.key))
        assert not client.is_let_in(client.second()) and receive(thief, 4) == b""
        thief.close()


def test_a_proof_that_takes_too_long_ends(guarded):
    with Client(guarded.port).met() as slow, Client(guarded.port).met().asking() as slower:
        time.sleep(5.2)
        assert receive(slow.knock, 1) == b"" and not slower.is_let_in(slower.second())
    assert "did not prove in time" in guarded.log.read_text()


def test_no_two_greetings_are_the_same(guarded):
    found = set()
    for _ in range(200):
        with Client(guarded.port).greeted() as client:
            found.add(client.nonces)
    assert len(found) == 200


class Relay:
    """Somebody who listens at ``host`` and passes on to the server at ``port`` all that is said, both ways."""

    def __init__(self, port: int, host: str = "127.0.0.1", own_port: int = 0):
        self._listener = socket.create_server((host, own_port))
        self.port, self._to, self._open, self.passed = self._listener.getsockname()[1], port, [], 0
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_exc) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                self.passed += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_a_proof_cannot_be_relayed(guarded, tmp_path, host):
    """From another port, and from the very port at another address."""
    with Relay(guarded.port, host, 0 if host == "127.0.0.1" else guarded.port) as relay:
        endpoint = Endpoint(host, relay.port, secret_file=str(secret_file(tmp_path)))
        with pytest.raises(DeviceFailed, match=rf"a way to it: the device is 127\.0\.0\.1:{guarded.port}, asked by"):
            endpoint.connect(10)
        assert relay.passed > 100 and guarded.sessions() == []


def test_a_client_that_did_not_look_would_not_open_the_door_to_a_relay(guarded):
    """The server compares too: the proof names the address that the client asked for."""
    with Relay(guarded.port) as relay, Client(relay.port).met().asking() as client:
        assert client.came_from != proof._packed(client.session.getsockname())
        assert not client.is_let_in(client.second())
    with Relay(guarded.port) as relay, Client(relay.port).met().asking() as client:
        seen = ("127.0.0.1", int.from_bytes(client.came_from[16:], "big"))
        assert not client.is_let_in(client.second(client=seen))
    assert guarded.sessions() == []


def test_a_forwarded_port_that_the_user_declares_is_a_way(guarded, tmp_path, monkeypatch):
    """Nothing is called in these sessions: TVM would wait for an answer with the lock that the forwarder needs."""
    with Relay(guarded.port) as forwarder:
        endpoint = Endpoint("127.0.0.1", forwarder.port, secret_file=str(secret_file(tmp_path)))
        sessions = [replace(endpoint, forwarded=True).connect(10)]
        monkeypatch.setenv(secret.FORWARDED, f"board:9090, 127.0.0.1:{forwarder.port}")
        sessions.append(endpoint.connect(10))
        assert len(guarded.sessions()) == 2
        for_one_run = replace(endpoint, secret_file=None, secret=SECRET.encode())
        with pytest.raises(DeviceFailed, match="a way to it"):  # such a server is never behind one
            for_one_run.connect(10)
        del sessions


def test_the_same_address_of_loopback_is_a_way_of_ssh_s(guarded):
    """As behind ``ssh -L PORT:127.0.0.1:PORT``: the server has the address that was asked for, and another client's."""

    def met(forwarded: bool | None) -> bytes:
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
            ours = proof._Proof(connection, SECRET.encode())
            ours._own = proof._packed(("127.0.0.1", 9))
            ours.meet(forwarded)
            return ours._mode

    assert met(None) == met(True) == proof.FORWARDER
    with pytest.raises(DeviceFailed, match="a way to it"):
        met(False)


def test_a_server_of_an_earlier_version_is_refused_by_name(tmp_path):
    """Version 1 answered at once with eighty digits and hung up; a later one may say anything behind its number."""
    for greeting, theirs in ((b"0123456789abcdef" * 5, 1), (b"TVSP" + struct.pack("<i", 3) + b"?", 3)):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            answering = threading.Thread(target=lambda: _answer(listener, greeting))  # noqa: B023
            answering.start()
            endpoint = Endpoint(*listener.getsockname(), secret_file=str(secret_file(tmp_path)))
            with pytest.raises(DeviceFailed, match=rf"has version {theirs} of the proof, this host 2.*serve --bundle"):
                endpoint.connect(10)
            answering.join()


def _answer(listener: socket.socket, greeting: bytes) -> None:
    client, _ = listener.accept()
    with client:
        receive(client, 4)
        client.sendall(greeting)


def test_a_server_that_does_not_know_the_secret_gets_no_proof(serve, tmp_path):
    server = serve("--secret-file", secret_file(tmp_path, "another secret entirely"))
    with pytest.raises(DeviceFailed, match="does not know the secret that this host knows"):
        Endpoint("127.0.0.1", server.port, secret_file=str(secret_file(tmp_path))).connect(10)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=120)
    | st.tuples(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=80)).map(
        lambda pair: struct.pack("<ii", base.RPC_MAGIC, pair[0]) + pair[1]
    )
    | st.text(max_size=150).map(lambda text: hello("client: -session=" + text))
    | st.binary(max_size=200).map(lambda data: b"TVSC" + data)
)
def test_no_bytes_open_the_door_or_break_it(guarded, data):
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as client:
        said = b""
        with contextlib.suppress(OSError):  # it may hang up at the first bytes
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)  # else it waits two seconds for the rest
            said = receive(client, 4096)
    assert said == b"" or (data[:4] == b"TVSC" and len(said) == 24)
    assert guarded.process.poll() is None and guarded.sessions() == []


def test_a_secret_that_the_device_does_not_ask_for_is_told(serve, tmp_path):
    server = serve()
    with pytest.raises(DeviceFailed, match="asks for no secret"):
        Endpoint("127.0.0.1", server.port, secret_file=str(secret_file(tmp_path))).connect(10)


def test_the_environment_names_the_secret_of_remote_devices(guarded, tmp_path, monkeypatch):
    address, target = f"rpc://127.0.0.1:{guarded.port}", find_target("local")
    with pytest.raises(DeviceFailed, match="no session"), find_device(address, target):
        pass
    monkeypatch.setenv(secret.VARIABLE, str(secret_file(tmp_path)))
    with find_device(address, target) as device:
        assert answers(device)
    for path in (tmp_path / "none", secret_file(tmp_path, "short")):
        monkeypatch.setenv(secret.VARIABLE, str(path))
        with pytest.raises(BadInput, match="the secret in"):
            find_device(address, target)
        assert find_device("local", target)


def test_a_tracker_s_device_asks_for_its_secret_too(serve, tmp_path):
    tracker = Tracker(host="127.0.0.1", port=19990, port_end=20990, silent=True)
    try:
        path = secret_file(tmp_path)
        server = serve("--tracker", f"127.0.0.1:{tracker.port}", "--key", "board", "--secret-file", path)
        endpoint = Endpoint("127.0.0.1", tracker.port, "board", secret_file=str(path))
        eventually(lambda: tracker_has(endpoint), "device on offer")
        for _ in range(2):
            session = endpoint.connect(10)
            assert session_info(session)["pid"] in server.sessions()
            del session
            eventually(lambda: not server.sessions(), "session over")
    finally:
        tracker.terminate()


def tracker_has(endpoint: Endpoint) -> bool:
    session = rpc.connect_tracker(endpoint.host, endpoint.port)
    try:
        return session.summary()["queue_info"].get(endpoint.key, {"free": 0})["free"] == 1
    finally:
        session.close()


# Where it listens, and as whom


def test_beyond_loopback_a_secret_is_needed(tmp_path):
    for host in ("0.0.0.0", "::"):
        error = refused("--host", host, "--allow-root")
        assert "without a secret" in error and "--secret-file" in error and "ssh or adb" in error
    for options in (["--secret-file", str(secret_file(tmp_path))], ["--insecure"]):
        command = [str(build.server_binary(HOST)), "--host", "0.0.0.0", "--allow-root", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout.readline().startswith("listening 0.0.0.0:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stdout.close()


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [(SECRET, 0o640, "others may read"), ("short", 0o600, "needs at least 16 characters"), (None, 0, "cannot read")],
)
def test_secrets_that_are_none_are_refused(tmp_path, text, mode, message):
    path = tmp_path / "none" if text is None else secret_file(tmp_path, text, mode)
    assert message in refused("--secret-file", path, "--allow-root")


@ROOT_ONLY
def test_root_is_refused_unless_told():
    assert "refused to run as root" in refused() and "there is no user" in refused("--user", "nobody-else")
    assert "is root" in refused("--user", "root")


@ROOT_ONLY
def test_root_becomes_the_user_that_is_named():
    command = [str(build.server_binary(HOST)), "--user", "nobody"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        port = int(process.stdout.readline().rpartition(":")[2])
        session = rpc.connect("127.0.0.1", port)
        session.upload(bytearray(b"data"), "file")
        status = status_of(session_info(session)["pid"])
        assert status["Uid"].split() == ["65534"] * 4 and status["Groups"] == ""
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_command_line_passes_what_it_is_told(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(os, "execv", lambda program, words: ran.append(words))
    path = secret_file(tmp_path)
    assert cli.main(["serve", "--secret-file", str(path), "--allow-root", "--user", "pi"]) == 0
    assert ran[0][5:] == ["--secret-file", str(path), "--seccomp", "auto", "--user", "pi", "--allow-root"]
    assert cli.main(["serve", "--secret-file", str(tmp_path / "none")]) == 2


# What a session may do


def test_a_session_has_no_rights_beyond_its_user_s(serve):
    session = serve().connect()
    status = status_of(session_info(session)["pid"])
    assert int(status["NoNewPrivs"]) == 1
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


def test_a_session_s_memory_is_limited(serve):
    session = serve("--session-memory", 600).connect()
    assert tvm.runtime.empty((2**20,), "float32", session.cpu())
    with pytest.raises(Exception, match=r"memory|bad_alloc|closed|signal"):
        tvm.runtime.empty((2**28,), "float32", session.cpu())


def test_a_session_s_disk_is_limited(serve, tmp_path):
    server = serve("--session-disk", 1, "--work-dir", tmp_path / "work")
    session = server.connect()
    session.upload(bytearray(900_000), "one")
    session.upload(bytearray(900_000), "one")  # in place of the first
    with pytest.raises(Exception, match="--session-disk allows"):
        session.upload(bytearray(900_000), "two")
    session.remove("one")
    session.upload(bytearray(900_000), "two")
    with pytest.raises(Exception, match=r"'one' has 2000000 bytes, --session-disk allows"):
        server.connect().upload(bytearray(2_000_000), "one")
    del session
    eventually(lambda: not list((tmp_path / "work").iterdir()), "files removed")


# System calls. These succeed for any user where nothing refuses them: numbers for x86-64 and arm64, arguments.
CALLS = {
    "socket": ((41, 198), (socket.AF_UNIX, socket.SOCK_STREAM, 0)),
    "ptrace": ((101, 117), (0, 0, 0, 0)),  # to be traced by the parent
    "unshare": ((272, 97), (0x200,)),  # a current folder of its own
    "personality": ((135, 92), (0xFFFFFFFF,)),  # only asks for it
}
KILL, GETPID, GETPPID, EXECVE = (62, 129), (39, 172), (110, 173), (59, 221)


CALLER = """
# from tvm.script import tirx as T
@T.prim_func
def {name}(result: T.Buffer((1,), "int64")):
    T.func_attr({{"global_symbol": "{name}"}})
    result[0] = T.call_extern("int64", "syscall", {words})
"""


def calling(name: str, *words: object) -> tvm.tirx.PrimFunc:
    """A kernel that makes a system call and stores what libc's ``syscall`` returns; words are numbers or TIR."""
    numbers = [f"T.int64({word})" if isinstance(word, int) else str(word) for word in words]
    return tvm.script.from_source(CALLER.format(name=name, words=", ".join(numbers)))


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> Path:
    own = ("x86_64", "aarch64").index(HOST)  # the column of numbers
    functions = {name: calling(name, numbers[own], *words) for name, (numbers, words) in CALLS.items()}
    functions["execve"] = calling("execve", EXECVE[own], '"/bin/true"', 0, 0)
    for name, numbers in (("kill_parent", GETPPID), ("kill_self", GETPID)):
        whom = f'T.call_extern("int64", "syscall", T.int64({numbers[own]}))'
        functions[name] = calling(name, KILL[own], whom, 0)
    path = tmp_path_factory.mktemp("calls") / "calls.so"
    tvm.compile(tvm.IRModule(functions), target=target_for(HOST)).export_library(path, fcompile=linker(HOST))
    return path


def returned(session: rpc.RPCSession, library: Path) -> dict[str, int]:
    """What each call that does not end the session returned."""
    session.upload(str(library))
    module, results = session.load_module(library.name), {}
    for name in [*CALLS, "kill_parent", "kill_self"]:
        result = tvm.runtime.empty((1,), "int64", session.cpu())
        module[name](result)
        results[name] = int(result.numpy()[0])
    return results


def test_a_session_s_system_calls_are_filtered(serve, calls):
    session = serve("--seccomp", "on").connect()
    assert status_of(session_info(session)["pid"])["Seccomp"] == "2"
    results = returned(session, calls)
    assert results.pop("kill_self") == 0 and set(results.values()) == {-1}
    result = tvm.runtime.empty((1,), "int64", session.cpu())
    session.load_module(calls.name)["execve"](result)
    assert result.numpy()[0] == -1, "and the session is still the server's program"


def test_without_the_filter_they_are_not(serve, calls):
    """Else the test above shows nothing."""
    session = serve("--seccomp", "off").connect()
    assert status_of(session_info(session)["pid"])["Seccomp"] == "0"
    assert min(returned(session, calls).values()) >= 0
    result = tvm.runtime.empty((1,), "int64", session.cpu())
    with pytest.raises(Exception, match=r"closed|reset|signal|Socket|[Ss]hutdown"):
        session.load_module(calls.name)["execve"](result)


@pytest.mark.skipif(HOST == "aarch64" or not toolchain.find_qemu().path, reason="needs an emulator of another machine")
def test_an_emulator_filters_nothing_and_it_is_said(tmp_path):
    with servers("aarch64", tmp_path) as start:
        server = start()
        assert "an emulator, does not filter system calls: sessions run without" in server.log.read_text()
        assert session_info(server.connect())["arch"] == "aarch64"
        qemu, sysroot = toolchain.find_qemu().path, toolchain.require(toolchain.find_sysroot())
        command = [qemu, "-L", sysroot, str(build.server_binary("aarch64")), "--seccomp", "on", "--allow-root"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and "--seccomp on was given" in done.stderr


# What host and device tell each other


def test_the_cpu_s_features_are_those_that_the_kernel_names(serve):
    features = session_info(serve().connect())["features"]
    flags = set(Path("/proc/cpuinfo").read_text().split())
    names = {"avx2": "avx2", "fma": "fma", "avx512f": "avx512f", "bmi2": "bmi2", "sse4.2": "sse4_2"}
    names = names if HOST == "x86_64" else {"neon": "asimd", "dotprod": "asimddp", "lse": "atomics", "sve": "sve"}
    assert {name: features[name] for name in names} == {name: flag in flags for name, flag in names.items()}


def test_an_emulated_core_has_the_features_of_its_cpu():
    arm64, a76 = find_target("arm64"), find_target("cortex-a76")
    with find_device("emulated:cortex-a72", arm64) as device:
        features = session_info(device.endpoint().connect(10))["features"]
        assert features["neon"] and not features["dotprod"] and not features["fullfp16"]
        with pytest.raises(DeviceFailed, match=r"cannot execute dotprod, fullfp16, .*for cortex-a76 uses"):
            device.check(a76)
    with find_device(None, a76):
        pass


@pytest.mark.parametrize("name", ["arm64", "cortex-a53", "cortex-a55", "cortex-a76"])
def test_every_target_s_own_emulated_core_has_its_features(name):
    target = find_target(name)
    with find_device("emulated", target) as device:
        device.check(target)


@pytest.mark.parametrize("name", ["TVM_VERSION", "FFI_VERSION", "SERVER_VERSION"])
def test_another_version_is_refused_before_anything_is_uploaded(monkeypatch, name):
    monkeypatch.setattr(handshake, name, "9.9.9")
    device = find_device("local", find_target("local"))
    with pytest.raises(DeviceFailed, match=r"local has version .*, this host 9\.9\.9.*serve --bundle"), device:
        pass
    assert device._process is None, "nothing is left running"


def test_a_library_of_another_machine_is_told_by_the_handshake():
    here = find_target("local")
    other = find_target("arm64" if here.machine == "x86_64" else "x86-64")
    with (
        find_device("local", here) as device,
        pytest.raises(DeviceFailed, match=f"local is {host_machine()}, {other.name} is {other.machine}"),
    ):
        device.check(other)


def test_a_server_that_is_not_ours_is_taken_as_it_is(monkeypatch):
    monkeypatch.setattr(handshake, "server_function", lambda *_: None)
    with find_device("local", replace(find_target("local"), mcpu="native")) as device:
        assert np.array_equal(device.endpoint().connect(10).cpu(0).exist, True)


# Servers that commands start for themselves. They are on loopback, which is every local user's, and may run as root.

# Says on its standard output what a server says to a client that proves nothing, in hexadecimal.
STRANGER = """
import encodings.idna, os, socket, struct, sys  # all that it needs: nobody may not read this interpreter's files
if os.geteuid() == 0 and sys.argv[2] != "0":
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as client:
    client.sendall(struct.pack("<ii", 0xff271, 7) + b"client:")
    try:
        print(client.recv(100).hex())
    except ConnectionResetError:
        print()
"""


def strangers_hear(port: int, whom: str) -> str:
    done = subprocess.run([sys.executable, "-I", "-c", STRANGER, str(port), whom], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def listening() -> set[int]:
    """Ports of this process's descendants."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found |= {each.laddr.port for each in process.net_connections("tcp") if each.status == "LISTEN"}
    return found


def test_a_stranger_gets_into_an_open_server(serve):
    """Else the tests below show nothing."""
    server = serve()
    for whom in ("65534", "0"):
        assert strangers_hear(server.port, whom).startswith(struct.pack("<i", base.RPC_CODE_SUCCESS).hex())


MODEL = """
import torch

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(4, 8, 1), torch.nn.ReLU())
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["local", "arm64"])
def test_nobody_else_gets_into_a_server_of_compile_tune_run_and_bench(tmp_path, target, capsys, monkeypatch):
    """Whatever listens once a device has started is asked for a session by another user, and by root."""
    if target == "arm64" and not toolchain.find_qemu().path:
        pytest.skip("no emulator")
    heard: dict[tuple[str, int], list[str]] = {}
    enter = Device.__enter__

    def enter_and_ask(device: Device) -> Device:
        entered = enter(device)
        for port in listening():
            heard[name, port] = [strangers_hear(port, whom) for whom in ("65534", "0")]
        return entered

    monkeypatch.setattr(Device, "__enter__", enter_and_ask)
    (tmp_path / "model.py").write_text(MODEL)
    words = ["--model", f"{tmp_path}/model.py:network", "--input-shape", "1,4,8,8", "--target", target]
    package, records = str(tmp_path / "package"), ["--records", str(tmp_path / "records")]
    for name, *more in (
        ["tune", *words, *records, "--trials", "2"],
        ["compile", *words, *records, "-o", package],
        ["run", package],
        ["bench", package],
    ):
        assert cli.main([name, *more]) == 0, capsys.readouterr().err
    assert {name for name, _ in heard} == {"tune", "compile", "run", "bench"}
    assert {said for answers in heard.values() for said in answers} == {""}


def test_the_secret_of_a_run_is_nowhere_to_be_read(tmp_path):
    """Not on a command line, in no environment and no file, and not in the memory of a session."""
    with find_device("local", find_target("local")) as device:
        endpoint = device.endpoint()
        assert len(endpoint.secret) == 64 and endpoint.secret.decode() not in repr(endpoint)
        session = endpoint.connect(10)
        pid = session_info(session)["pid"]
        for process in (device._process.pid, pid):
            for name in ("cmdline", "environ"):
                assert endpoint.secret not in Path(f"/proc/{process}/{name}").read_bytes()
        assert not any(endpoint.secret in memory_of(process) for process in (device._process.pid, pid))
        with find_device("local", find_target("local")) as other:
            assert other.endpoint().secret != endpoint.secret


def memory_of(pid: int) -> bytes:
    """What a process may write to, its stack and heap."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            extent, rights, *_ = line.split()
            begin, end = (int(address, 16) for address in extent.split("-"))
            if rights.startswith("rw") and end - begin < 1 << 28:
                with contextlib.suppress(OSError):
                    memory.seek(begin)
                    found.append(memory.read(end - begin))
    return b"".join(found)
