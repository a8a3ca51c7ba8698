"""Fields that several requests share: how tokens are drawn, what an answer must look like, and the `swarm` object."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from node.api.errors import ApiError, bad_request
from node.api.tasks import DEADLINE_S_MAX, Wishes
from protocol import limits as lim
from protocol.parts import Demands

Temperature = Annotated[float, msgspec.Meta(ge=0.0, le=2.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)]
RepeatPenalty = Annotated[float, msgspec.Meta(ge=lim.REPEAT_PENALTY_MIN, le=lim.REPEAT_PENALTY_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0)]
TokenCount = Annotated[int, msgspec.Meta(ge=1)]
TokenLimit = Annotated[int, msgspec.Meta(ge=-1)]
"""-1 is no limit of the request's own, as llama.cpp's clients have it."""
DeadlineS = Annotated[float, msgspec.Meta(gt=0.0, le=DEADLINE_S_MAX)]
PrivacyName = Literal["local", "swarm"]
ANSWERS_MAX = 64  # Of one request.
AnswerCount = Annotated[int, msgspec.Meta(ge=1, le=ANSWERS_MAX)]
ALTERNATIVES_MAX = lim.LOGPROBS_MAX - 1
Alternatives = Annotated[int, msgspec.Meta(ge=0, le=ALTERNATIVES_MAX)]

ANY_OBJECT = '{"type":"object"}'


class SamplingFields(msgspec.Struct):
    """How tokens are drawn. OpenAI's names, and those that llama.cpp, Ollama and vLLM share."""

    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Count | None = None
    min_p: Share | None = None
    repeat_penalty: RepeatPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: int | None = None


def sampling_of(fields: SamplingFields) -> dict[str, Any]:
    """The same as arguments of `Wishes`."""
    given = {name: getattr(fields, name) for name in SamplingFields.__struct_fields__}
    if fields.seed is not None and fields.seed < 0:
        given["seed"] = None  # As llama.cpp and those who follow it have it: any.
    return given


class SwarmWishes(msgspec.Struct, forbid_unknown_fields=True):
    """The request's `swarm` object. A misspelt field is refused: a privacy that is not heard would be broken."""

    skill: str | None = None
    deadline_s: DeadlineS | None = None
    privacy: PrivacyName | None = None
    options: list[str] | None = None


class JsonSchema(msgspec.Struct):
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """OpenAI's, and with `schema` beside `json_object` that of llama-server."""

    type: str = "text"
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None


def schema_of(form: ResponseFormat | None) -> str:
    """The JSON Schema that a response format asks for; empty for free text. Raises ApiError."""
    match form:
        case None | ResponseFormat(type="text"):
            return ""
        case ResponseFormat(type="json_object"):
            return json_text(form.schema) or ANY_OBJECT
        case ResponseFormat(type="json_schema"):
            if form.json_schema is None:
                raise bad_request("response_format.json_schema: missing.", "response_format.json_schema")
            return json_text(form.json_schema.schema) or ANY_OBJECT
    raise unsupported("response_format", f'"{form.type[:32]}" is not known', "Give text, json_object or json_schema")


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_swarm: bool | None = None  # Ours: how the answer came about, in its last chunk.


class AnswerFields(SamplingFields, kw_only=True):
    """What chats and completions have in common. Fields that are not known are ignored, as all servers do."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    grammar: str | None = None
    swarm: SwarmWishes | None = None
    n: AnswerCount | None = None
    # Known, and refused because it would change the answer.
    logit_bias: dict[str, Any] | None = None

    @property
    def within_s(self) -> float | None:
        """How long the whole request may take, if it says so."""
        return self.swarm.deadline_s if self.swarm else None


def wishes_with(fields: AnswerFields, tokens_max: int | None, *, logprobs: int, tools: str = "", tool: str = "") -> Wishes:
    """How the answer shall be made. Raises ApiError for what would be ignored and must not be."""
    if fields.logit_bias:
        raise unsupported("logit_bias", "tokens have other numbers in each model")
    swarm, stop = fields.swarm or SwarmWishes(), fields.stop or []
    if swarm.options == []:
        raise bad_request("swarm.options: give at least one text.", "swarm.options")
    demands = demands_of(
        schema=schema_of(fields.response_format),
        grammar=fields.grammar or "",
        options=swarm.options or (),
        logprobs=logprobs,
        tools=tools,
        tool=tool,
    )
    stops = [stop] if isinstance(stop, str) else stop
    return Wishes(
        tokens_max=tokens_max,
        **sampling_of(fields),
        stops=stops,
        deadline_s=swarm.deadline_s,
        privacy=swarm.privacy,
        demands=demands,
    )


def demands_of(
    *,
    schema: str = "",
    grammar: str = "",
    options: Sequence[str] = (),
    forced: str = "",
    logprobs: int = 0,
    tools: str = "",
    tool: str = "",
) -> Demands:
    """Demands within the bounds of the wire. Raises ApiError that names the field."""
    for name, text in (("schema", schema), ("grammar", grammar), ("tools", tools)):
        if (size := len(text.encode())) > lim.FORMAT_BYTES_MAX:
            raise bad_request(f"{name}: {size} bytes, {lim.FORMAT_BYTES_MAX} allowed.", name)
    if len(options) > lim.OPTIONS_MAX:
        raise bad_request(f"options: {len(options)} texts, {lim.OPTIONS_MAX} allowed.", "options")
    for option in options:
        if not 0 < (size := len(option.encode())) <= lim.OPTION_BYTES_MAX:
            raise bad_request(f"options: a text of {size} bytes, 1 to {lim.OPTION_BYTES_MAX} allowed.", "options")
    if (size := len(forced.encode())) > lim.DELIVERED_BYTES_MAX:
        raise bad_request(f"forced: {size} bytes, {lim.DELIVERED_BYTES_MAX} allowed.", "forced")
    given = [name for name, value in (("schema", schema), ("grammar", grammar), ("options", options), ("forced", forced)) if value]
    if len(given) > 1:
        raise bad_request(f"{' and '.join(given)} exclude each other; give one.", given[1])
    if tool and not tools:
        raise bad_request("tool_choice: there are no tools.", "tool_choice")
    if len(tool.encode()) > lim.FUNCTION_BYTES_MAX:
        raise bad_request(f"tool_choice: a name of more than {lim.FUNCTION_BYTES_MAX} bytes.", "tool_choice")
    return Demands(schema, grammar, tuple(options), forced, (), logprobs, tools, tool)


def unsupported(param: str, why: str, instead: str = "Leave it out") -> ApiError:
    """What would be ignored and must not be."""
    return ApiError(400, "unsupported_parameter", f"{param} is not supported: {why}. {instead}.", param=param)


def json_text(value: object) -> str:
    """Empty for None."""
    return "" if value is None else msgspec.json.encode(value).decode()
