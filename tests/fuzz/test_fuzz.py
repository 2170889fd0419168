"""Four seconds of fuzzing each target, from its corpus; benchmarks/fuzz.py does it for as long as one likes."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import rpc

from helpers.scripts import load
from helpers.servers import RunningServer, eventually
from tvm_shufflenet.devices.operands import Operands
from tvm_shufflenet.errors import ToolMissing
from tvm_shufflenet.server.build import HOST_ARCH

ROOT = Path(__file__).parents[2]
SECONDS = 4


@pytest.fixture(scope="module")
def fuzz():
    return load("fuzz")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["manifest", "archive", "records", "cli", "server"])
def test_nothing_breaks_it(fuzz, target):
    try:
        fuzz.command_of(target)
    except ToolMissing as exc:
        pytest.skip(str(exc))
    command = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--seconds", str(SECONDS), target]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]


def test_corpora_are_small(fuzz):
    for target in (*fuzz.PYTHON_TARGETS, fuzz.SERVER):
        files = list((ROOT / "tests" / "fuzz" / "corpus" / target).iterdir())
        assert files and sum(path.stat().st_size for path in files) <= fuzz.CORPUS_BYTES


# What a session says after its handshake is TVM's protocol, which runs code: it may end the session, never the server.
# Examples are few, since TVM's runtime takes up to a second to say where a session has crashed.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    running = RunningServer(HOST_ARCH, folder / "log", "--work-dir", folder / "work", "--session-timeout", 1)
    running.work = folder / "work"
    yield running
    running.process.kill()
    running.process.wait()
    running.process.stdout.close()


# What a client of TVM 0.27 says that does ``use`` and leaves, recorded on its way.
RECORDED = ROOT / "tests" / "fuzz" / "corpus" / "session" / "whole"


def use(session: rpc.RPCSession) -> None:
    session.upload(bytearray(b"content"), "file")
    Operands(session, session.cpu(0), [((3, 5), "float32"), ((4,), "int32")]).digests()
    assert session.get_function("tvm.rpc.server.listdir")("") == "file"


HOW = st.sampled_from(["flip", "cut", "double", "number"])
MUTATIONS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), HOW, st.binary(max_size=8)), min_size=1, max_size=4)


def mutated(data: bytes, mutations) -> bytes:
    """The handshake stays as it is: test_security.py is about that."""
    begin = 8 + struct.unpack_from("<i", data, 4)[0]
    head, rest = data[:begin], bytearray(data[begin:])
    for place, how, value in mutations:
        at = int(place * len(rest))
        if how == "flip":
            rest[at : at + len(value)] = value
        elif how == "cut":
            del rest[at : at + 1 + len(value)]
        elif how == "double":
            rest[at:at] = rest[at : at + 8 * (1 + len(value))]
        else:  # of packets and strings, lengths among them
            rest[at // 4 * 4 : at // 4 * 4 + 8] = value.ljust(8, b"\xff")
        if not rest:
            break
    return head + bytes(rest)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MUTATIONS)
def test_no_session_ends_the_server(server, mutations):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client, contextlib.suppress(OSError):
        client.sendall(mutated(RECORDED.read_bytes(), mutations))
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 14):
            pass
    assert server.process.poll() is None


def test_and_it_serves_the_next_one(server):
    use(rpc.connect("127.0.0.1", server.port))
    eventually(lambda: not server.sessions() and not list(server.work.iterdir()), "nothing left")
