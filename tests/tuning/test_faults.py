"""Real faults while real processes tune: nothing is lost, nothing left behind. benchmarks/faults.py has 200 of them."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from helpers.factories import FACTORY
from helpers.scripts import BENCHMARKS, load
from helpers.tuning_runs import ARM64, MISSING, Command, journal, tune_command
from tvm_shufflenet.tuning.records.store import RecordStore

fault_campaign = load("fault_campaign")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")


@pytest.mark.slow
def test_faults_change_no_record_and_leave_nothing():
    said = []
    with fault_campaign.scratch() as folder:
        calm, rough = fault_campaign.campaign(folder, trials=8, seed=1, faults=3, say=said.append)
    assert sum(rough.faults.values()) == 3, said
    assert rough.tuner_mb < 1.2 * calm.tuner_mb


@pytest.mark.slow
def test_two_tuners_make_the_union_of_both(tmp_path):
    """Two processes with seeds of their own on one folder at the same time."""
    model = tmp_path / "unit.py"
    model.write_text(FACTORY)
    folder = tmp_path / "records"
    commands = []
    for seed in ("0", "1"):
        words = tune_command(f"{model}:unit", folder, "--seed", seed, "--json", str(tmp_path / f"{seed}.json"))[1:]
        words[words.index("200")] = "8"
        commands.append(Command(words))
    for command in commands:
        _, error = command.process.communicate(timeout=300)
        assert command.process.returncode == 0, error
    measured = [json.loads((tmp_path / f"{seed}.json").read_text())["trials"]["measured"] for seed in "01"]
    lines = journal(folder)
    assert max(Counter((line["workload"], line["trace"]) for line in lines).values()) == 1
    assert len({line["search"] for line in lines}) == 2
    assert 8 <= max(measured) <= len(lines) <= sum(measured)
    store = RecordStore(folder, ARM64.tvm())
    assert store.skipped == [] and len(store.database().get_all_tuning_records()) == len(lines)


# The proxy

ECHO = """
import asyncio
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture
def echo():
    """A port that sends back what it gets."""
    process = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE)
    yield int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def proxy(echo):
    words = [sys.executable, str(BENCHMARKS / "fault_proxy.py"), "127.0.0.2", str(echo)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"listening\n"

    def arm(**fault) -> None:
        process.stdin.write(json.dumps(fault | {"port": echo}).encode() + b"\n")
        process.stdin.flush()

    yield arm, ("127.0.0.2", echo), process
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        pipe.close()


def exchange(address, data: bytes) -> bytes:
    with socket.create_connection(address, 10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_the_proxy_flips_the_bit_it_is_told_and_resets(proxy):
    arm, address, process = proxy
    data = os.urandom(100_000)
    assert exchange(address, data) == data
    for up in (True, False):
        arm(kind="flip", up=up, after=50_000, mask=4)
        changed = exchange(address, data)
        while changed == data:  # the order may come after the connection
            changed = exchange(address, data)
        assert [(i, a ^ b) for i, (a, b) in enumerate(zip(data, changed, strict=True)) if a != b] == [(50_000, 4)]
        assert json.loads(process.stdout.readline())["kind"] == "flip"
    arm(kind="reset", up=True, after=10)
    with pytest.raises(OSError):  # whichever call meets it
        for _ in range(100):
            exchange(address, data)


def test_the_clock_shim_moves_date_and_time_alone(tmp_path):
    offset, shim = tmp_path / "offset", tmp_path / "clock_jump.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, BENCHMARKS / "clock_jump.c"], check=True)
    offset.write_bytes(struct.pack("<q", 86400 * 365))
    source = "import time, datetime; print(int(time.time()), int(time.monotonic()))"
    variables = os.environ | {"LD_PRELOAD": str(shim), "CLOCK_OFFSET_FILE": str(offset)}
    plain, moved = (
        tuple(map(int, subprocess.check_output([sys.executable, "-c", source], env=env).split()))
        for env in (os.environ, variables)
    )
    assert 0 <= moved[0] - plain[0] - 86400 * 365 < 30 and 0 <= moved[1] - plain[1] < 30
    assert Path(offset).stat().st_size == 8
