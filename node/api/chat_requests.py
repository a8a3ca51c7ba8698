"""What OpenAI's clients send to /v1/chat/completions, and what of it can be done here."""

from typing import Annotated, Any, Literal

import msgspec

from node.api.errors import ApiError, bad_request
from node.api.tasks import DEADLINE_S_MAX, Wishes
from protocol.messages import Turn

Temperature = Annotated[float, msgspec.Meta(ge=0.0, le=2.0)]
TopP = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
TokenCount = Annotated[int, msgspec.Meta(ge=1)]
DeadlineS = Annotated[float, msgspec.Meta(gt=0.0, le=DEADLINE_S_MAX)]
PrivacyName = Literal["local", "swarm"]

# Tools know `developer` as the newer word for `system`.
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class Part(msgspec.Struct):
    """One part of a message's content. Only text can be used."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None


class ChatMessage(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[Any] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_swarm: bool | None = None  # Ours: how the answer came about, in its last chunk.


class ResponseFormat(msgspec.Struct):
    type: str = "text"


class SwarmWishes(msgspec.Struct, forbid_unknown_fields=True):
    """The request's `swarm` object. A misspelt field is refused: a privacy that is not heard would be broken."""

    skill: str | None = None
    deadline_s: DeadlineS | None = None
    privacy: PrivacyName | None = None


class ChatRequest(msgspec.Struct):
    """The fields that are known. Others are ignored, as all servers do."""

    messages: list[ChatMessage]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    swarm: SwarmWishes | None = None
    # Known, and refused where they would change the answer.
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None


DECODER = msgspec.json.Decoder(ChatRequest)


def turns_of(request: ChatRequest) -> list[Turn]:
    """The conversation. Raises ApiError for roles and contents that no model here can use."""
    return [_turn(number, message) for number, message in enumerate(request.messages)]


def wishes_of(request: ChatRequest) -> Wishes:
    """How the answer shall be made. Raises ApiError for what would be ignored and must not be."""
    _refuse_unsupported(request)
    swarm = request.swarm or SwarmWishes()
    stop = request.stop or []
    return Wishes(
        tokens_max=request.max_completion_tokens or request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stops=[stop] if isinstance(stop, str) else stop,
        deadline_s=swarm.deadline_s,
        privacy=swarm.privacy,
    )


def _turn(number: int, message: ChatMessage) -> Turn:
    place = f"messages[{number}]"
    role = _ROLES.get(message.role)
    if message.role in ("tool", "function") or message.tool_calls:
        raise _unsupported(f"{place}.role" if role is None else f"{place}.tool_calls", "no model here calls tools")
    if role is None:
        raise bad_request(f'{place}.role: "{message.role[:32]}" is not one of {", ".join(_ROLES)}.', f"{place}.role")
    return Turn(role, _text(place, message.content))


def _text(place: str, content: str | list[Part] | None) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(content):
        text = part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
        if text is None:
            raise _unsupported(f"{place}.content[{number}]", f'a part of type "{part.type[:32]}" is not text')
        texts.append(text)
    return "".join(texts)


def _refuse_unsupported(request: ChatRequest) -> None:
    if request.n not in (None, 1):
        raise _unsupported("n", "one request makes one answer")
    if request.tools:
        raise _unsupported("tools", "no model here calls tools")
    if request.functions:
        raise _unsupported("functions", "no model here calls functions")
    if any(modality != "text" for modality in request.modalities or ()):
        raise _unsupported("modalities", "answers are text")
    if request.audio is not None:
        raise _unsupported("audio", "answers are text")
    if request.logprobs or request.top_logprobs:
        raise _unsupported("logprobs" if request.logprobs else "top_logprobs", "probabilities do not travel")
    if request.response_format is not None and request.response_format.type != "text":
        raise _unsupported("response_format", "answers are free text")
    if request.presence_penalty:
        raise _unsupported("presence_penalty", "workers do not know penalties")
    if request.frequency_penalty:
        raise _unsupported("frequency_penalty", "workers do not know penalties")
    if request.logit_bias:
        raise _unsupported("logit_bias", "workers do not know biases")


def _unsupported(param: str, why: str) -> ApiError:
    return ApiError(400, "unsupported_parameter", f"{param} is not supported: {why}. Leave it out.", param=param)
