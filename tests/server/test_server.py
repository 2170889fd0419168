"""The device server against TVM's own, unchanged client and tracker: natively, and on the emulated arm64 core."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, rpc
from tvm.rpc import base
from tvm.rpc.tracker import Tracker
from tvm.s_tir.meta_schedule.runner import rpc_runner
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from helpers.servers import OTHER, RunningServer, eventually, linker, servers, target_for
from tvm_shufflenet.errors import BadInput, LinkFailed, ToolMissing
from tvm_shufflenet.server import build
from tvm_shufflenet.support import toolchain

ARCHES = sorted({build.HOST_ARCH, "aarch64"})
N = 1000


@I.ir_module
class Kernels:
    @T.prim_func
    def add_one(A: T.Buffer((1000,), "float32"), B: T.Buffer((1000,), "float32")):
        T.func_attr({"global_symbol": "add_one"})
        for i in range(1000):
            B[i] = A[i] + T.float32(1)

    @T.prim_func
    def spin(B: T.Buffer((1,), "float32")):
        T.func_attr({"global_symbol": "spin"})
        for _ in T.serial(T.int64(1099511627776)):
            B[0] = B[0] + T.float32(1)

    @T.prim_func
    def crash(B: T.Buffer((1,), "float32")):
        T.func_attr({"global_symbol": "crash"})
        B[T.int64(1099511627776)] = T.float32(1)


@I.ir_module
class Network:
    @R.function
    def main(x: R.Tensor((4, 8), "float32")):
        with R.dataflow():
            y = R.nn.relu(x)
            z = R.add(y, y)
            R.output(y, z)
        return z, y


@pytest.fixture(scope="session")
def libraries(tmp_path_factory) -> Path:
    """kernels-ARCH.so for both machines and network-ARCH.so."""
    folder = tmp_path_factory.mktemp("libraries")
    for arch in OTHER:
        for name, built in (
            ("kernels", tvm.compile(Kernels, target=target_for(arch))),
            ("network", relax.build(Network, target_for(arch))),
        ):
            built.export_library(folder / f"{name}-{arch}.so", fcompile=linker(arch))
    return folder


@pytest.fixture(params=ARCHES)
def arch(request) -> str:
    return request.param


@pytest.fixture
def start(arch, tmp_path):
    with servers(arch, tmp_path, "--work-dir", tmp_path / "work") as start:
        yield start


@pytest.fixture
def server(start) -> RunningServer:
    return start()


def upload(session: rpc.RPCSession, path: Path, name: str):
    session.upload(bytearray(path.read_bytes()), name)  # given a path, TVM's client leaves the file open


def upload_kernels(session: rpc.RPCSession, libraries: Path, arch: str):
    upload(session, libraries / f"kernels-{arch}.so", "kernels.so")
    return session.load_module("kernels.so")


def add_one_works(session: rpc.RPCSession, libraries: Path, arch: str) -> bool:
    kernels = upload_kernels(session, libraries, arch)
    data = np.arange(N, dtype="float32")
    a, b = tvm.runtime.tensor(data, session.cpu()), tvm.runtime.tensor(np.zeros(N, "float32"), session.cpu())
    kernels["add_one"](a, b)
    return np.array_equal(b.numpy(), data + 1)


# ------------------------------------------------------------------------------------------------ sessions


def test_upload_run_time_download_remove(server, libraries, arch, tmp_path):
    session = server.connect()
    kernels = upload_kernels(session, libraries, arch)
    data = np.random.default_rng(0).standard_normal(N, dtype="float32")
    a, b = tvm.runtime.tensor(data, session.cpu()), tvm.runtime.tensor(np.zeros(N, "float32"), session.cpu())
    kernels["add_one"](a, b)
    np.testing.assert_array_equal(b.numpy(), data + 1)
    measured = kernels.time_evaluator("add_one", session.cpu(), number=5, repeat=3)(a, b)
    assert len(measured.results) == 3 and min(measured.results) > 0

    assert session.download("kernels.so") == (libraries / f"kernels-{arch}.so").read_bytes()
    assert "kernels.so" in session.listdir(".").split(",")
    session.remove("kernels.so")
    with pytest.raises(Exception, match="Cannot open"):
        session.download("kernels.so")


def test_virtual_machine(server, libraries, arch):
    session = server.connect()
    upload(session, libraries / f"network-{arch}.so", "network.so")
    vm = relax.VirtualMachine(session.load_module("network.so"), session.cpu())
    x = np.random.default_rng(0).standard_normal((4, 8), dtype="float32")
    vm.set_input("main", tvm.runtime.tensor(x, session.cpu()))
    vm.invoke_stateful("main")
    np.testing.assert_array_equal(vm.get_outputs("main")[0].numpy(), 2 * np.maximum(x, 0))
    assert vm.time_evaluator("invoke_stateful", session.cpu(), number=1, repeat=2)("main").mean > 0


def test_server_info(server, arch):
    session = server.connect()
    info = json.loads(session.get_function("tvm_shufflenet.server_info")())
    assert info["arch"] == arch and info["timer"] == "measured" and info["cpus"] >= 1 and info["kernel"]
    assert (info["tvm"], info["tvm_ffi"]) == (toolchain.TVM_VERSION, toolchain.FFI_VERSION)
    assert info["pid"] in server.sessions()


def test_a_receipt_says_what_arrived_and_is_sealed(server, libraries, arch):
    session = server.connect()
    upload_kernels(session, libraries, arch)
    digest, nanoseconds, seal = session.get_function("tvm_shufflenet.receipt")("kernels.so").split()
    assert digest == hashlib.sha256((libraries / f"kernels-{arch}.so").read_bytes()).hexdigest() and nanoseconds == "0"
    assert seal == hashlib.sha256(f"{digest} {nanoseconds}".encode()).hexdigest()


def test_there_is_no_receipt_for_what_did_not_arrive(server):
    with pytest.raises(Exception, match=r"No such file.*lost\.so"):
        server.connect().get_function("tvm_shufflenet.receipt")("lost.so")


def test_a_rehearsal_is_an_ordinary_session_where_the_clock_is_real(server):
    session = rpc.connect("127.0.0.1", server.port, " -rehearsal")
    assert json.loads(session.get_function("tvm_shufflenet.server_info")())["pid"] in server.sessions()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "uint8", "int32", "int64"])
def test_random_inputs(server, dtype):
    session = server.connect()
    tensor = tvm.runtime.empty((50, 30), dtype, session.cpu())
    session.get_function("tvm.contrib.random.random_fill_for_measure")(tensor)
    values = tensor.numpy().astype("float64")
    assert values.min() >= 1 and values.max() <= 10 and len(np.unique(values)) >= 9


def test_metaschedule_runner_steps(server, libraries, arch):
    """What MetaSchedule's runner does in a session, with the default function of each step."""
    session = server.connect()
    path = libraries / f"kernels-{arch}.so"
    upload(session, path, "kernels.so")
    kernels = session.load_module("kernels.so")
    (arguments,) = rpc_runner.default_alloc_argument(session, session.cpu(), [["TENSOR", "float32", [N]]] * 2, 1)
    kernels["add_one"](*arguments)
    np.testing.assert_array_equal(arguments[1].numpy(), arguments[0].numpy() + 1)
    rpc_runner.default_cleanup(session, "kernels.so")
    assert add_one_works(session, libraries, arch), "the session's folder is still there"


def test_a_second_upload_under_the_same_name_is_a_new_library(server, libraries, arch):
    session = server.connect()
    kernels = upload_kernels(session, libraries, arch)
    upload(session, libraries / f"network-{arch}.so", "kernels.so")
    relax.VirtualMachine(session.load_module("kernels.so"), session.cpu())  # not the kernels again
    b = tvm.runtime.tensor(np.zeros(N, "float32"), session.cpu())
    kernels["add_one"](b, b)  # and the first library is whole
    assert b.numpy()[0] == 1


def test_two_sessions_at_once_have_their_own_files(server, libraries, arch):
    first, second = server.connect(), server.connect()
    assert len(server.sessions()) == 2
    assert add_one_works(first, libraries, arch)
    with pytest.raises(Exception, match="upload it first"):
        second.load_module("kernels.so")
    assert add_one_works(second, libraries, arch)


def test_more_clients_than_sessions_wait_their_turn(start, libraries, arch):
    server = start("--max-sessions", 1)
    first = server.connect()
    served = []
    waiting = threading.Thread(target=lambda: served.append(server.connect()))
    waiting.start()
    waiting.join(0.3)
    assert not served and add_one_works(first, libraries, arch)
    del first
    waiting.join(60)
    assert len(served) == 1


def test_folder_and_process_of_a_session_end_with_it(server, libraries, arch, tmp_path):
    session = server.connect()
    assert add_one_works(session, libraries, arch)
    assert len(list((tmp_path / "work").iterdir())) == 1
    del session
    eventually(lambda: not server.sessions() and not list((tmp_path / "work").iterdir()), "session cleaned up")


# ------------------------------------------------------------------------------------------------ time limits


def spin(session: rpc.RPCSession, libraries: Path, arch: str):
    kernels = upload_kernels(session, libraries, arch)
    kernels["spin"](tvm.runtime.tensor(np.zeros(1, "float32"), session.cpu()))


def test_a_client_can_limit_its_session(server, libraries, arch):
    session = server.connect(session_timeout=1.5)
    started = time.monotonic()
    with pytest.raises(Exception, match=r"RPCSessionTimeoutError: Your 1\.5s session has expired"):
        spin(session, libraries, arch)
    assert 1 < time.monotonic() - started < 5
    eventually(lambda: not server.sessions(), "session ended")


def test_the_server_can_limit_every_session(start, libraries, arch):
    server = start("--session-timeout", 1)
    session = server.connect(session_timeout=100)
    eventually(lambda: not server.sessions(), "session ended")
    # A client that was idle when its session ended may see the closed connection before it reads the reason.
    with pytest.raises(Exception, match=r"Your 1s session has expired|reset by peer|Broken pipe"):
        session.get_function("tvm_shufflenet.server_info")()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_session_whose_client_left_in_mid_call_is_ended(server, libraries, arch):
    client = os.fork()
    if client == 0:  # a client process that dies while the device works for it
        signal.alarm(2)
        spin(server.connect(), libraries, arch)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(client, 0)[1]) == -signal.SIGALRM
    assert len(server.sessions()) == 1, "the kernel was still running"
    eventually(lambda: not server.sessions(), "session ended")


# ------------------------------------------------------------------------------------------------ refusals


def test_library_of_another_machine_is_refused(server, libraries, arch):
    session = server.connect()
    upload(session, libraries / f"kernels-{OTHER[arch]}.so", "foreign.so")
    names = {"x86_64": "x86-64", "aarch64": "aarch64"}
    with pytest.raises(Exception, match=f"library is built for {names[OTHER[arch]]}, this device is {names[arch]}"):
        session.load_module("foreign.so")
    session.upload(bytearray(b"not a library"), "text.so")
    with pytest.raises(Exception, match="not a shared library"):
        session.load_module("text.so")
    assert add_one_works(session, libraries, arch), "the session goes on"


@pytest.mark.parametrize("name", ["/tmp/escape.so", "../escape.so", "a/../../escape.so", "folder/name.so", "..", "."])
def test_file_names_cannot_leave_the_session(server, libraries, arch, name):
    session = server.connect()
    for call in (
        lambda: session.get_function("tvm.rpc.server.upload")(name, b"data"),
        lambda: session.download(name),
        lambda: session.remove(name),
        lambda: session.load_module(name),
    ):
        with pytest.raises(Exception, match="is refused: a plain name without folders is needed"):
            call()
    assert not Path("/tmp/escape.so").exists()


def test_a_crash_is_reported_and_ends_only_its_session(server, libraries, arch):
    survivor, session = server.connect(), server.connect()
    kernels = upload_kernels(session, libraries, arch)
    with pytest.raises(Exception, match="killed by signal 11"):
        kernels["crash"](tvm.runtime.tensor(np.zeros(1, "float32"), session.cpu()))
    assert add_one_works(survivor, libraries, arch)


# ------------------------------------------------------------------------------------------------ bad clients


def raw_client(server: RunningServer, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    client.sendall(data)
    return client


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<ii", base.RPC_MAGIC, 2**31 - 1),
        struct.pack("<ii", base.RPC_MAGIC, 4097),
        struct.pack("<ii", base.RPC_MAGIC, -1),
    ],
    ids=["http", "huge key", "key above the limit", "negative key"],
)
def test_garbage_instead_of_a_handshake(server, libraries, arch, data):
    # The server closes without having read all of it, so the client may see a reset.
    with closing(raw_client(server, data)) as client, suppress(ConnectionResetError):
        assert client.recv(1) == b""
    assert add_one_works(server.connect(), libraries, arch)


def test_silent_clients_stall_nobody(server, libraries, arch):
    silent = [raw_client(server, b""), raw_client(server, struct.pack("<ii", base.RPC_MAGIC, 9) + b"clie")]
    started = time.monotonic()
    assert add_one_works(server.connect(), libraries, arch)
    assert time.monotonic() - started < 2
    for client in silent:
        assert client.recv(1) == b"", "closed by the server"
        client.close()
    assert time.monotonic() - started < 4


def test_client_that_leaves_at_once(server, libraries, arch):
    for _ in range(20):
        raw_client(server, b"").close()
        raw_client(server, struct.pack("<i", base.RPC_MAGIC)).close()
    key = b"client:"
    for tail in (b"", b"\xff" * 100):  # after a good handshake: nothing, and garbage
        raw_client(server, struct.pack("<ii", base.RPC_MAGIC, len(key)) + key + tail).close()
    assert add_one_works(server.connect(), libraries, arch)
    eventually(lambda: not server.sessions(), "no process left")


def test_wrong_key_is_refused(start, libraries, arch):
    server = start("--key", "board")
    for key in ("", "other"):
        with pytest.raises(Exception, match="cannot find server that matches key"):
            server.connect(key)
    assert add_one_works(server.connect("board", session_timeout=60), libraries, arch)


# ------------------------------------------------------------------------------------------------ tracker


@pytest.fixture
def tracker():
    running = Tracker(host="127.0.0.1", port=19190, port_end=19990, silent=True)
    yield running
    running.terminate()


@contextmanager
def tracker_session(port: int):
    session = rpc.connect_tracker("127.0.0.1", port)
    try:
        yield session
    finally:
        session.close()


def free_devices(port: int, key: str) -> int:
    with tracker_session(port) as session:
        return session.summary()["queue_info"].get(key, {"free": 0})["free"]


def test_tracker_gives_the_device_again_after_every_session(start, libraries, arch, tracker):
    server = start("--tracker", f"127.0.0.1:{tracker.port}", "--key", "board")
    eventually(lambda: free_devices(tracker.port, "board") == 1, "device on offer")
    query = [sys.executable, "-m", "tvm.exec.query_rpc_tracker", "--host", "127.0.0.1", "--port", str(tracker.port)]
    listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"127\.0\.0\.1:{server.port}\s+server:board", listed), listed
    assert re.search(r"board\s+1\s+1\s+0", listed), listed

    with tracker_session(tracker.port) as client:
        for _ in range(2):
            session = client.request("board", session_timeout=60)
            assert free_devices(tracker.port, "board") == 0
            assert add_one_works(session, libraries, arch)
            with pytest.raises(Exception, match="cannot find server that matches key"):
                server.connect("board")  # only the key that the tracker gives away opens the door
            del session
    eventually(lambda: free_devices(tracker.port, "board") == 1, "device on offer again")
    assert not server.sessions()


def test_device_comes_back_with_the_tracker(start, libraries, arch):
    first = Tracker(host="127.0.0.1", port=19190, port_end=19990, silent=True)
    port = first.port
    start("--tracker", f"127.0.0.1:{port}", "--key", "board", "--custom-addr", "localhost")
    eventually(lambda: free_devices(port, "board") == 1, "device on offer")
    first.terminate()
    second = Tracker(host="127.0.0.1", port=port, port_end=port + 1, silent=True)
    try:
        eventually(lambda: free_devices(port, "board") == 1, "device on offer again")
        with tracker_session(port) as client:
            assert client.summary()["server_info"][0]["addr"][0] == "localhost"
            assert add_one_works(client.request("board"), libraries, arch)
    finally:
        second.terminate()


# ------------------------------------------------------------------------------------------------ life and death


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stop_leaves_nothing(start, libraries, arch, tmp_path, monkeypatch, how):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    own_folder = RunningServer(arch, tmp_path / "own.log")
    given_folder = start()
    clients = [server.connect() for server in (own_folder, given_folder)]
    assert all(add_one_works(client, libraries, arch) for client in clients)
    for server in (own_folder, given_folder):
        sessions = server.sessions()
        assert len(sessions) == 1
        server.process.send_signal(how)
        assert server.stop() == 0
        assert not any(running(pid) for pid in sessions)
        server.process.stdout.close()
    assert not list((tmp_path / "tmp").iterdir()) and not list((tmp_path / "work").iterdir())


def test_sessions_die_with_a_killed_server(server, libraries, arch):
    session = server.connect()
    assert add_one_works(session, libraries, arch)
    (pid,) = server.sessions()
    server.process.kill()
    server.process.wait()
    eventually(lambda: not running(pid), "session dead")


def test_a_port_that_is_taken(start, arch):
    taken = start().port
    assert start("--port", taken, "--port-end", taken + 20).port > taken
    command = start().process.args
    done = subprocess.run([*command, "--port", str(taken)], capture_output=True, text=True)
    assert done.returncode == 1 and f"cannot listen on 127.0.0.1:{taken}" in done.stderr


@pytest.mark.parametrize(
    "options, message",
    [
        (["--port", "x"], "--port needs a number from 0 to 65535, not 'x'"),
        (["--port"], "--port needs a value"),
        (["--fast"], "unknown option '--fast'"),
        (["--tracker", "127.0.0.1:9190"], "--tracker needs --key"),
        (["--tracker", "9190", "--key", "board"], "--tracker needs HOST:PORT"),
        (["--key", "two words"], "--key takes printable ASCII"),
        (["--session-timeout", "-1"], "--session-timeout needs a number of seconds"),
        (["--port", "9000", "--port-end", "9000"], "--port-end must be above --port"),
        (["--cost-socket", "x" * 200], "a socket's path has at most 107 characters"),
    ],
)
def test_usage_errors(options, message):
    done = subprocess.run([build.server_binary(build.HOST_ARCH), *options], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ""


# ------------------------------------------------------------------------------------------------ modelled clock


class CostService:
    """Answers every request with ``answer`` and keeps the requests: the wire contract, not a cost model."""

    def __init__(self, path: Path, answer: bytes):
        self.path, self.answer, self.requests = path, answer, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.connection: socket.socket | None = None
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        self.hang_up()
        self.thread.join()
        self.listener.close()

    def hang_up(self):
        with suppress(OSError, AttributeError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def serve(self):
        while True:
            try:
                self.connection, _ = self.listener.accept()
            except OSError:
                return
            with self.connection as connection, connection.makefile("rb") as lines:
                for line in lines:
                    self.requests.append(line.decode())
                    connection.sendall(self.answer)
                    if not self.answer:
                        break


@pytest.fixture
def modelled(start, tmp_path, libraries, arch):
    """Starts a server with a cost service that gives ``answer``; returns the service and a call that times add_one."""

    services = []

    def start_modelled(answer: bytes):
        service = CostService(tmp_path / "cost.sock", answer)
        services.append(service)
        session = start("--cost-socket", service.path).connect()
        kernels = upload_kernels(session, libraries, arch)
        a = tvm.runtime.tensor(np.zeros(N, "float32"), session.cpu())
        info = json.loads(session.get_function("tvm_shufflenet.server_info")())
        assert info["timer"] == "modelled"
        return service, info["pid"], lambda: kernels.time_evaluator("add_one", session.cpu(), number=2, repeat=3)(a, a)

    yield start_modelled
    for service in services:
        service.close()


def test_time_comes_from_the_cost_service(modelled):
    service, pid, measure = modelled(b"ok 123456\n")
    assert measure().results == pytest.approx([123456e-9 / 2] * 3, rel=1e-12)
    assert service.requests == ["core\n", *(f"price {pid} {k}\n" for k in (1, 2, 3))]


@pytest.mark.parametrize(
    "answer, message",
    [
        (b"error no llvm-mca on this machine\n", "no modelled time: no llvm-mca on this machine"),
        (b"ok 0\n", "no modelled time: the cost service answered ok 0"),
        (b"ok 12 or so\n", "answered ok 12 or so"),
        (b"", "closed the connection without an answer"),
    ],
)
def test_no_time_without_a_price(modelled, answer, message):
    service, pid, measure = modelled(answer)
    for k in (1, 2):  # the session survives the error
        with pytest.raises(Exception, match=message):
            measure()
        assert service.requests[-1] == f"price {pid} {k}\n"


def test_cost_service_that_is_gone(modelled):
    service, _, measure = modelled(b"ok 1\n")
    service.path.unlink()
    service.hang_up()
    with pytest.raises(Exception, match="closed the connection without an answer"):
        measure()
    with pytest.raises(Exception, match="cannot be reached: No such file or directory"):
        measure()


# ------------------------------------------------------------------------------------------------ build


def test_bundle_runs_from_anywhere(tmp_path, arch, monkeypatch):
    program = build.server_bundle(arch, tmp_path / "board")
    assert sorted(path.name for path in program.parent.iterdir()) == sorted([build.SERVER, *build.LIBS, "licences"])
    monkeypatch.setattr(build, "server_binary", lambda _: program)
    server = RunningServer(arch, tmp_path / "log")
    assert json.loads(server.connect().get_function("tvm_shufflenet.server_info")())["arch"] == arch
    assert server.stop() == 0
    server.process.stdout.close()


def test_compiler_errors_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-include", "missing_header.h"))
    monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path))
    with pytest.raises(LinkFailed, match=r"missing_header\.h"):
        build.server_binary(build.HOST_ARCH)
    assert not list(tmp_path.glob("*device-server*/*"))


def test_runtime_of_another_machine_or_place(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="no device server for 'mips'"):
        build.runtime_libs("mips")
    monkeypatch.setenv("TVM_SHUFFLENET_RUNTIME_AARCH64", str(build.runtime_libs("x86_64")))
    with pytest.raises(ToolMissing, match=r"is not a library for aarch64.*unset TVM_SHUFFLENET_RUNTIME_AARCH64"):
        build.runtime_libs("aarch64")
    monkeypatch.setenv("TVM_SHUFFLENET_RUNTIME_AARCH64", str(tmp_path))
    with pytest.raises(ToolMissing, match="incomplete"):
        build.runtime_libs("aarch64")


def test_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ToolMissing, match="could not be downloaded") as caught:
        build.runtime_libs(OTHER[build.HOST_ARCH])
    assert "TVM_SHUFFLENET_RUNTIME_" in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock" and path.name != toolchain.IN_USE]


def test_nothing_heavy_is_imported():
    code = "import sys, tvm_shufflenet.server.build; print({'tvm', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "set()", done.stderr
