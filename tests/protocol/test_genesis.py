"""Swarm ids."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from protocol.genesis import swarm_id


@given(st.text(st.characters(codec="utf-8")))
def test_a_swarm_id_is_the_hash_of_its_name(name: str) -> None:
    """[SWM-1] With a domain in front, so that it is no other hash of the same name."""
    assert swarm_id(name) == sha256(b"starlings/1/genesis\x00" + name.encode()).digest()


def test_names_are_compared_byte_by_byte() -> None:
    """[SWM-1] Nothing is folded: what looks the same may be another swarm."""
    assert len({swarm_id(name) for name in ("attic", "Attic", "attic ", "caf\u00e9", "cafe\u0301")}) == 5
