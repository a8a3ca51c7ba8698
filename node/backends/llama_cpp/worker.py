"""What the child does once its model is loaded: takes requests, lets the scheduler work on all of them, sends what comes of it."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from node.backends import BackendError
from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.answer import Answer
from node.backends.llama_cpp.ballot import Ballot
from node.backends.llama_cpp.context import Context
from node.backends.llama_cpp.formats import FormatRefused, Formats
from node.backends.llama_cpp.functions import CallFilter, ToolsRefused, forced_call, functions_of
from node.backends.llama_cpp.mailbox import Sink, told_bug
from node.backends.llama_cpp.model import ComputeFailed, Model, TooLong
from node.backends.llama_cpp.prompts import ChatTemplate, Refused
from node.backends.llama_cpp.sampling import Draw, NoWayOn, Told
from node.backends.llama_cpp.scheduler import Grown, Scheduler, Text
from node.backends.summaries import summary_turns

PIECE_INTERVAL_S = 0.02  # At most 50 pieces a second; a reader sees no difference, and every node on the way does.
PIECE_CHARACTERS_MAX = 65_536  # Of one piece. What tokens that were delivered say may be more than a frame holds.


@dataclass(slots=True)
class Call:
    """One answer on its way."""

    number: int
    text: Text
    tokens_in: int
    answer: Answer
    draw: Draw
    left: int  # Tokens that it may still have.
    waiting: str = ""  # Text that was not sent yet.
    told: int = 0  # Tokens of the answer that were.
    sent_at: float = 0.0
    filter: CallFilter | None = None  # If functions may be called.

    @property
    def tokens_out(self) -> int:
        return len(self.answer.tokens)


@dataclass(slots=True)
class Choice:
    """A choice among options on its way: one text after the other."""

    number: int
    text: Text
    tokens_in: int
    ballot: Ballot
    options: list[str]
    tokens_out: int = 0


class Worker:
    """Answers requests, as many at a time as the scheduler has room for."""

    def __init__(self, model: Model, context: Context, template: ChatTemplate | None, formats: Formats, sink: Sink) -> None:
        self._model, self._context, self._template, self._formats, self._sink = model, context, template, formats, sink
        self._scheduler = Scheduler(context)
        self._call_marks: dict[int, bytes] = {}
        if template is not None and template.style is not None:
            self._call_marks = model.marks(template.style.begin, template.style.end)
        self._calls: dict[int, Call | Choice] = {}
        self._by_text: dict[Text, Call | Choice] = {}
        self._planned: list[Call | Choice] = []

    def plan(self) -> frozenset[int]:
        self._planned = [self._by_text[text] for text in self._scheduler.plan()]
        return frozenset(call.number for call in self._planned)

    def step(self) -> None:
        try:
            grown = self._scheduler.compute()
        except ComputeFailed as error:
            for call in self._planned:
                self._end(call, "failed", str(error))
        else:
            self._go_on(grown)

    def cancel(self, call: int) -> None:
        if found := self._calls.get(call):
            self._end(found, "cancelled")

    # --- One call -----------------------------------------------------------------------------------------------------

    def begin(self, request: pipe.Generate) -> None:
        tokens: list[int] = []
        try:
            tokens = self._model.tokenize(self._prompt(request)) or [self._model.first_token]
            if len(tokens) >= self._context.tokens:
                raise TooLong(f"the input has {len(tokens)} tokens; {self._context.tokens} are the most, answer included")
            call = self._choice(request, tokens) if request.options else self._call(request, tokens)
        except (Refused, FormatRefused, ToolsRefused, TooLong, BackendError) as error:
            finish = "too_long" if isinstance(error, TooLong) else "refused"
            self._sink.say(pipe.Ended(request.call, finish, len(tokens), 0, str(error)))
            return
        self._calls[call.number] = self._by_text[call.text] = call
        self._scheduler.add(call.text)
        if isinstance(call, Call) and (call.left < 1 or call.answer.is_over):
            self._finish(call)

    def _call(self, request: pipe.Generate, prompt: list[int]) -> Call:
        answer = Answer(self._model, request, self._bytes_of)
        begun = answer.begun()
        form = None
        style = self._template.style if request.tools and self._template and request.skill == "chat" else None
        call = forced_call(style, functions_of(request.tools), request.tool) if style and request.tool else ""
        if request.schema or request.grammar or call:
            form = self._formats.format(request.schema, request.grammar, answer.tokens, call)
        forced = answer.forced() if request.forced else []
        tokens = [*prompt, *answer.tokens]
        room = self._context.tokens - len(tokens)
        left = min(request.tokens_max - len(answer.tokens), room)
        if request.forced:
            left = len(forced)
        if left > room or (room < 1 and not answer.is_over and len(answer.tokens) < request.tokens_max):
            # Begun by one that has more room, an answer is not over here.
            longest = f"{self._context.tokens} are the most"
            raise TooLong(f"with the answer it has {len(tokens) + len(forced)} tokens; {longest}")
        seed = request.seed or int.from_bytes(os.urandom(4), "big")
        draw = Draw(tokens, len(answer.tokens), request, seed, form, iter(forced) if request.forced else None)
        tokens += forced[:-1]
        text = Text(tokens, draw, max(0, len(forced) - 1), len(answer.tokens))
        calls = CallFilter(style, begun=bool(request.delivered)) if style else None
        begun = calls.push(begun) if calls else begun
        return Call(request.call, text, len(prompt), answer, draw, left, begun, len(answer.tokens), filter=calls)

    def _choice(self, request: pipe.Generate, prompt: list[int]) -> Choice:
        options = [self._model.tokenize_rest(option) for option in request.options]
        if not all(options):
            raise Refused("an option has no text")
        longest = max(map(len, options))
        if len(prompt) + longest > self._context.tokens:
            raise TooLong(f"with an option it has {len(prompt) + longest} tokens; {self._context.tokens} are the most")
        ballot = Ballot(prompt, options)
        return Choice(request.call, ballot.first(), len(prompt), ballot, request.options)

    def _prompt(self, request: pipe.Generate) -> str:
        if not request.turns:
            raise Refused("there is no turn to answer")
        if request.skill == "complete":
            return request.turns[-1][1]
        if self._template is None:
            raise Refused(f"the model has no chat template and cannot {request.skill}")
        if request.skill == "summarize":
            return self._template.render(summary_turns(request.turns[-1][1]))
        if not request.tools:
            return self._template.render(request.turns)
        if self._template.style is None:
            raise Refused("the model's chat template knows of no functions")
        return self._template.render(request.turns, functions_of(self._template.tools(request.tools)))

    def _go_on(self, grown: list[Grown]) -> None:
        """Send what the new tokens say, the first text of an answer at once, then coalesced."""
        for each in grown:
            call = self._by_text.get(each.text)
            if call is not None:  # Else it was over at an earlier token.
                self._guarded(call, partial(self._grow, call, each))
        now = time.monotonic()
        for call in list(self._calls.values()):
            if isinstance(call, Call) and now - call.sent_at >= PIECE_INTERVAL_S and (call.waiting or call.draw.told):
                call.sent_at = now
                self._guarded(call, partial(self._send, call))

    def _guarded(self, call: Call | Choice, work: Callable[[], None]) -> None:
        """Whatever one request may bring about, the others go on."""
        try:
            work()
        except Exception as error:  # noqa: BLE001
            finish, reason = ("refused", str(error)) if isinstance(error, BackendError) else ("failed", told_bug(error))
            if call.number in self._calls:
                self._end(call, finish, reason)
            else:
                self._sink.say(pipe.Ended(call.number, "failed", call.tokens_in, call.tokens_out, reason))

    def _grow(self, call: Call | Choice, each: Grown) -> None:
        if each.broken is not None:
            # The scheduler has let go of it. A format that nothing fits into is the request's fault.
            self._close(call, "refused" if isinstance(each.broken, NoWayOn) else "failed", str(each.broken))
        elif isinstance(call, Choice):
            if call.ballot.is_read:
                self._read_next(call)
        elif self._model.is_end(each.token):
            call.left = max(call.left, 1)
            call.draw.told = call.draw.told[:-1]  # The end is no part of the answer.
            self._finish(call)
        else:
            call.left -= 1
            self._take(call, call.answer.add(each.token, self._bytes_of(each.token)))
            if call.answer.is_over or call.left < 1:
                self._finish(call)

    def _take(self, call: Call, text: str) -> None:
        call.waiting += call.filter.push(text) if call.filter is not None else text

    def _bytes_of(self, token: int) -> bytes:
        """What a token says; also of the marks around calls, which a model may have as tokens of their own."""
        return self._call_marks.get(token) or self._model.bytes_of(token)

    def _send(self, call: Call) -> None:
        while len(call.waiting) > PIECE_CHARACTERS_MAX:
            self._sink.say(pipe.Piece(call.number, call.waiting[:PIECE_CHARACTERS_MAX], []))
            call.waiting = call.waiting[PIECE_CHARACTERS_MAX:]
        if call.waiting or call.draw.told:
            logprobs = [self._told(told) for told in call.draw.told]
            self._sink.say(pipe.Piece(call.number, call.waiting, call.answer.tokens[call.told :], logprobs))
            call.waiting, call.told, call.draw.told = "", len(call.answer.tokens), []

    def _told(self, told: Told) -> pipe.Told:
        pairs = [(told.token, told.logprob), *told.top]
        return [part for token, logprob in pairs for part in (self._model.bytes_of(token), logprob)]

    def _read_next(self, call: Choice) -> None:
        """Read the next option, or say which is the likeliest."""
        text = call.ballot.next()
        if text is not None:
            self._scheduler.remove(call.text)
            del self._by_text[call.text]
            call.text = text
            self._by_text[text] = call
            self._scheduler.add(text)
            return
        ballot = call.ballot
        ranked = sorted(range(len(call.options)), key=lambda number: -ballot.logprobs[number])
        best = ranked[0]
        told = [part for number in (best, *ranked) for part in (call.options[number].encode(), ballot.logprobs[number])]
        self._sink.say(pipe.Piece(call.number, call.options[best], [], [told]))
        call.tokens_out = len(ballot.options[best])
        self._end(call, "stop")

    def _finish(self, call: Call) -> None:
        self._take(call, call.answer.flush())
        functions: list[list[str]] = []
        if call.filter is not None:
            rest, functions = call.filter.end()
            call.waiting += rest
        self._send(call)
        cut = call.left < 1 and not call.answer.is_over and not call.draw.is_forced
        self._end(call, "tool_calls" if functions else "length" if cut else "stop", functions=functions)

    def _end(self, call: Call | Choice, finish: str, reason: str = "", functions: Sequence[list[str]] = ()) -> None:
        self._scheduler.remove(call.text)
        self._close(call, finish, reason, functions)

    def _close(self, call: Call | Choice, finish: str, reason: str, functions: Sequence[list[str]] = ()) -> None:
        del self._calls[call.number], self._by_text[call.text]
        self._sink.say(pipe.Ended(call.number, finish, call.tokens_in, call.tokens_out, reason, list(functions)))
