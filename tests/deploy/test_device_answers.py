"""Devices that lie, flood and confuse: what they say is bounded, cleaned and judged on the host."""

from __future__ import annotations

import json
import re
import resource
import shlex
import struct
import sys
import time

import msgspec
import numpy as np
import pytest

from helpers.tiny_packages import answers, manifest
from tvm_shufflenet.deploy.answer import checksum, read_report
from tvm_shufflenet.deploy.deployment import Settings, deploy
from tvm_shufflenet.devices import handshake
from tvm_shufflenet.errors import BadInput, DeployError, DeviceFailed, PackageInvalid, WrongResult
from tvm_shufflenet.packages.package import Package, write_package
from tvm_shufflenet.report.documents import DeployedDocument
from tvm_shufflenet.transport import adb_client
from tvm_shufflenet.transport.remote import Completed, ConnectionLost, Remote, number, run_program

HEADER = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 183) + bytes(44)
REFERENCE = np.random.default_rng(0).standard_normal((1, 50), dtype=np.float32)
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31mpi\u202e\r"
FACTS = {
    "schema": 1,
    "model": "tiny",
    "device": {"model": "Board", "kernel": "6.1", "governor": None, "cores": [{"cpu": 0, "part": "0xd08"}]},
    "threads": 1,
    "affinity": [0],
    "latency_us": {"median": 2.0, "min": 1.0, "p90": 3.0, "p99": 4.0, "samples": 30},
    "cold_us": 5.0,
    "peak_memory_bytes": 1000,
    "operators": [{"name": "conv", "median_us": 1.0}],
    "output": {"checksum": checksum(REFERENCE), "expected": checksum(REFERENCE), "ok": True},
}


class Device(Remote):
    """One whose shell answers what it is told to, by the first of ``answers`` whose pattern is in the command."""

    name, folder = "ssh://liar", "/dev"

    def __init__(self, **answers):
        self.answers = answers

    def shell(self, script: str, limit_s: float = 60, limit_bytes: int = 0) -> Completed:
        kind = next(kind for kind, words in KINDS.items() if re.search(words, script))
        answer = self.answers.get(kind, HONEST.get(kind, ""))
        answer = answer if isinstance(answer, Completed) else Completed(0, answer, "")
        if len(answer.output) > limit_bytes > 0:
            raise DeviceFailed("more than was asked for")
        return answer

    def append(self, source, offset, path):
        pass


KINDS = {"machine": "uname", "bench": "_bench --json", "values": "od -An", "hashes": "sha256sum ", "sizes": "wc -c",
         "room": "df ", "other": ""}  # fmt: skip


def in_hex(values: np.ndarray) -> str:
    return "".join(f" {byte:02x}" + "\n" * (place % 16 == 15) for place, byte in enumerate(values.tobytes()))


HONEST = {"machine": "aarch64\n", "bench": json.dumps(FACTS), "values": in_hex(REFERENCE), "sizes": "0\n"}


@pytest.fixture
def package(tmp_path) -> Package:
    (tmp_path / "lib.so").write_bytes(HEADER)
    facts = manifest(output=REFERENCE.shape)
    more = {"tiny_bench": tmp_path / "lib.so"}
    return write_package(tmp_path / "tiny", tmp_path / "lib.so", answers(REFERENCE), facts, more)


@pytest.fixture
def deployed(package):
    """Deploys to a device with these answers; where that fails, nothing was noted in the package."""
    hashes = "".join(f"{digest}  ./{name}\n" for name, digest in package.manifest.hashes.items())

    def run(**answers):
        try:
            sizes = "0\n" * (len(package.manifest.hashes) + 1)
            done = deploy(package, Device(**{"hashes": hashes, "sizes": sizes} | answers), Settings())
        except DeployError:
            assert not Package(package.path).manifest.timings
            raise
        return done

    return run


def facts(**changes) -> str:
    return json.dumps(FACTS | changes)


def output(**changes) -> str:
    return facts(output=FACTS["output"] | changes)


# The output


def test_an_honest_device_is_believed(deployed, package):
    assert deployed().timing.latency_us["median"] == 2.0
    near = REFERENCE + np.float32(5e-5)
    assert deployed(bench=output(checksum=checksum(near)), values=in_hex(near)).output.ok
    assert len(Package(package.path).manifest.timings) == 1


@pytest.mark.parametrize(
    "answers",
    [
        {"bench": output(checksum=1e6)},
        {"bench": output(checksum=checksum(REFERENCE) + 1)},
        {"bench": output(checksum=5.0, expected=5.0)},
        {"bench": output(ok=False)},
        {"bench": Completed(5, facts(), "")},
        {"values": in_hex(np.where(np.arange(50) == 7, np.float32(9), REFERENCE))},
        {"values": in_hex(np.where(np.arange(50) == 7, np.float32("nan"), REFERENCE))},
        {"values": in_hex(REFERENCE[:, ::-1].copy())},
        {"bench": output(checksum=checksum(REFERENCE) + 5e-3)},
    ],
)
def test_a_device_that_contradicts_itself_is_wrong(deployed, answers):
    with pytest.raises(WrongResult, match="computes something else on ssh://liar"):
        deployed(**answers)


@pytest.mark.parametrize("values", ["", "00 11", "zz" * 200, in_hex(REFERENCE)[:-9], in_hex(REFERENCE) * 2, "é" * 10])
def test_an_output_of_another_size_is_no_output(deployed, values):
    with pytest.raises(DeviceFailed, match=r"shows \d+ bytes of output, the network has 200"):
        deployed(values=values)


def test_the_checksum_is_the_benchmark_s():
    """Sums of C, from `bench.c`'s own loop."""
    state, total = 1, 0.0
    for value in REFERENCE.reshape(-1):
        state = (state * 1664525 + 1013904223) % 2**32
        total += float(value) * (1 + state / 4294967296)
    assert checksum(REFERENCE) == pytest.approx(total, rel=1e-12)
    assert checksum(REFERENCE[:, :1]) == pytest.approx(float(REFERENCE[0, 0]) * (1 + 1015568748 / 2**32))


# The report


@pytest.mark.parametrize(
    "said",
    [
        "",
        "hello",
        "{}",
        "[" * 100_000,
        '{"a":' * 100_000,
        facts(device={"cores": [[[]]] * 3}),
        facts(device={"model": {"a": 1}}),
        facts(operators=[{"name": "x", "median_us": 1.0}] * 5000),
        facts(operators=[{"name": "x", "median_us": -1.0}]),
        facts(threads=7),
        facts(threads="one"),
        facts(schema=2),
        facts(cold_us=-1),
        facts(peak_memory_bytes=10**18),
        facts(latency_us=FACTS["latency_us"] | {"median": 0}),
        facts(latency_us=FACTS["latency_us"] | {"median": 9.0}),
        facts(latency_us=FACTS["latency_us"] | {"samples": 3}),
        facts(latency_us={key: 1e8 for key in FACTS["latency_us"]} | {"samples": 30}),
        facts().replace("2.0", "NaN"),
        facts().replace("5.0", "Infinity"),
        facts().replace("4.0", "1e999"),
        facts().replace("1000", "1" * 5000),
    ],
)
def test_a_report_that_cannot_be_is_no_report(deployed, said):
    with pytest.raises(DeviceFailed, match="with no report") as error:
        deployed(bench=said)
    assert len(str(error.value)) < 1000


def test_a_report_of_another_model(deployed):
    with pytest.raises(PackageInvalid, match="is of other"):
        deployed(bench=facts(model="other"))


def test_what_a_device_says_of_itself_is_cleaned(deployed, package):
    said = facts(device={"model": EVIL, "kernel": EVIL + "x" * 5000, "governor": "[/bold]"},
                 operators=[{"name": EVIL, "median_us": 1.0}])  # fmt: skip
    done = deployed(bench=said)
    assert done.timing.device["model"] == "pi??" and len(done.timing.device["kernel"]) == 200
    written = (package.folder / "manifest.json").read_text() + msgspec.json.encode(DeployedDocument.of(done)).decode()
    assert not set(written) & set("\x1b\x07\x9b") and "u001b" not in written and "owned" not in written


def test_old_phones_may_append_what_they_complain_of():
    assert read_report("warning\n" + facts() + 'linker: [x] "y', "phone", "tiny_bench").threads == 1


# The shell


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"machine": ""}, "does not say what machine it is"),
        ({"machine": " \n \n"}, "does not say what machine it is"),
        ({"machine": "\x1b[31m" + "x" * 10_000}, "is built for aarch64"),
        ({"sizes": ""}, "does not say how long its files are"),
        ({"sizes": "² ² ² ²"}, "does not say how long its files are"),
        ({"sizes": "9" * 5000}, "does not say how long its files are"),
        ({"bench": Completed(1, "", EVIL)}, "exit code 1: pi"),
        ({"bench": Completed(132, "", "")}, "signal 4"),
        ({"other": Completed(1, EVIL, "")}, "cannot write to"),
    ],
)
def test_empty_and_confusing_answers(deployed, answers, words):
    with pytest.raises(DeployError, match=words) as error:
        deployed(**answers)
    assert len(str(error.value)) < 1000 and not set(str(error.value)) & set("\x1b\x07\x9b\u202e\r")


@pytest.mark.parametrize("room", ["x\n/dev ² ² ² 1%", "Filesystem\n/dev 1 1 x", "\n", "a b c " + "9" * 5000])
def test_a_df_that_says_nothing_is_passed_over(deployed, room):
    assert deployed(room=room).output.ok


@pytest.mark.parametrize(("text", "value"), [("12\n", 12), ("²", None), ("٣", None), ("-1", None), ("1" * 30, None)])
def test_numbers(text, value):
    assert number(text) == value


# Programs that talk to devices

FLOOD = "import os\nwhile True: os.write({}, b'x' * 65536)"


@pytest.mark.parametrize("pipe", [1, 2])
def test_a_flood_is_cut_off(pipe):
    """1.2 GB would take seconds to read; this is over at the limit, and the program is gone."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DeviceFailed, match="answers with more than"):
        run_program([sys.executable, "-c", FLOOD.format(pipe)], 60)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_drip_is_no_answer():
    drip = "import sys, time\nwhile True: print('x', flush=True); time.sleep(0.05)"
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match="has not answered for 1 s"):
        run_program([sys.executable, "-c", drip], 1)
    assert time.monotonic() - started < 10


def test_a_program_that_closes_its_pipes_and_stays():
    script = "import os, time; os.close(1); os.close(2); time.sleep(60)"
    with pytest.raises(ConnectionLost):
        run_program([sys.executable, "-c", script], 1)


def test_both_pipes_are_read_and_the_exit_code_kept():
    script = "import sys; print('out' * 50000); print('err' * 50000, file=sys.stderr); sys.exit(3)"
    done = run_program([sys.executable, "-c", script], 60)
    assert (done.exit_code, len(done.output), len(done.error)) == (3, 150_001, 150_001)


def test_adb_s_own_name_for_a_phone(monkeypatch):
    monkeypatch.setattr(adb_client.toolchain, "find_adb", lambda: None)
    monkeypatch.setattr(adb_client.toolchain, "require", lambda _: "/bin/echo")
    client = adb_client.AdbClient(None)
    monkeypatch.setattr(client, "_command", ["/bin/sh", "-c", "printf '%s' " + shlex.quote(EVIL + "x" * 500)])
    assert client.name.startswith("adb:pi??xxx") and len(client.name) <= 104


# Device servers


class Says:
    """A session whose server describes itself so."""

    def __init__(self, text):
        self.text = text

    def get_function(self, name):
        return lambda: self.text


@pytest.mark.parametrize("text", ["", "[]", "7", "[" * 10_000, '{"a":' * 10_000, '{"a": "' + "x" * 10**6 + '"}', "{"])
def test_a_server_that_does_not_say_what_it_is(text):
    with pytest.raises(DeviceFailed, match=r"board.* does not say what it is"):
        handshake.facts_of("board\x1b[31m", Says(text))


def test_a_server_s_words_are_cleaned():
    found = handshake.facts_of("board", Says(json.dumps({"tvm": EVIL, "features": {EVIL: True}})))
    assert found == {"tvm": "pi??", "features": {"pi??": True}}


def test_a_clock_without_a_core(monkeypatch):
    from tvm_shufflenet.devices.base import Endpoint
    from tvm_shufflenet.devices.remote import RemoteDevice

    device = RemoteDevice("rpc://board", Endpoint("board", 1), "aarch64")
    for said in ({}, {"core": [], "cores": "x"}, {"core": EVIL, "cores": 1}, {"core": "cortex-a72", "cores": "1"}):
        with pytest.raises((DeviceFailed, BadInput)):
            device._take_clock(said)
