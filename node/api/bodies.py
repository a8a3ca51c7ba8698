"""JSON bodies: those that come are checked for their type, counted while they come, and every mistake named with its place."""

import re
from typing import TypeVar

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from node.api.errors import ApiError, bad_request

BODY_BYTES_MAX = 1024 * 1024  # Ten times the largest task; the rest is JSON's escapes and fields that are ignored.
BODY_S_MAX = 20.0  # For one that trickles. Loopback needs milliseconds.

_encode = msgspec.json.Encoder().encode
_Body = TypeVar("_Body")
_WRONG_PLACE = re.compile(r"^(?P<what>.*) - at `\$\.?(?P<where>.*)`$", re.DOTALL)


async def read_json(request: Request, decoder: msgspec.json.Decoder[_Body]) -> _Body:
    """The body of a POST. Raises ApiError: 400, 408, 413 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "not_json", "Send the body as JSON, with `content-type: application/json`.")
    return decode_json(await _read(request), decoder)


def decode_json(body: bytes, decoder: msgspec.json.Decoder[_Body]) -> _Body:
    """The value in a body, or ApiError 400 that names the byte or the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as wrong:
        found = _WRONG_PLACE.match(str(wrong))
        if found is None:
            raise bad_request(f"{wrong}.") from None
        raise bad_request(f"{found['where']}: {found['what']}.", found["where"]) from None
    except msgspec.DecodeError as wrong:
        # The one message of msgspec without a place; its place is the end.
        place = "" if "(byte" in str(wrong) else f" (byte {len(body)})"
        raise bad_request(f"The body is not JSON: {wrong}{place}.") from None
    except UnicodeDecodeError as wrong:
        raise bad_request(f"The body is not JSON: not UTF-8 near byte {_first_bad_byte(body)}.") from wrong
    except RecursionError:
        raise bad_request("The body is nested too deeply.") from None


def json_response(body: object, status: int = 200) -> Response:
    """One that goes out."""
    return Response(_encode(body), status, media_type="application/json")


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > BODY_BYTES_MAX:
        raise _too_large()
    parts: list[bytes] = []
    total = 0
    with trio.move_on_after(BODY_S_MAX):
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            total += len(message.get("body", b""))
            if total > BODY_BYTES_MAX:
                raise _too_large()
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)
    raise ApiError(408, "too_slow", f"The body did not arrive within {BODY_S_MAX:.0f} s.")


def _too_large() -> ApiError:
    return ApiError(413, "too_large", f"The body is larger than {BODY_BYTES_MAX} bytes.")


def _first_bad_byte(body: bytes) -> int:
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        return wrong.start
    return 0
