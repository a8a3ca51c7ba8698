"""A notary that believes everybody, for worlds too large for signatures: one check costs as much as handling 15 events."""

from typing import TypeVar

from protocol import codec
from protocol import limits as lim
from protocol.envelope import SWARM_BYTES
from protocol.identity import NODE_ID_BYTES, NodeId
from protocol.messages import Message, Signed
from simulations.sizes import sealed

AROUND_BYTES = len(sealed(bytes(SWARM_BYTES), b"", lim.PRESENCE_MS, to_all=True))

_M = TypeVar("_M", bound=Message)


class TrustingNotary:
    """Says things without a signature, in envelopes of zeros as long as the real ones.

    Of others it checks the time and the looks of the issuer, as the real one does.
    """

    def __init__(self, node: NodeId) -> None:
        self._node = node

    def sign(self, message: _M, lifetime_s: float, now: float) -> Signed[_M]:
        envelope = bytes(AROUND_BYTES + len(codec.encode(message)))
        return Signed(self._node, round(now * 1000), round(lifetime_s * 1000), message, envelope)

    def fault(self, signed: Signed[Message], now: float) -> str:
        now_ms = round(now * 1000)
        if len(signed.issuer) != NODE_ID_BYTES:
            return "garbage"
        until_ms = signed.issued_at_ms + signed.lifetime_ms + lim.CLOCK_SKEW_MS_MAX
        return "" if signed.issued_at_ms - lim.CLOCK_SKEW_MS_MAX <= now_ms <= until_ms else "stale"
