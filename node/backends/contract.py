"""The contract that every backend keeps, ours and a plug-in author's alike: `check_backend` says what is broken."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import trio
import trio.testing

from node.backends import Backend, BackendError, Generated, GenerationRequest, Piece
from protocol import codec
from protocol.messages import Advert
from protocol.parts import FEATURES, Capability, Demands, Sampling, Turn

TEXT = "Every evening the starlings gather over the reed bed, turn and fold like smoke, and settle all at once."
LOAD_S_MAX = 300.0  # Safety nets against hanging, not demands: a busy machine must not fail the contract.
ANSWER_S_MAX = 120.0


class ContractBroken(AssertionError):
    """A backend does not keep the contract. The message says which sentence of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One call's pieces in order, and how it ended."""

    pieces: tuple[Piece, ...]
    generated: Generated

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for piece in self.pieces for token in piece.tokens)


async def check_backend(
    open_backend: Callable[[], Backend], *, text: str = TEXT, tokens_max: int = 24
) -> tuple[Capability, ...]:
    """Open, run and try a backend; returns what it offered. Raises ContractBroken with a sentence.

    `text` must be something that every skill of the backend answers with more than one token, and the backend must
    repeat itself at temperature 0. Parallel calls, stops and cancelling are tried with the first capability only.
    """
    backend = open_backend()
    async with running(backend) as capabilities:
        _check_capabilities(capabilities)
        for capability in capabilities:
            await _check_answer(backend, _request(capability, text, tokens_max))
        request = _request(capabilities[0], text, tokens_max)
        reference = await ask(backend, request)
        _require(
            (await ask(backend, request)).text == reference.text,
            "the same request at temperature 0 gives the same text",
        )
        await _check_tokens_max(backend, request, reference)
        await _check_stops(backend, request, reference)
        await _check_going_on(backend, request, capabilities[0])
        await _check_features(backend, request, capabilities[0])
        await _check_refusals(backend, request)
        await _check_crowd(backend, request, reference, capabilities[0].slots)
        await _check_cancel(backend, request, reference, capabilities[0].slots)
        await _check_deaf_reader(backend, request, reference)
    try:
        await ask(backend, request)
    except BackendError:
        return capabilities
    raise ContractBroken("after `run` was cancelled, `generate` raises BackendError")


@asynccontextmanager
async def running(backend: Backend) -> AsyncIterator[tuple[Capability, ...]]:
    """A backend that runs for the length of the block, and what it offers."""
    async with trio.open_nursery() as nursery:
        with _within(LOAD_S_MAX, "`run` reports what it offers, or raises BackendError"):
            capabilities = await nursery.start(backend.run)
        yield capabilities
        nursery.cancel_scope.cancel()


async def ask(backend: Backend, request: GenerationRequest) -> Answer:
    """One call to its end. Raises BackendError."""
    send, receive = trio.open_memory_channel[str | Piece](0)
    pieces: list[Piece] = []
    generated: list[Generated] = []

    async def call() -> None:
        async with send:
            generated.append(await backend.generate(request, send))

    try:
        with _within(ANSWER_S_MAX, "`generate` ends"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                async for piece in receive:
                    pieces.append(piece if isinstance(piece, Piece) else Piece(piece, ()))
    except BaseExceptionGroup as group:
        if isinstance(group.exceptions[0], BackendError):
            raise group.exceptions[0] from None
        raise
    return Answer(tuple(pieces), generated[0])


def _check_capabilities(capabilities: tuple[Capability, ...]) -> None:
    _require(len(capabilities) > 0, "`run` reports at least one capability")
    named = {(capability.skill, capability.model) for capability in capabilities}
    _require(len(named) == len(capabilities), "no skill of a model is offered twice")
    for capability in capabilities:
        _require(capability.slots >= 1, "a capability has at least one slot")
        _require(capability.tokens_per_second > 0, "a capability's speed was measured")
    # The codec knows the bounds of every field.
    codec.encode(Advert("contract", (), capabilities[:1], 1, 0, 0, False))


async def _check_answer(backend: Backend, request: GenerationRequest) -> None:
    answer = await ask(backend, request)
    _require(answer.text != "", f"{request.skill} answers with text")
    _require(all(piece.text for piece in answer.pieces), "no piece is empty")
    _require(answer.generated.finish in ("stop", "length"), "`finish` is `stop` or `length`")
    _require(
        0 < answer.generated.tokens_out <= request.tokens_max, "`tokens_out` counts the answer, within `tokens_max`"
    )


async def _check_tokens_max(backend: Backend, request: GenerationRequest, reference: Answer) -> None:
    short = await ask(backend, replace(request, tokens_max=1))
    _require(short.generated.tokens_out <= 1, "`tokens_max` is kept")
    _require(reference.text.startswith(short.text), "a shorter answer is the beginning of the longer one")
    if reference.generated.tokens_out > 1:
        _require(short.generated.finish == "length", "an answer that `tokens_max` cut ends with `length`")
        _require(short.text != reference.text, "an answer that `tokens_max` cut is shorter")


async def _check_stops(backend: Backend, request: GenerationRequest, reference: Answer) -> None:
    text = reference.text
    # Where a piece ends, a stop string is split; in the middle, it is inside of one.
    cuts = {len(reference.pieces[0].text), len(text) // 2} - {0, len(text)}
    for cut in sorted(cuts):
        stop = text[max(0, cut - 2) : cut + 2]
        stopped = await ask(backend, replace(request, stops=("\x00never", stop)))
        _require(
            stopped.text == text.partition(stop)[0],
            f"nothing from the stop string {stop!r} on is sent: {stopped.text!r}",
        )
        _require(stopped.generated.finish == "stop", "an answer that met a stop string ends with `stop`")
    unmet = await ask(backend, replace(request, stops=(text[-1:] + "\x00",)))
    _require(unmet.text == text, "text that only began like a stop string is sent")


async def _check_going_on(backend: Backend, request: GenerationRequest, capability: Capability) -> None:
    """Cut an answer after every piece and let the backend go on; also from the text alone, which may lead elsewhere."""
    for temperature in (0.0, 0.8):
        asked = replace(request, sampling=replace(request.sampling, temperature=temperature))
        whole = await ask(backend, asked)
        for count in range(1, len(whole.pieces) + 1):
            begun = Answer(whole.pieces[:count], whole.generated)
            resumed = replace(asked, delivered=begun.text, delivered_tokens=begun.tokens)
            if not capability.numerics:
                await _check_refused(backend, resumed, "the middle of an answer, without `numerics`,")
                return
            rest = await ask(backend, resumed)
            _require(
                begun.text + rest.text == whole.text, "it goes on from the middle without a gap, an echo or a change"
            )
            _require(begun.tokens + rest.tokens == whole.tokens, "it goes on with the tokens that follow")
            _require(rest.generated.tokens_out == whole.generated.tokens_out, "`tokens_out` counts the whole answer")
            _require(rest.generated.finish == whole.generated.finish, "it finishes as the whole answer does")
            if len(begun.pieces[-1].tokens) > 1:
                # Tokens may be ahead of the text that was delivered: what they say is sent, and then what follows.
                before = "".join(piece.text for piece in begun.pieces[:-1])
                ahead = replace(asked, delivered=before, delivered_tokens=begun.tokens[:-1])
                joined = before + (await ask(backend, ahead)).text
                _require(joined == whole.text, "it says what tokens say whose text was not delivered")
        await ask(backend, replace(asked, delivered=whole.pieces[0].text))


async def _check_features(backend: Backend, request: GenerationRequest, capability: Capability) -> None:
    """Each demand that the capability says it honours."""
    _require(set(capability.features) <= set(FEATURES), "features are fields of Demands")

    async def demanded(**demands: Any) -> Answer:
        return await ask(backend, replace(request, demands=Demands(**demands)))

    if "schema" in capability.features:
        answer = await demanded(schema='{"enum": ["a", 1, null]}')
        _require(answer.text in ('"a"', "1", "null"), f"a schema is kept: {answer.text!r}")
        await _check_refused(backend, replace(request, demands=Demands(schema='{"type":')), "a schema that is no JSON")
    if "grammar" in capability.features:
        answer = await demanded(grammar='root ::= "left" | "right"')
        _require(answer.text in ("left", "right"), f"a grammar is kept: {answer.text!r}")
        await _check_refused(backend, replace(request, demands=Demands(grammar="root ::= (")), "a grammar that is none")
    if "logprobs" in capability.features:
        answer = await demanded(logprobs=3)
        told = [logprob for piece in answer.pieces for logprob in piece.logprobs]
        _require(len(told) == len(answer.tokens), "each token's log-probability is told")
        _require(all(len(each.top) == 2 for each in told), "and so many alternatives less one")
        _require(all(each.top[0].logprob >= each.top[1].logprob for each in told), "the likeliest first")
        _require(all(each.logprob <= 0 for each in told), "a probability is 1 at the most")
        if "forced" in capability.features:
            again = await demanded(forced=answer.text, forced_tokens=answer.tokens, logprobs=3)
            _require(again.text == answer.text, "a forced answer is the answer")
            _require([each for piece in again.pieces for each in piece.logprobs] == told, "and as likely as it was when drawn")
    if "options" in capability.features:
        answer = await demanded(options=("yes", "no", "something else"))
        [chosen] = [logprob for piece in answer.pieces for logprob in piece.logprobs]
        likeliest = sorted(chosen.top, key=lambda other: -other.logprob)
        _require(list(chosen.top) == likeliest, "all options are told, the likeliest first")
        _require({other.data.decode() for other in chosen.top} == {"yes", "no", "something else"}, "no option is left out")
        _require(answer.text == chosen.top[0].data.decode(), "the answer is the likeliest option")


async def _check_refused(backend: Backend, request: GenerationRequest, what: str) -> None:
    try:
        await ask(backend, request)
    except BackendError as error:
        _require(not error.retryable, f"the refusal of {what} says that a retry is no use")
    else:
        raise ContractBroken(f"{what} makes a BackendError")


async def _check_refusals(backend: Backend, request: GenerationRequest) -> None:
    for wrong, what in (
        (replace(request, model="no-such-model"), "an unknown model"),
        (replace(request, skill="no-such-skill"), "an unknown skill"),
        (replace(request, turns=()), "no turns"),
    ):
        await _check_refused(backend, wrong, what)


async def _check_crowd(backend: Backend, request: GenerationRequest, reference: Answer, slots: int) -> None:
    texts: list[str] = []

    async def one() -> None:
        texts.append((await ask(backend, request)).text)

    async with trio.open_nursery() as nursery:
        for _ in range(min(slots, 8) + 2):
            nursery.start_soon(one)
    _require(all(text == reference.text for text in texts), "calls over the slots wait, and all are answered alike")


async def _check_cancel(backend: Backend, request: GenerationRequest, reference: Answer, slots: int) -> None:
    """Fill every slot with a long answer whose reader waits, cancel them all; another call is served, whole."""
    started = trio.Event()
    bystander: list[str] = []

    async def abandon(scope: trio.CancelScope) -> None:
        send, receive = trio.open_memory_channel[str | Piece](0)
        with scope, send, receive:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    backend.generate, replace(request, tokens_max=4096, turns=(Turn("user", text * 8),)), send
                )
                await receive.receive()
                started.set()
                await trio.sleep_forever()

    async def stand_by() -> None:
        bystander.append((await ask(backend, request)).text)

    text = request.turns[-1].text + "\n"
    scopes = [trio.CancelScope() for _ in range(min(slots, 8))]
    with _within(ANSWER_S_MAX, "a cancelled call gives its slot back and leaves the others alone"):
        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(abandon, scope)
            await started.wait()
            nursery.start_soon(stand_by)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for scope in scopes:
                scope.cancel()
    _require(bystander == [reference.text], "a call beside cancelled ones is answered in full")


async def _check_deaf_reader(backend: Backend, request: GenerationRequest, reference: Answer) -> None:
    send, receive = trio.open_memory_channel[str | Piece](0)
    receive.close()
    try:
        with send, _within(ANSWER_S_MAX, "an answer without a reader ends"):
            await backend.generate(request, send)
    except BackendError:
        pass
    else:
        raise ContractBroken("an answer that nobody can read ends with BackendError")
    _require((await ask(backend, request)).text == reference.text, "the call after it is answered")


def _request(capability: Capability, text: str, tokens_max: int) -> GenerationRequest:
    return GenerationRequest(capability.skill, capability.model, (Turn("user", text),), tokens_max, Sampling(seed=7))


def _require(kept: bool, sentence: str) -> None:
    if not kept:
        raise ContractBroken(f"broken: {sentence}")


@contextmanager
def _within(seconds: float, sentence: str) -> Iterator[None]:
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise ContractBroken(f"broken within {seconds:.0f} s: {sentence}")
