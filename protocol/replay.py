"""Which envelopes were seen, in a bounded window: nothing is opened twice, and nobody can make us forget."""

from collections import deque

from protocol import limits as lim
from protocol.envelope import Header
from protocol.errors import RemoteProtocolError
from protocol.identity import NodeId


class ReplayWindow:
    """The nonces of every envelope that could still pass the time check. Full means refuse, never evict the living."""

    def __init__(self) -> None:
        self._seen: dict[NodeId, dict[bytes, int]] = {}
        self._by_expiry: dict[NodeId, deque[tuple[int, bytes]]] = {}
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def refuse_known(self, header: Header, now_ms: int) -> None:
        """Raises RemoteProtocolError for an envelope seen before, or when there is no room to remember it."""
        self._forget(header.issuer, now_ms)
        seen = self._seen.get(header.issuer, {})
        if header.nonce in seen:
            raise RemoteProtocolError("replayed", "an envelope that was opened before")
        if len(seen) >= lim.REPLAY_PER_ISSUER_MAX:
            raise RemoteProtocolError("crowded", "too many envelopes from one issuer in the time window")
        if self._total >= lim.REPLAY_TOTAL_MAX:
            self._forget_all(now_ms)
            if self._total >= lim.REPLAY_TOTAL_MAX:
                raise RemoteProtocolError("crowded", "too many envelopes in the time window")

    def remember(self, header: Header) -> None:
        """Call only once the signature holds, or a forger burns the nonces of others."""
        expires_ms = header.sent_at_ms + header.lifetime_ms + lim.CLOCK_SKEW_MS_MAX
        self._seen.setdefault(header.issuer, {})[header.nonce] = expires_ms
        self._by_expiry.setdefault(header.issuer, deque()).append((expires_ms, header.nonce))
        self._total += 1

    def _forget(self, issuer: NodeId, now_ms: int) -> None:
        queue = self._by_expiry.get(issuer)
        if queue is None:
            return
        # Envelopes of one issuer expire nearly in the order they came; one that lives longer only delays the others.
        while queue and queue[0][0] < now_ms:
            _, nonce = queue.popleft()
            del self._seen[issuer][nonce]
            self._total -= 1
        if not queue:
            del self._by_expiry[issuer], self._seen[issuer]

    def _forget_all(self, now_ms: int) -> None:
        for issuer in list(self._by_expiry):
            self._forget(issuer, now_ms)
