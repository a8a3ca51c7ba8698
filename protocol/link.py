"""One link with one peer, as bytes in and messages out: frames, envelopes and the order of attempts in one place.

A Link lives as long as its stream. It has no clock and no socket: the transport gives it chunks and the time, and sends what it
returns.
"""

from random import Random

from protocol import codec, envelope, framing
from protocol import limits as lim
from protocol.envelope import NONCE_BYTES, Header
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.exchange import TASK_MESSAGES, Exchanges
from protocol.framing import Form, FrameReader
from protocol.identity import Identity, NodeId
from protocol.messages import Hello, Message

TOKEN_BYTES = 8
COUNTER_BYTES = 8


class Link:
    """Our end of a link. Raises LocalProtocolError for our own mistakes and RemoteProtocolError for the peer's.

    After a RemoteProtocolError nothing more may be read from the link; close it.
    """

    def __init__(self, identity: Identity, peer: NodeId, swarm: bytes, dice: Random) -> None:
        """`peer` is who the transport has proved to be there; `dice` need not be secret, only unlikely to repeat."""
        self._identity, self._peer, self._swarm, self._dice = identity, peer, swarm, dice
        self._frames = FrameReader()
        self._exchanges = Exchanges()
        self._token = dice.randbytes(TOKEN_BYTES)
        self._peer_token: bytes | None = None
        self._hello_sent = False
        self._sent, self._seen = 0, 0

    def hello(self, name: str, agent: str, addresses: tuple[str, ...], now_s: float) -> bytes:
        """Our first frame. Exactly once, before any `send`."""
        if self._hello_sent:
            raise LocalProtocolError("a second Hello")
        self._hello_sent = True
        body = codec.encode(Hello(self._token, name, agent, addresses))
        return self._sealed(body, self._dice.randbytes(NONCE_BYTES), now_s)

    def send(self, message: Message, now_s: float) -> bytes:
        """The frame of a message. Both Hellos come first.

        Nothing is returned, and nothing may be sent, when the attempt that the message belongs to is over, or when a
        TaskRequest finds EXCHANGES_PER_LINK_MAX attempts open.
        """
        if isinstance(message, (Hello, *codec.PASSED_ON)):
            raise LocalProtocolError(f"{type(message).__name__} is not a message to send on a link")
        if not self._hello_sent or self._peer_token is None:
            raise LocalProtocolError(f"{type(message).__name__} before the Hellos")
        # Before the order is noted: what does not fit its bounds was not sent, and takes no room among the attempts.
        body = codec.encode(message)
        if isinstance(message, TASK_MESSAGES) and not self._exchanges.sent(message):
            return b""
        if not message.SEALED:
            return framing.frame(Form.BARE, body)
        self._sent += 1
        return self._sealed(body, self._peer_token + self._sent.to_bytes(COUNTER_BYTES, "big"), now_s)

    def receive(self, chunk: bytes, now_s: float) -> list[Message]:
        """The messages that this chunk completes, in order; the first of a link is the peer's Hello."""
        messages = []
        for form, payload in self._frames.feed(chunk):
            message = self._opened(form, payload, now_s)
            if isinstance(message, TASK_MESSAGES) and not self._exchanges.received(message):
                continue
            messages.append(message)
        return messages

    def _sealed(self, body: bytes, nonce: bytes, now_s: float) -> bytes:
        header = Header(
            self._swarm, self._identity.node, self._peer, nonce, round(now_s * 1000), lim.MESSAGE_LIFETIME_MS
        )
        return framing.frame(Form.SEALED, envelope.seal(self._identity, header, body))

    def _opened(self, form: Form, payload: bytes, now_s: float) -> Message:
        """Checks, the cheapest first; a counter counts as seen only once the signature holds.

        A Hello that was opened before is no danger: it is bound to its issuer and to us, and only its issuer can be this peer.
        """
        if form is Form.BARE:
            if self._peer_token is None:
                raise RemoteProtocolError("disorder", "the first message of a link is a Hello")
            message = codec.decode(payload)
            if message.SEALED:
                raise RemoteProtocolError("forged", f"{type(message).__name__} without its envelope")
            return message
        now_ms = round(now_s * 1000)
        header, body, _ = envelope.split(payload)
        envelope.check(header, self._swarm, self._identity.node, now_ms)
        if header.issuer != self._peer:
            raise RemoteProtocolError("forged", "sealed by somebody else than the peer of this link")
        if self._peer_token is not None:
            if header.nonce[:TOKEN_BYTES] != self._token:
                raise RemoteProtocolError("replayed", "an envelope from another link")
            if int.from_bytes(header.nonce[TOKEN_BYTES:], "big") <= self._seen:
                raise RemoteProtocolError("replayed", "an envelope that was opened before")
        message = codec.decode(body)
        if isinstance(message, Hello) is not (self._peer_token is None):
            raise RemoteProtocolError("disorder", "exactly the first message of a link is a Hello")
        if not message.SEALED or isinstance(message, tuple(codec.PASSED_ON)):
            raise RemoteProtocolError("garbage", f"{type(message).__name__} in an envelope of its own")
        envelope.prove(payload)
        if isinstance(message, Hello):
            self._peer_token = message.token
        else:
            self._seen = int.from_bytes(header.nonce[TOKEN_BYTES:], "big")
        return message
