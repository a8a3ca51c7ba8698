"""A TCP relay in front of a node: its connections can be cut while both ends live."""

import socket
from contextlib import suppress
from threading import Lock, Thread

CHUNK_BYTES = 65_536


class Relay:
    """Listens on loopback and passes everything on to `port` of this machine, once that is set."""

    def __init__(self) -> None:
        self.port = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._lock = Lock()
        Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """What the node behind it announces."""
        return f"/ip4/127.0.0.1/tcp/{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """End every connection now, on both sides."""
        with self._lock:
            ended, self._open = self._open, []
        for each in ended:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # The listener is closed.
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.port))
                except OSError:
                    near.close()
                    continue
                for each in (near, far):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open += [near, far]
                both = [Thread(target=_pass_on, args=ends, daemon=True) for ends in ((near, far), (far, near))]
                Thread(target=self._carry, args=(near, far, both), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket, both: list[Thread]) -> None:
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        with self._lock:
            self._open = [each for each in self._open if each not in (near, far)]
        near.close()
        far.close()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
