"""The registry of messages, and that their fields all carry bounds that fit together."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated

import pytest

from protocol import codec, messages
from protocol import limits as lim
from protocol.exchange import TASK_MESSAGES
from protocol.messages import MESSAGES, Message
from protocol.parts import Capability, Turn


def test_every_message_is_registered_under_its_kind() -> None:
    """[MSG-1] Kinds are one number of seven bits each: one byte on the wire."""
    assert all(kind == cls.KIND and 0 < kind < 128 for kind, cls in MESSAGES.items())
    classes = [item for item in vars(messages).values() if isinstance(item, type) and issubclass(item, Message)]
    assert [cls for cls in classes if cls is not Message] == list(MESSAGES.values())


def test_what_counts_is_sealed_and_what_is_dear_to_seal_is_not() -> None:
    """[LNK-5] Every message of an attempt but its pieces carries a signature."""
    assert [cls.__name__ for cls in TASK_MESSAGES if not cls.SEALED] == ["TaskPiece"]


def test_messages_are_values() -> None:
    for cls in (*MESSAGES.values(), Capability, Turn):
        assert is_dataclass(cls)
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert [field.name for field in fields(cls)] == list(cls.__slots__)


def test_a_kind_is_given_once() -> None:
    with pytest.raises(AssertionError):
        messages._message(1, sealed=True)(dataclass(type("Another", (Message,), {})))


def test_a_field_without_a_bound_is_found_at_import() -> None:
    """[COD-5] There is no field of any length."""

    @dataclass
    class Loose:
        text: str

    @dataclass
    class Odd:
        text: Annotated[str, "any"]

    for cls in (Loose, Odd):
        with pytest.raises(AssertionError, match="bound"):
            codec._schema(cls)


def test_limits_fit_into_each_other() -> None:
    """[LIM-1] What one limit allows, the next one carries."""
    envelope_bytes = lim.HEADER_BYTES_MAX + 64 + 16
    assert lim.BODY_BYTES_MAX + envelope_bytes <= lim.FRAME_BYTES_MAX
    assert lim.ADVERTS_PER_PUSH_MAX * (lim.ADVERT_BYTES_MAX + 3) + 8 <= lim.BODY_BYTES_MAX
    assert lim.TURN_BYTES_MAX + 1024 <= lim.BODY_BYTES_MAX
    assert lim.PIECE_BYTES_MAX + 64 <= lim.BODY_BYTES_MAX
    assert lim.MESSAGE_LIFETIME_MS <= lim.LIFETIME_MS_MAX
