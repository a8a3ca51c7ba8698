"""A notary that believes everybody, for worlds too large for signatures: one check costs as much as handling 15 events."""

from typing import TypeVar

from protocol import limits as lim
from protocol.identity import NODE_ID_BYTES, NodeId
from protocol.messages import Message, Signed

_M = TypeVar("_M", bound=Message)


class TrustingNotary:
    """Says things without a signature; of others it checks the time and the looks of the issuer, as the real one does."""

    def __init__(self, node: NodeId) -> None:
        self._node = node

    def sign(self, message: _M, lifetime_s: float, now: float) -> Signed[_M]:
        return Signed(self._node, round(now * 1000), round(lifetime_s * 1000), message, b"")

    def fault(self, signed: Signed[Message], now: float) -> str:
        now_ms = round(now * 1000)
        if len(signed.issuer) != NODE_ID_BYTES:
            return "garbage"
        until_ms = signed.issued_at_ms + signed.lifetime_ms + lim.CLOCK_SKEW_MS_MAX
        return "" if signed.issued_at_ms - lim.CLOCK_SKEW_MS_MAX <= now_ms <= until_ms else "stale"
