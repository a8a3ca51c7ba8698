"""Messages that prove themselves wherever they come from: signed by their issuer, with nobody as audience."""

from random import Random
from typing import TypeVar

from protocol import codec, envelope
from protocol.envelope import NONCE_BYTES, Header
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.identity import Identity
from protocol.messages import Message, Signed

_M = TypeVar("_M", bound=Message)


class Notary:
    """Signs what this node says to everybody, and proves what others say. A world without signatures may hand in another."""

    def __init__(self, identity: Identity, swarm: bytes, dice: Random) -> None:
        self._identity, self._swarm, self._dice = identity, swarm, dice

    def sign(self, message: _M, lifetime_s: float, now: float) -> Signed[_M]:
        """The message, one of `codec.PASSED_ON`, in its envelope. `now` in seconds since the epoch becomes its version.

        Raises LocalProtocolError for one that is too large, which nobody would take.
        """
        header = Header(
            self._swarm,
            self._identity.node,
            None,
            self._dice.randbytes(NONCE_BYTES),
            round(now * 1000),
            round(lifetime_s * 1000),
        )
        sealed = envelope.seal(self._identity, header, codec.encode(message))
        bytes_max = codec.PASSED_ON[type(message)]
        if len(sealed) > bytes_max:
            raise LocalProtocolError(f"{type(message).__name__} of {len(sealed)} bytes, {bytes_max} allowed")
        return Signed(header.issuer, header.sent_at_ms, header.lifetime_ms, message, sealed)

    def fault(self, signed: Signed[Message], now: float) -> str:
        """Why not to believe it, as a kind of offence such as `forged` or `stale`; empty if its issuer signed it, for this
        swarm, and it has not expired.
        """
        try:
            header, _, _ = envelope.split(signed.sealed)
            envelope.check(header, self._swarm, None, round(now * 1000))
            envelope.prove(signed.sealed)
        except RemoteProtocolError as wrong:
            return wrong.kind
        return ""
