"""A proxy that breaks connections as it is told: python benchmarks/fault_proxy.py HOST PORT...

Connections to HOST:PORT are passed on to 127.0.0.1:PORT. A line of JSON on standard input arms one fault,
``{"port": 9101, "kind": "reset" or "flip", "up": true, "after": 20000, "mask": 1}``: the next connection to the port
that has carried more than ``after`` bytes in that direction is reset there, or the bits of ``mask`` in that byte are
flipped. A line on standard output says when that has happened. It is a process of its own because TVM's client holds
Python's lock while it waits for a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys

CHUNK_BYTES = 1 << 14
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """``armed`` is the fault that waits for its connection, by port."""

    def __init__(self, host: str):
        self.host = host
        self.armed: dict[int, dict] = {}

    async def listen(self, port: int) -> None:
        await asyncio.start_server(lambda reader, writer: self._connect(port, reader, writer), self.host, port)

    async def _connect(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return writer.transport.abort()
        both = (writer, server_writer)
        await asyncio.gather(
            self._carry(port, True, reader, server_writer, both), self._carry(port, False, server_reader, writer, both)
        )
        for end in both:
            end.close()

    async def _carry(self, port: int, up: bool, source, sink, both) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while content := await source.read(CHUNK_BYTES):
                fault = self._due(port, up, carried + len(content))
                if fault and fault["kind"] == "reset":
                    return _reset(both)
                if fault:
                    content = _flipped(content, max(0, fault["after"] - carried), fault["mask"])
                carried += len(content)
                sink.write(content)
                await sink.drain()
        with contextlib.suppress(OSError):
            if sink.can_write_eof():
                sink.write_eof()

    def _due(self, port: int, up: bool, carried: int) -> dict | None:
        fault = self.armed.get(port)
        if fault is None or fault["up"] != up or carried <= fault["after"]:
            return None
        print(json.dumps(self.armed.pop(port)), flush=True)
        return fault


def _flipped(content: bytes, offset: int, mask: int) -> bytes:
    changed = bytearray(content)
    changed[min(offset, len(changed) - 1)] ^= mask
    return bytes(changed)


def _reset(ends) -> None:
    for end in ends:
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        end.transport.abort()


async def main(host: str, ports: list[int]) -> None:
    proxy = Proxy(host)
    for port in ports:
        await proxy.listen(port)
    print("listening", flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        fault = json.loads(line)
        proxy.armed[fault["port"]] = fault


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [int(port) for port in sys.argv[2:]]))
