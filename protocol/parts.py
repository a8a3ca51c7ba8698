"""What messages are made of: the types of their fields with their bounds, and the parts that have fields of their own."""

from dataclasses import dataclass
from typing import Annotated, NewType

from protocol import limits as lim
from protocol.bounds import Blob, Many, Real, Text, Whole
from protocol.identity import NodeId

TaskId = NewType("TaskId", bytes)
"""One task, 16 bytes, drawn by its requester."""
AttemptId = NewType("AttemptId", bytes)
"""One attempt, 16 bytes, drawn by its requester; unique between two nodes."""

Id16 = Blob(16, 16)
Node = Annotated[NodeId, Blob(32, 32)]
Version = Annotated[int, Whole(2**53 - 1)]
Name = Annotated[str, Text(lim.NAME_BYTES_MAX)]
Agent = Annotated[str, Text(lim.AGENT_BYTES_MAX)]
Skill = Annotated[str, Text(lim.SKILL_BYTES_MAX)]
Model = Annotated[str, Text(lim.MODEL_BYTES_MAX)]
Reason = Annotated[str, Text(lim.REASON_BYTES_MAX)]
Address = Annotated[str, Text(lim.ADDRESS_BYTES_MAX)]
Label = Annotated[str, Text(lim.LABEL_BYTES_MAX)]
Feature = Annotated[str, Text(lim.FEATURE_BYTES_MAX)]
Milliseconds = Annotated[int, Whole(lim.DEADLINE_MS_MAX)]
Tokens = Annotated[int, Whole(lim.CONTEXT_TOKENS_MAX)]
Token = Annotated[int, Whole(2**31 - 1)]
Slots = Annotated[int, Whole(lim.SLOTS_MAX)]
Code = Annotated[int, Whole(65_535)]
Prefix = Annotated[bytes, Blob(lim.PREFIX_BYTES, lim.PREFIX_BYTES)]


@dataclass(frozen=True, slots=True)
class Capability:
    """One skill as offered by one model on one node, with its measured speed.

    `digest` is the SHA-256 of the model's file (of all its files, one after the other, if it is split), or empty where there is
    none. `tokens_per_second` and `first_token_ms`
    were measured at load by the worker itself: claims, until a requester has seen for itself. `numerics` is equal for two
    workers that compute the same bits (engine build, instruction set, formats of keys and values), and empty for one that
    cannot go on from the middle of an answer. `features` names the fields of Demands that its worker honours.
    `tokens_in_per_second` is how fast it reads, measured as well; 0 if that is not known. `speedup` is how many times as many
    tokens per second all slots make together as one alone, since they may share a processor; 0: as many times as there are slots.
    """

    skill: Skill
    model: Model
    digest: Annotated[bytes, Blob(0, 32)]
    context_tokens: Tokens
    tokens_per_second: Annotated[float, Real(0.0, 1e9)]
    first_token_ms: Milliseconds
    slots: Slots
    labels: Annotated[tuple[Label, ...], Many(lim.LABELS_MAX)]
    description: Annotated[str, Text(lim.DESCRIPTION_BYTES_MAX)]
    numerics: Annotated[bytes, Blob(0, lim.NUMERICS_BYTES_MAX)] = b""
    features: Annotated[tuple[Feature, ...], Many(lim.FEATURES_MAX)] = ()
    tokens_in_per_second: Annotated[float, Real(0.0, 1e9)] = 0.0
    speedup: Annotated[float, Real(0.0, float(lim.SLOTS_MAX))] = 0.0

    @property
    def parallel(self) -> float:
        """How many answers at a time take as long as one alone: `speedup` within reason, or what it stands for."""
        slots = float(max(1, self.slots))
        return min(max(self.speedup, 1.0), slots) if self.speedup else slots


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A model wants a function called by whoever asked; `arguments` is a JSON object."""

    id: Annotated[str, Text(lim.FUNCTION_BYTES_MAX)]
    name: Annotated[str, Text(lim.FUNCTION_BYTES_MAX)]
    arguments: Annotated[str, Text(lim.ARGUMENTS_BYTES_MAX)]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation. `role` is `system`, `user`, `assistant` or `tool`.

    `calls` are what the assistant wanted called in this turn. A turn of the role `tool` has what came of one of them: `call` is its
    id.
    """

    role: Annotated[str, Text(16)]
    text: Annotated[str, Text(lim.TURN_BYTES_MAX)]
    calls: Annotated[tuple[FunctionCall, ...], Many(lim.CALLS_MAX)] = ()
    call: Annotated[str, Text(lim.FUNCTION_BYTES_MAX)] = ""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        calls = sum(16 + len(call.id.encode()) + len(call.name.encode()) + len(call.arguments.encode()) for call in self.calls)
        return len(self.text.encode()) + len(self.call.encode()) + calls


@dataclass(frozen=True, slots=True)
class Sampling:
    """How each token is drawn; section 13 says in which order these act. Temperature 0 takes the likeliest.

    `top_k` 0, `top_p` 1, `min_p` 0, `repeat_penalty` 1 and the other penalties 0 change nothing. `seed` 0 means the worker's
    choice.
    """

    temperature: Annotated[float, Real(0.0, 2.0)] = 0.0
    top_p: Annotated[float, Real(0.0, 1.0)] = 1.0
    top_k: Annotated[int, Whole(lim.TOP_K_MAX)] = 40
    min_p: Annotated[float, Real(0.0, 1.0)] = 0.05
    repeat_penalty: Annotated[float, Real(lim.REPEAT_PENALTY_MIN, lim.REPEAT_PENALTY_MAX)] = 1.0
    presence_penalty: Annotated[float, Real(-2.0, 2.0)] = 0.0
    frequency_penalty: Annotated[float, Real(-2.0, 2.0)] = 0.0
    seed: Annotated[int, Whole(2**32 - 1)] = 0


@dataclass(frozen=True, slots=True)
class Demands:
    """What not every worker can do. Each field that is set needs a worker whose capability names it among its `features`.

    `schema`: the answer is JSON of this JSON Schema. `grammar`: it is of this grammar, in GBNF. `options`: it is the likeliest
    of these texts. `forced`: it is this text; `forced_tokens` are what that is made of, if it is known. Of these four at most
    one is set. `logprobs`: log-probabilities travel with the answer, and with each of them one less than so many alternatives.
    `tools`: the answer may be calls of these functions, a JSON array as in the OpenAI API; it must be one of any if `tool` is `*`,
    and of that one if it is a name.
    """

    schema: Annotated[str, Text(lim.FORMAT_BYTES_MAX)] = ""
    grammar: Annotated[str, Text(lim.FORMAT_BYTES_MAX)] = ""
    options: Annotated[tuple[Annotated[str, Text(lim.OPTION_BYTES_MAX)], ...], Many(lim.OPTIONS_MAX)] = ()
    forced: Annotated[str, Text(lim.DELIVERED_BYTES_MAX)] = ""
    forced_tokens: Annotated[tuple[Token, ...], Many(lim.DELIVERED_TOKENS_MAX)] = ()
    logprobs: Annotated[int, Whole(lim.LOGPROBS_MAX)] = 0
    tools: Annotated[str, Text(lim.FORMAT_BYTES_MAX)] = ""
    tool: Annotated[str, Text(lim.FUNCTION_BYTES_MAX)] = ""

    @property
    def features(self) -> frozenset[str]:
        """What a worker must honour."""
        return frozenset(name for name in FEATURES if getattr(self, name))

    @property
    def has_logprobs(self) -> bool:
        """Whether log-probabilities come with the answer."""
        return bool(self.logprobs or self.options)

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        texts = (self.schema, self.grammar, *self.options, self.forced, self.tools, self.tool)
        return sum(len(text.encode()) for text in texts) + 5 * len(self.forced_tokens)


FEATURES = ("schema", "grammar", "options", "forced", "logprobs", "tools")
"""The fields of Demands that are features; `forced_tokens` go with `forced`, `tool` with `tools`."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token, or an option, that stood at this place; natural logarithm of its probability."""

    data: Annotated[bytes, Blob(0, lim.OPTION_BYTES_MAX)]
    logprob: Annotated[float, Real(lim.LOGPROB_MIN, 0.0)]


@dataclass(frozen=True, slots=True)
class Logprob:
    """How likely a token was by the model alone, before anything in Sampling acts, and the likeliest at its place, best first."""

    data: Annotated[bytes, Blob(0, lim.OPTION_BYTES_MAX)]
    logprob: Annotated[float, Real(lim.LOGPROB_MIN, 0.0)]
    top: Annotated[tuple[Alternative, ...], Many(lim.OPTIONS_MAX)] = ()

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 16 + len(self.data) + sum(16 + len(other.data) for other in self.top)
