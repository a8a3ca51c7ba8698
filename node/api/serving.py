"""Listens: one app on loopback TCP and on a Unix socket, in one nursery, with bounds on what a client may hold.

anycorn speaks HTTP; accepting is done here. anycorn's own loop ends the process when accept runs out of descriptors or
a connection raises, has no bound on connections, keeps those of clients that have left, and shields its sends: one
client that stops reading would hold up the shutdown of the node for as long as it likes.

It reads nothing while more has come than the request that it answers (h11 is PAUSED): a client that sends so much as a line break
behind a body is not seen to leave, and its task goes on to the end.
"""

import errno
import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import trio
from anycorn.app_wrappers import ASGIWrapper
from anycorn.config import Config
from anycorn.tcp_server import TCPServer
from anycorn.typing import ConnectionState
from anycorn.worker_context import WorkerContext
from anyio.abc import SocketAttribute
from starlette.types import ASGIApp

from node.api.access import TRUSTED

CONNECTIONS_MAX = 256  # For each listener; a node with more clients of its own is not a personal node. The rest queue.
BACKLOG = 1_024  # Clients that wait until one of those connections is free; beyond that the kernel resets them.
SEND_S_MAX = 30.0  # How long a client may read nothing of SEND_BYTES before it is dropped.
SEND_BYTES = 65_536  # A slow reader makes this much progress; one that has stopped does not.
SEND_S_MAX_STOPPING = 1.0  # The same once this node stops.
KEEP_ALIVE_S = 30  # Idle connections, and headers that trickle. Longer than the 5 s after which httpx drops its own.
CAPACITY_PAUSE_S = 0.1  # Until accept is tried again without free file descriptors, as in trio.

log = logging.getLogger(__name__)


class ApiBindError(Exception):
    """An address of the API cannot be listened on. The message names it and the next step; nothing is left bound."""


async def serve(
    app: ASGIApp,
    tcp: tuple[str, int] | None,
    socket_path: Path,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Reports, once connections are accepted, the TCP port: the real one if 0 was asked for.

    Raises ApiBindError. On cancellation clients that still wait are told that the node stops; the socket's file goes.
    """
    listeners: list[tuple[trio.SocketListener, bool]] = []
    with ExitStack() as bound:
        port = 0
        if tcp is not None:
            tcp_socket = bound.enter_context(_bound_tcp(*tcp))
            port = tcp_socket.getsockname()[1]
            listeners.append((_listener(tcp_socket), False))
        unix_socket = bound.enter_context(_bound_unix(socket_path))
        listeners.append((_listener(unix_socket), True))

        server = _Server(app)
        async with trio.open_nursery() as nursery:
            for listener, trusted in listeners:
                nursery.start_soon(server.accept, listener, trusted, nursery)
            task_status.started(port)
            try:
                await trio.sleep_forever()
            finally:
                server.hurry()


class _Server:
    """The open connections of both listeners."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = ASGIWrapper(app)  # type: ignore[arg-type]
        self._open: dict[_Connection, None] = {}
        self._config = Config()
        self._config.accesslog = None
        self._config.errorlog = log
        self._config.include_server_header = False
        self._config.keep_alive_timeout = KEEP_ALIVE_S
        self._config.keep_alive_max_requests = 2**31

    async def accept(self, listener: trio.SocketListener, trusted: bool, nursery: trio.Nursery) -> None:
        """Accept for ever, never more than CONNECTIONS_MAX at once."""
        slots = trio.Semaphore(CONNECTIONS_MAX)
        while True:
            await slots.acquire()
            try:
                stream = await listener.accept()
            except OSError as error:
                slots.release()
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    raise
                log.warning("accept: %s; trying again", error.strerror)
                await trio.sleep(CAPACITY_PAUSE_S)
            else:
                nursery.start_soon(self._converse, stream, trusted, slots)

    async def _converse(self, stream: trio.SocketStream, trusted: bool, slots: trio.Semaphore) -> None:
        context = WorkerContext(None)
        connection = _Connection(stream, context)
        self._open[connection] = None
        state = ConnectionState({TRUSTED: trusted})
        try:
            await TCPServer(self._app, self._config, context, state, connection).run()  # type: ignore[arg-type]
        except Exception:
            # One connection's oddity is not the others' affair.
            log.exception("a connection of the API broke")
        finally:
            del self._open[connection]
            stream.socket.close()
            slots.release()

    def hurry(self) -> None:
        """Cut short the patience with clients that do not read."""
        for connection in self._open:
            connection.hurry()


class _Connection:
    """An accepted stream as anycorn wants it (anyio's interface), with a limit on how long a send may take."""

    def __init__(self, stream: trio.SocketStream, context: WorkerContext) -> None:
        self._stream = stream
        self._context = context
        self._patience_s = SEND_S_MAX
        self._sending = trio.CancelScope()

    def extra(self, attribute: Any, default: Any = None) -> Any:
        """What anycorn asks: whether this is TLS (no), and the socket for its addresses."""
        if attribute is SocketAttribute.raw_socket:
            return self._stream.socket
        raise anyio.TypedAttributeLookupError

    async def receive(self, max_bytes: int) -> bytes:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            # Otherwise anycorn keeps the connection of a client that has left until KEEP_ALIVE_S are over.
            await self._context.terminated.set()
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, data: bytes) -> None:
        with memoryview(data) as view:
            for start in range(0, len(view), SEND_BYTES):
                await self._send_some(view[start : start + SEND_BYTES])

    async def _send_some(self, data: memoryview) -> None:
        self._sending = trio.CancelScope(deadline=trio.current_time() + self._patience_s)
        with self._sending:
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                raise anyio.BrokenResourceError from None
            except trio.ClosedResourceError:
                raise anyio.ClosedResourceError from None
        if self._sending.cancelled_caught:
            # Closing wakes the reader too, which ends the connection.
            self._stream.socket.close()
            raise TimeoutError

    def hurry(self) -> None:
        self._patience_s = SEND_S_MAX_STOPPING
        self._sending.deadline = min(self._sending.deadline, trio.current_time() + SEND_S_MAX_STOPPING)

    async def send_eof(self) -> None:
        with suppress(OSError):
            self._stream.socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self._stream.socket.close()


def _listener(bound: socket.socket) -> trio.SocketListener:
    bound.listen(BACKLOG)
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))


@contextmanager
def _bound_tcp(host: str, port: int) -> Iterator[socket.socket]:
    where = f"{host}:{port}"
    if host == "localhost":
        host = "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ApiBindError(f"{where} is not an address. Use 127.0.0.1:{port}.") from None
    if not address.is_loopback:
        raise ApiBindError(f"{where} is not a loopback address, and the API is for this machine. Use 127.0.0.1:{port}.")
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setblocking(False)
        if os.name == "posix":
            # Lets a restarted node have its port back while old connections linger; it never shares a living one's.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise ApiBindError(_why_not(where, error)) from error
        yield listening


def _why_not(where: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program. Stop it, or choose another port with --api 127.0.0.1:0."
    if error.errno == errno.EACCES:
        return f"{where} may not be used by this user. Choose a port above 1023 with --api."
    return f"{where} cannot be listened on: {error.strerror}. Choose another address with --api."


@contextmanager
def _bound_unix(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.setblocking(False)
        _remove_stale(path)
        try:
            listening.bind(str(path))
        except OSError as error:
            # Without an errno it is Python's own check: the kernel's field holds 107 bytes.
            why = error.strerror or "its path is too long for a socket; choose a shorter --home"
            raise ApiBindError(f"The control socket {path} cannot be made: {why}.") from error
        # Before anybody can connect: connections are possible only after listen.
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        made = path.stat()
        try:
            yield listening
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(made, path.stat()):
                    path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove the socket of a node that died. Raises ApiBindError if it lives, or if the file is something else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ApiBindError(f"{path} exists and is not a socket. Move it away, or choose another --home.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ApiBindError(f"The control socket {path} cannot be used: {error.strerror}.") from error
        else:
            raise ApiBindError(f"Another node is listening on {path}. Stop it (swarm down), or choose another --home.")
