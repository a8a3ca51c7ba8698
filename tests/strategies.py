"""Hypothesis strategies for everything that crosses the wire, made from the same annotations that the codec reads."""

import dataclasses
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from protocol import codec, envelope
from protocol import limits as lim
from protocol.bounds import Blob, Many, Real, Text, Whole
from protocol.envelope import NONCE_BYTES, SWARM_BYTES, Header
from protocol.genesis import swarm_id
from protocol.identity import Identity, NodeId
from protocol.messages import MESSAGES, Advert, Message, Signed, TaskRequest
from protocol.parts import AttemptId, Sampling, TaskId, Turn

ADA, BOB, EVE = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
SWARM = swarm_id("tests")
NOW_S = 1_790_000_000.0
NOW_MS = 1_790_000_000_000

# Long values find nothing that short ones and the limits themselves (test_codec.py) do not, and cost much time.
_CHARACTERS_MAX, _BYTES_MAX, _ITEMS_MAX = 12, 40, 3


def texts(bytes_max: int) -> st.SearchStrategy[str]:
    """Text that UTF-8 can carry, within a bound on its bytes."""
    characters = st.characters(codec="utf-8")
    return st.text(characters, max_size=_CHARACTERS_MAX).filter(lambda text: len(text.encode()) <= bytes_max)


def field_values(hint: Any) -> st.SearchStrategy[Any]:
    """Values within the bound of one annotated field."""
    if hint is bool:
        return st.booleans()
    if get_origin(hint) is Signed:
        return signed(get_args(hint)[0])
    if dataclasses.is_dataclass(hint):
        return instances(hint)  # type: ignore[arg-type]
    assert get_origin(hint) is Annotated
    inner, bound = get_args(hint)[:2]
    match bound:
        case Text(bytes_max):
            return texts(bytes_max)
        case Blob(least, most):
            return st.binary(min_size=least, max_size=max(least, min(most, _BYTES_MAX)))
        case Whole(highest):
            return st.integers(0, highest) | st.just(highest)
        case Real(minimum, maximum):
            return st.floats(minimum, maximum, allow_nan=False)
        case Many(items_max):
            return st.lists(field_values(get_args(inner)[0]), max_size=min(items_max, _ITEMS_MAX)).map(tuple)
    raise AssertionError(f"unknown bound {bound!r}")


def instances(cls: type) -> st.SearchStrategy[Any]:
    """Instances of a message class, or of a part of one, within all bounds."""
    hints = get_type_hints(cls, include_extras=True)
    return st.builds(cls, *[field_values(hints[field.name]) for field in dataclasses.fields(cls)])


def messages() -> st.SearchStrategy[Message]:
    """A message of any kind."""
    return st.sampled_from(list(MESSAGES.values())).flatmap(instances)


def signed_adverts() -> st.SearchStrategy[Signed[Advert]]:
    return signed(Advert)


def signed(kind: type[Message]) -> st.SearchStrategy[Signed[Any]]:
    """Messages of a kind in the envelopes of Ada and Bob."""
    return st.builds(
        _signed,
        st.sampled_from([ADA, BOB]),
        instances(kind),
        st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
        st.integers(0, 2**53 - 1),
        st.integers(1, lim.LIFETIME_MS_MAX),
    )


def headers(issuer: Identity = ADA) -> st.SearchStrategy[Header]:
    """Headers that this issuer may seal with."""
    return st.builds(
        Header,
        st.binary(min_size=SWARM_BYTES, max_size=SWARM_BYTES),
        st.just(issuer.node),
        st.none() | st.just(BOB.node) | st.binary(min_size=32, max_size=32).map(NodeId),
        st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
        st.integers(0, 2**53 - 1),
        st.integers(1, lim.LIFETIME_MS_MAX),
    )


def plain() -> st.SearchStrategy[Any]:
    """Whatever msgpack can say, which is more than the wire allows."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=_CHARACTERS_MAX)
        | st.binary(max_size=_BYTES_MAX)
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=20,
    )


def chunks_of(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """The same bytes in pieces of any size, empty ones included."""
    cuts = st.lists(st.integers(0, len(data)), max_size=8).map(sorted)
    return cuts.map(lambda at: [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)])


def task_request(attempt: bytes, text: str = "hello") -> TaskRequest:
    """An ordinary request, for tests that need one."""
    turns = (Turn("user", text),)
    return TaskRequest(
        AttemptId(attempt), TaskId(bytes(16)), "chat", "", turns, 64, Sampling(temperature=0.7, top_p=0.95), (), 30_000
    )


def _signed(issuer: Identity, message: Message, nonce: bytes, sent_at_ms: int, lifetime_ms: int) -> Signed[Message]:
    header = Header(SWARM, issuer.node, None, nonce, sent_at_ms, lifetime_ms)
    sealed = envelope.seal(issuer, header, codec.encode(message))
    return Signed(issuer.node, sent_at_ms, lifetime_ms, message, sealed)
