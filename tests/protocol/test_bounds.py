"""Every field of every message, at its limit and one step beyond, on the way out and on the way in."""

import dataclasses
from typing import Any

import msgpack
import pytest

from protocol import codec
from protocol import limits as lim
from protocol.bounds import Many
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.messages import MESSAGES, Advert, Goodbye, Message, TaskPiece
from protocol.parts import Turn
from tests.fields import Path, beyond, bound_of, built, children, hint_at, is_signed, least, places, with_item, within
from tests.strategies import task_request

FIELDS = [(cls, path) for cls in MESSAGES.values() for path in places(cls)]


def packed(parts: Any) -> bytes:
    result: bytes = msgpack.packb(parts, use_bin_type=True)
    return result


def refused(body: bytes) -> str:
    """The kind of the error that this body makes."""
    with pytest.raises(RemoteProtocolError) as caught:
        codec.decode(body)
    return caught.value.kind


@pytest.mark.parametrize(("cls", "path"), FIELDS)
def test_a_field_at_its_limit_passes(cls: type[Message], path: Path) -> None:
    """[COD-5] What the tables allow, all of it."""
    for value in within(hint_at(cls, path)):
        body = packed([cls.KIND, *with_item(cls, path, value)])
        assert codec.encode(codec.decode(body)) == body


@pytest.mark.parametrize(("cls", "path"), FIELDS)
def test_a_field_beyond_its_limit_is_refused_and_never_sent(cls: type[Message], path: Path) -> None:
    """[COD-5] One step too far, in both directions."""
    hint = hint_at(cls, path)
    for value in beyond(hint):
        fields = with_item(cls, path, value)
        assert refused(packed([cls.KIND, *fields])) == ("oversized" if oversized(hint, value) else "garbage")
        with pytest.raises(LocalProtocolError, match=cls.__name__):
            codec.encode(built(cls, fields))


def oversized(hint: Any, value: Any) -> bool:
    """Whether a list or text is so long that the whole body is over its limit before the field is looked at."""
    return len(packed(value)) + 100 > lim.BODY_BYTES_MAX


@pytest.mark.parametrize(("cls", "path"), FIELDS)
def test_a_field_of_another_type_is_refused_and_never_sent(cls: type[Message], path: Path) -> None:
    """[COD-5] No type stands in for another: not true for 1, not 1 for 1.0, not bytes for text."""
    hint = hint_at(cls, path)
    right = type(least(hint))
    for value in (None, True, 0, 0.0, "", b"", "0" * 16, b"0" * 16, b"0" * 32, [], [0], {}):
        fields = with_item(cls, path, value)
        if type(value) is right:
            continue
        assert refused(packed([cls.KIND, *fields])) == "garbage"
        if not isinstance(bound_of(hint), Many) and not children(hint) and not is_signed(hint):
            with pytest.raises(LocalProtocolError):
                codec.encode(built(cls, fields))


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
def test_text_that_is_not_utf_8_is_refused(text: bytes) -> None:
    """[COD-5] Overlong forms, surrogates, beyond the last character, cut off."""
    body = codec.encode(Goodbye(True, "x" * len(text)))
    assert refused(body.replace(b"x" * len(text), text)) == "garbage"


def test_a_lone_surrogate_is_never_sent() -> None:
    """[COD-5] Python's text can hold what UTF-8 cannot."""
    with pytest.raises(LocalProtocolError, match="surrogate"):
        codec.encode(TaskPiece(task_request(bytes(16)).attempt, 0, "\ud800"))


def test_a_list_in_place_of_a_tuple_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="turns"):
        codec.encode(dataclasses.replace(task_request(bytes(16)), turns=[Turn("user", "x")]))  # type: ignore[arg-type]


def test_the_error_names_the_field() -> None:
    capability = with_item(Advert, (2, 0, 3), "many")
    with pytest.raises(RemoteProtocolError, match="Advert: capabilities: context_tokens: a whole number"):
        codec.decode(packed([Advert.KIND, *capability]))
