"""A way to a server that can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading


class CutProxy:
    """Passes connections on to ``port``, and counts the bytes that go there. One that has sent the first number of
    ``cuts`` is cut, and the next number holds; with ``for_good`` nobody gets through after the last."""

    def __init__(self, port: int, cuts: tuple[int, ...], for_good: bool = False):
        self._to, self.cuts, self._for_good, self.sent_bytes = port, list(cuts), for_good, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> CutProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._for_good and not self.cuts:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 14):
                sink.sendall(content)
                if upwards:
                    passed += len(content)
                    self.sent_bytes += len(content)
                    if self.cuts and passed >= self.cuts[0]:
                        self.cuts.pop(0)
                        break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
