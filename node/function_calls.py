"""Calls of functions as OpenAI words them, in the node's own API, in those of servers behind it, and in chat templates."""

import secrets
from typing import Any


def worded(identity: str, name: str, arguments: object) -> dict[str, Any]:
    """One entry of `tool_calls`. `arguments` is JSON text; templates have the object itself."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def new_id() -> str:
    """One that nobody else has."""
    return f"call_{secrets.token_hex(8)}"
