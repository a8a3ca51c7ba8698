"""Adverts that prove themselves wherever they come from: signed by their issuer, with nobody as audience."""

from random import Random

from protocol import codec, envelope
from protocol import limits as lim
from protocol.envelope import NONCE_BYTES, Header
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.identity import Identity
from protocol.messages import Advert, SignedAdvert


class Notary:
    """Signs this node's adverts and proves those of others. A world without signatures may hand in another."""

    def __init__(self, identity: Identity, swarm: bytes, dice: Random) -> None:
        self._identity, self._swarm, self._dice = identity, swarm, dice

    def sign(self, advert: Advert, lifetime_s: float, now: float) -> SignedAdvert:
        """The advert in its envelope. `now` in seconds since the epoch becomes its version.

        Raises LocalProtocolError for one over ADVERT_BYTES_MAX, which nobody would take.
        """
        header = Header(
            self._swarm,
            self._identity.node,
            None,
            self._dice.randbytes(NONCE_BYTES),
            round(now * 1000),
            round(lifetime_s * 1000),
        )
        sealed = envelope.seal(self._identity, header, codec.encode(advert))
        if len(sealed) > lim.ADVERT_BYTES_MAX:
            raise LocalProtocolError(f"advert of {len(sealed)} bytes, {lim.ADVERT_BYTES_MAX} allowed")
        return SignedAdvert(header.issuer, header.sent_at_ms, header.lifetime_ms, advert, sealed)

    def holds(self, signed: SignedAdvert, now: float) -> bool:
        """Whether the issuer signed it, for this swarm, and it has not expired."""
        try:
            header, _, _ = envelope.split(signed.sealed)
            envelope.check(header, self._swarm, None, round(now * 1000))
            envelope.prove(signed.sealed)
        except RemoteProtocolError:
            return False
        return True
