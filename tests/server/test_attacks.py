"""What code in a session can do to the server, to other sessions and to the machine: nothing of attacks.c."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pty
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tvm import rpc
from tvm.rpc import base

from helpers.cross import zig_cc
from helpers.servers import TRIPLES, RunningServer, eventually, servers, session_info, status_of
from tvm_shufflenet.devices.emulated import EmulatedDevice
from tvm_shufflenet.devices.proof import KNOCK, OPEN
from tvm_shufflenet.hardware.boards import find_board
from tvm_shufflenet.server import build
from tvm_shufflenet.support import toolchain

HOST = build.HOST_ARCH
SOURCE = Path(__file__).with_name("attacks.c")
# As root all the same, and as somebody else.
USERS = {"root": [], "nobody": ["--user", "nobody"]} if os.geteuid() == 0 else {"own user": []}
CANARY = Path("/tmp/tvm-shufflenet-attack-canary")


def names(text: str) -> list[str]:
    return text.split()


ON_PROCESSES = names("""
    kill_one tgkill_one tkill_one queue_signal queue_signal_to_thread read_limits_of_others limit_others slow_down
    schedule_others set_parameters_of_others set_attributes_of_others pin_others set_io_priority_of_others trace
    open_process read_memory write_memory read_environment read_maps sacrifice write_process_memory signal_by_file
    signal_by_file_owner
""")
ON_OTHERS = names("""
    kill_group kill_all fork_one share_memory_with_child clone_by_structure become_dumpable outlive_the_server
    let_others_trace raise_limits new_session become_root ask_personality choose_signal_of_file signal_when_ready
    watch_folder lease lock_file lock_record type_on_stderr type_on_stdin open_terminal cut_log is_terminal
    shared_memory semaphores message_queue posix_queue posix_shared_memory memory_file key lock_memory timer
    event_file watch_files pipe_pair new_socket new_local_socket pair_of_sockets send_elsewhere send_message
    set_socket_option ring mount_something
""")
ON_FILES = names("""
    write_file write_unnamed_file open_by_structure append_to_file empty_file cut_file make_folder make_fifo
    make_link make_hard_link set_times set_attribute remove_file rename_file hide_folder rename_folder
    user_name_space
""")
# Of these, what any process may do that nobody confines: the same attempts then succeed, or the tests show nothing.
SUCCEED_OTHERWISE = names("""
    kill_one tgkill_one tkill_one queue_signal queue_signal_to_thread read_limits_of_others limit_others slow_down
    schedule_others set_parameters_of_others set_attributes_of_others pin_others set_io_priority_of_others
    open_process signal_by_file signal_by_file_owner kill_group fork_one become_dumpable outlive_the_server
    raise_limits become_root ask_personality choose_signal_of_file signal_when_ready watch_folder lock_file
    lock_record shared_memory semaphores message_queue posix_shared_memory memory_file key timer event_file
    watch_files pipe_pair new_socket new_local_socket pair_of_sockets send_elsewhere send_message set_socket_option
    write_file open_by_structure append_to_file empty_file cut_file make_folder make_fifo make_link make_hard_link
    set_times remove_file hide_folder rename_folder
""")


def landlock_version() -> int:
    """0 where this machine's kernel has none."""
    return max(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1), 0)


WITH_LANDLOCK = pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")


@pytest.fixture(scope="module")
def attacks(tmp_path_factory) -> dict[str, Path]:
    """The library for each machine."""
    folder = tmp_path_factory.mktemp("attacks")
    for arch in TRIPLES:
        command = zig_cc(f"{TRIPLES[arch]}.2.28", "-shared")
        (folder / arch).mkdir()
        subprocess.run([*command, "-fPIC", "-o", folder / arch / "attacks.so", SOURCE, "-lpthread"], check=True)
    return {arch: folder / arch / "attacks.so" for arch in TRIPLES}


@pytest.fixture(scope="module", params=USERS)
def server(request, tmp_path_factory) -> Iterator[RunningServer]:
    with servers(HOST, tmp_path_factory.mktemp("server"), *USERS[request.param]) as start:
        yield start("--seccomp", "on")


class Attacker:
    """A session that has loaded the library, and its process."""

    def __init__(self, session: rpc.RPCSession, library: Path):
        self.session = session
        session.upload(bytearray(library.read_bytes()), "attacks.so")
        self.module = session.load_module("attacks.so")
        self.pid = session_info(session)["pid"]

    def attempt(self, name: str, argument: int = 0) -> int:
        return self.module[name](argument)

    def attempts(self, names: list[str], argument: int = 0) -> dict[str, int]:
        return {name: self.attempt(name, argument) for name in names}


def attacker(server: RunningServer, attacks: dict[str, Path]) -> Attacker:
    return Attacker(server.connect(), attacks[server.arch])


def state_of(pid: int) -> tuple:
    """What an attack on a process would have changed."""
    process = psutil.Process(pid)
    scheduling = os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority, process.nice(), process.ionice()
    limits = Path(f"/proc/{pid}/limits").read_text()
    return *scheduling, process.cpu_affinity(), limits, process.status() == "zombie"


def test_nobody_else_is_reached(server, attacks):
    """Not the server, no other session, no other process of the machine."""
    own, other = attacker(server, attacks), attacker(server, attacks)
    victims = [server.process.pid, other.pid, os.getpid()]
    before = [state_of(pid) for pid in victims]
    for victim in victims:
        results = own.attempts(ON_PROCESSES, victim)
        assert {name: code for name, code in results.items() if code not in (-errno.EPERM, -errno.EACCES)} == {}
    assert [state_of(pid) for pid in victims] == before
    assert session_info(other.session)["pid"] == other.pid and server.process.poll() is None


def test_nothing_is_made_that_stays_or_that_no_limit_counts(server, attacks):
    own = attacker(server, attacks)
    results = own.attempts([*ON_OTHERS, *ON_FILES])
    unknown_to_it = {name: results.pop(name) for name in ("clone_by_structure", "open_by_structure")}
    assert set(unknown_to_it.values()) == {-errno.ENOSYS}, "so that the C library takes what a filter can check"
    assert {name: code for name, code in results.items() if code >= 0} == {}
    assert own.attempt("pin_itself") == 0, "its own threads may be bound to cores"
    assert own.session.listdir(".").split(",") in (
        ["attacks.so", "loaded-1-attacks.so"],
        ["loaded-1-attacks.so", "attacks.so"],
    )


@pytest.mark.parametrize("user", USERS)
def test_without_the_filter_they_succeed(user, attacks, tmp_path):
    with servers(HOST, tmp_path, *USERS[user]) as start:
        server = start("--seccomp", "off")
        own, other = attacker(server, attacks), attacker(server, attacks)
        # Looked into, they are not: that is no matter of system calls. And the last attempts kill the other session.
        for victim in (server.process.pid, other.pid):
            inside = own.attempts(names("read_memory write_memory read_environment read_maps trace"), victim)
            assert set(inside.values()) <= {-errno.EPERM, -errno.EACCES}
        try:
            results = own.attempts(ON_PROCESSES, other.pid) | own.attempts([*ON_OTHERS, *ON_FILES])
        finally:
            Path("/dev/shm/attack").unlink(missing_ok=True)
        assert {name: results[name] for name in SUCCEED_OTHERWISE if results[name] < 0} == {}
        libc, remove = ctypes.CDLL(None), 0  # IPC_RMID
        libc.shmctl(results["shared_memory"], remove, None)
        libc.semctl(results["semaphores"], 0, remove)
        libc.msgctl(results["message_queue"], remove, None)


@WITH_LANDLOCK
def test_the_user_s_files_are_not_read(server, attacks):
    CANARY.write_text("secret")
    CANARY.chmod(0o644)
    try:
        own = attacker(server, attacks)
        assert own.attempt("open_canary") == -errno.EACCES and own.attempt("list_home") == -errno.EACCES
    finally:
        CANARY.unlink()


def test_there_are_so_many_threads_and_no_more(server, attacks):
    own, other = attacker(server, attacks), attacker(server, attacks)
    assert own.attempt("count_threads", 100) == 100
    assert 200 <= own.attempt("count_threads", 5000) <= 256
    assert other.attempt("count_threads", 100) == 100, "each session has its own number"
    assert own.attempt("count_threads", 100) == 100, "those that ended do not count"


def test_what_is_mapped_counts_as_long_as_it_takes_room(attacks, tmp_path):
    with servers(HOST, tmp_path, "--work-dir", tmp_path / "work") as start:
        own = attacker(start("--session-disk", 6), attacks)
        (folder,) = (tmp_path / "work").iterdir()
        for _ in range(20):
            own.session.upload(bytearray(1 << 19), "ballast")
            assert own.attempt("map_file") == 0
            own.session.remove("ballast")
        held = [line for line in Path(f"/proc/{own.pid}/maps").read_text().splitlines() if "ballast" in line]
        assert len(held) == 20 and all("(deleted)" in line for line in held)
        sizes = [os.stat(path).st_blocks for path in map_files(own.pid) if "ballast" in os.readlink(path)]
        assert sum(sizes) == 0, "they are empty"
        with pytest.raises(Exception, match="has 256 files"):
            for number in range(300):
                own.session.upload(bytearray(), f"empty-{number}")
        assert len(list(folder.iterdir())) <= 256


def map_files(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/map_files").iterdir())
    except PermissionError:  # root's alone
        return []


def test_many_small_files_take_room_too(attacks, tmp_path):
    with servers(HOST, tmp_path) as start:
        session = start("--session-disk", 1).connect()
        with pytest.raises(Exception, match="--session-disk allows"):
            for number in range(400):
                session.upload(bytearray(1), f"small-{number}")


# The filter itself, for both machines: numbers of calls, then what it says to them. Process 1234 is the session.
NUMBERS = {
    "x86_64": {"read": 0, "openat": 257, "clone": 56, "kill": 62, "prlimit64": 302, "fcntl": 72, "ioctl": 16,
               "prctl": 157, "sendto": 44, "execve": 59, "socket": 41, "clone3": 435, "setpriority": 141, "tkill": 200,
               "shmget": 29, "unlinkat": 263, "sched_setaffinity": 203, "rt_sigqueueinfo": 129,
               "connect": 42, "newer": 460},
    "aarch64": {"read": 63, "openat": 56, "clone": 220, "kill": 129, "prlimit64": 261, "fcntl": 25, "ioctl": 29,
                "prctl": 167, "sendto": 206, "execve": 221, "socket": 198, "clone3": 435, "setpriority": 140,
                "tkill": 130, "shmget": 194, "unlinkat": 35, "sched_setaffinity": 122, "rt_sigqueueinfo": 138,
                "connect": 203, "newer": 460},
}  # fmt: skip
THREAD = 0x3D0F00  # as glibc makes them
ALLOW, KILL, EPERM_, ENOSYS_ = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
VERDICTS = [
    ("read", (), ALLOW, ALLOW),
    ("openat", (0, 0, os.O_CLOEXEC), ALLOW, ALLOW),
    ("openat", (0, 0, os.O_RDWR), EPERM_, ALLOW),
    ("openat", (0, 0, os.O_CREAT), EPERM_, ALLOW),
    ("openat", (0, 0, os.O_WRONLY | os.O_TRUNC), EPERM_, ALLOW),
    ("clone", (THREAD,), ALLOW, ALLOW),
    ("clone", (17,), EPERM_, EPERM_),
    ("clone", (THREAD | 0x10000000,), EPERM_, EPERM_),
    ("clone", (THREAD & ~0x100,), EPERM_, EPERM_),
    ("kill", (1234,), ALLOW, ALLOW),
    ("kill", (1235,), EPERM_, EPERM_),
    ("kill", (2**32 - 1,), EPERM_, EPERM_),
    ("rt_sigqueueinfo", (1,), EPERM_, EPERM_),
    ("tkill", (1234,), EPERM_, EPERM_),
    ("prlimit64", (0, 7, 0, 1), ALLOW, ALLOW),
    ("prlimit64", (1234, 7, 0, 1), ALLOW, ALLOW),
    ("prlimit64", (0, 7, 1 << 40, 0), EPERM_, EPERM_),
    ("prlimit64", (1, 7, 0, 1), EPERM_, EPERM_),
    ("fcntl", (3, 3), ALLOW, ALLOW),
    ("fcntl", (3, 8), EPERM_, EPERM_),
    ("ioctl", (3, 0x541B), ALLOW, ALLOW),
    ("ioctl", (3, 0x5412), EPERM_, EPERM_),
    ("ioctl", (3, 0x1_0000_5412), EPERM_, EPERM_),
    ("prctl", (15,), ALLOW, ALLOW),
    ("prctl", (4, 1), EPERM_, EPERM_),
    ("sendto", (3, 1, 1, 0, 0), ALLOW, ALLOW),
    ("sendto", (3, 1, 1, 0, 1 << 32), EPERM_, EPERM_),
    ("unlinkat", (), EPERM_, ALLOW),
    ("sched_setaffinity", (99,), ALLOW, EPERM_),  # supervised where it is allowed
    ("sched_setaffinity", (0,), ALLOW, ALLOW),
    *((name, (), EPERM_, EPERM_) for name in ("execve", "socket", "connect", "setpriority", "shmget")),
    *((name, (), ENOSYS_, ENOSYS_) for name in ("clone3", "newer")),
]  # fmt: skip


def verdict(program: list[tuple[int, ...]], number: int, arch: int, words: tuple[int, ...]) -> int:
    """What the kernel's machine makes of a filter: the instructions that ours consist of."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*words, *[0] * 6)[:6])
    at, value = 0, 0
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        if code == 0x20:
            value = int.from_bytes(data[k : k + 4], "little")
        elif code == 0x54:
            value &= k
        elif code == 0x06:
            return k
        else:
            at += if_true if {0x15: value == k, 0x35: value >= k}[code] else if_false


@pytest.mark.parametrize("arch", NUMBERS)
def test_the_filter_says_the_same_on_both_machines(arch, tmp_path):
    qemu = [] if arch == HOST else [toolchain.find_qemu().path, "-L", toolchain.find_sysroot().path]
    if None in qemu:
        pytest.skip("needs an emulator of another machine")
    command = zig_cc(f"{TRIPLES[arch]}.2.28", "-iquote", build.NATIVE)
    subprocess.run([*command, "-o", tmp_path / "dump", SOURCE.with_name("filter_dump.c")], check=True)
    lines = subprocess.run([*qemu, tmp_path / "dump"], capture_output=True, text=True, check=True).stdout.splitlines()
    filters = [[tuple(map(int, one.split())) for one in line.split(",")] for line in lines]
    own, other = (0xC000003E, 0x40000003) if arch == "x86_64" else (0xC00000B7, 0x40000028)
    for name, words, *expected in VERDICTS:
        number = NUMBERS[arch][name]
        assert [verdict(program, number, own, words) for program in filters] == expected, (name, words)
        assert {verdict(program, number, other, words) for program in filters} == {KILL}, "a 32-bit program's call"


# The environment, the terminal, the log


@pytest.mark.parametrize("options", [[], ["--seccomp", "off"]], ids=["confined", "not"])
def test_the_server_s_environment_stays_with_it(attacks, tmp_path, monkeypatch, options):
    monkeypatch.setenv("AN_ACCESS_TOKEN", "canary" * 100)
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    with servers(HOST, tmp_path) as start:
        server = start(*options)
        assert attacker(server, attacks).attempt("environment_bytes") == 0
        assert b"canary" not in Path(f"/proc/{server.process.pid}/environ").read_bytes()


def test_a_session_has_no_terminal(attacks, tmp_path):
    """Not the one that the server was started on either."""
    controller, terminal = pty.openpty()
    command = [str(build.server_binary(HOST)), "--allow-root", "--seccomp", "off"]
    process = subprocess.Popen(
        command, stdin=terminal, stderr=terminal, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, 0x540E, 0),  # TIOCSCTTY
    )  # fmt: skip
    try:
        port = int(process.stdout.readline().rpartition(":")[2])
        own = Attacker(rpc.connect("127.0.0.1", port), attacks[HOST])
        assert os.getsid(own.pid) == own.pid != os.getsid(process.pid)
        assert own.attempt("open_terminal") == -errno.ENXIO and own.attempt("type_on_stdin") < 0
        assert Path(f"/proc/{own.pid}/fd/0").readlink() == Path("/dev/null")
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
        os.close(controller)
        os.close(terminal)


def test_what_a_session_prints_is_cleaned_and_bounded(attacks, tmp_path):
    with servers(HOST, tmp_path) as start:
        server = start()
        own = attacker(server, attacks)
        assert own.attempt("print", 1) == 0
        eventually(lambda: "????" in server.log.read_text(), "it is passed on")
        assert own.attempt("print", 2000) == 0
        eventually(lambda: "what else it prints is left out" in server.log.read_text(), "no more")
        assert own.attempt("is_terminal") < 0
        text = server.log.read_bytes()
        assert b"\x1b" not in text and len(text) < 1 << 19


# What sessions leave


@pytest.mark.parametrize(
    ("name", "argument"),
    [("nest_folders", 1200), ("hide_folder", 0), ("rename_folder", 0), ("make_folder", 0), ("make_fifo", 0)],
)
@pytest.mark.parametrize("user", USERS)
def test_folders_are_removed_however_they_were_left(user, attacks, tmp_path, name, argument):
    """Without the filter, since with it there are no such folders."""
    work = Path(tempfile.mkdtemp(prefix="tvm-shufflenet-left-"))  # which another user reaches
    with servers(HOST, tmp_path, "--work-dir", work, *USERS[user]) as start, removed(work):
        server = start("--seccomp", "off")
        own = attacker(server, attacks)
        assert own.attempt(name, argument) == 0
        del own
        started = time.monotonic()
        assert session_info(server.connect()) and time.monotonic() - started < 2, "the server is not busy with it"
        eventually(lambda: not list(work.iterdir()), "removed", 60)


@contextlib.contextmanager
def removed(folder: Path) -> Iterator[None]:
    """In the end, by a program that has no fear of depth, as pytest has."""
    try:
        yield
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def test_a_killed_server_leaves_no_folder_of_a_session(attacks, tmp_path):
    with servers(HOST, tmp_path, "--work-dir", tmp_path / "work") as start:
        server = start()
        own = attacker(server, attacks)
        assert list((tmp_path / "work").iterdir())
        server.process.kill()
        eventually(lambda: not list((tmp_path / "work").iterdir()), "its keeper removes it")
        del own


# Places


def greeting(key: str = "client:") -> bytes:
    return struct.pack("<ii", base.RPC_MAGIC, len(key)) + key.encode()


def connected(server: RunningServer, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    client.sendall(data)
    return client


def test_who_waits_for_a_session_takes_nobody_s_place(tmp_path):
    with servers(HOST, tmp_path) as start, contextlib.ExitStack() as stack:
        server = start("--max-sessions", 1)

        def client() -> socket.socket:
            return stack.enter_context(connected(server, greeting()))

        first = client()
        assert first.recv(4)
        waiting = [client() for _ in range(64)]
        assert stack.enter_context(connected(server, KNOCK)).recv(4) == OPEN, "it still listens"
        assert client().recv(1) == b"", "there is no room for more, which is said at once"
        for one in waiting:
            one.close()
        patient = client()  # those that have left have left their places
        first.close()
        assert patient.recv(4)


def test_silent_clients_leave_room(tmp_path):
    with servers(HOST, tmp_path) as start, contextlib.ExitStack() as stack:
        server = start()
        for _ in range(200):
            stack.enter_context(connected(server, b""))
        started = time.monotonic()
        assert session_info(server.connect()) and time.monotonic() - started < 1


def test_out_of_memory_it_is_a_session_that_ends(tmp_path):
    with servers(HOST, tmp_path) as start:
        server = start()
        session = server.connect()
        score = {
            pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (server.process.pid, *server.sessions())
        }
        assert score.pop(server.process.pid) < 1000 and set(score.values()) == {1000}
        assert session_info(session)


# The emulated path


@pytest.fixture(scope="module")
def emulated() -> Iterator[EmulatedDevice]:
    if any(tool.path is None for tool in toolchain.all_tools()):
        pytest.skip("needs the tools of the emulated core")
    with EmulatedDevice(find_board("cortex-a72")) as device:
        yield device


def test_an_emulated_session_reaches_nobody(emulated, attacks):
    session = emulated.endpoint().connect(60)
    own = Attacker(session, attacks["aarch64"])
    status = status_of(own.pid)
    assert status["Seccomp"] == "2" and int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1"
    other = emulated.endpoint().connect(60)
    victims = [psutil.Process(own.pid).ppid(), session_info(other)["pid"], emulated._emulator._process.pid, os.getpid()]
    before = [state_of(pid) for pid in victims]
    names = [name for name in ON_PROCESSES if name != "read_limits_of_others"]
    for victim in victims:
        assert {name: code for name, code in own.attempts(names, victim).items() if code >= 0} == {}
    assert [state_of(pid) for pid in victims] == before
    made = own.attempts([name for name in ON_OTHERS if name not in ("memory_file", "is_terminal")])
    assert {name: code for name, code in made.items() if code >= 0} == {}
    assert session_info(other)["timer"] == "modelled"


@WITH_LANDLOCK
def test_an_emulated_session_keeps_to_its_emulator_s_folder(emulated, attacks):
    CANARY.write_text("secret")
    try:
        own = Attacker(emulated.endpoint().connect(60), attacks["aarch64"])
        for name in ("open_canary", "posix_shared_memory", "list_home"):
            assert own.attempt(name) == -errno.EACCES, name
        assert own.attempt("write_file") == 1, "its own folder is its own"
    finally:
        CANARY.unlink()


def test_an_emulated_session_prices_its_own_counts(emulated):
    folder = emulated._emulator._folder
    with socket.socket(socket.AF_UNIX) as service:
        service.connect(f"{folder}/cost.sock")
        pid = session_info(emulated.endpoint().connect(60))["pid"]
        service.sendall(f"price {pid} 1\n".encode())
        assert service.recv(200).startswith(b"error the cost service does not know the request")


def test_an_emulated_core_rehearses_once(emulated):
    """A rehearsal runs in the server's own process: after the first session nobody has one."""
    from dataclasses import replace

    session = replace(emulated.endpoint(), rehearsal=True).connect(60)
    assert (
        psutil.Process(session_info(session)["pid"]).name()
        and status_of(session_info(session)["pid"])["Seccomp"] == "2"
    )
