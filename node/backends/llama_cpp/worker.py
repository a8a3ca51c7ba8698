"""What the child does once its model is loaded: takes requests, lets the scheduler work on all of them, sends what comes of it."""

import os
import queue
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import numpy as np

from node.backends import BackendError
from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.answer import Answer
from node.backends.llama_cpp.context import Aborted, AbortFlag, Context, Row
from node.backends.llama_cpp.model import LoadFailed, Model, TooLong
from node.backends.llama_cpp.prompts import ChatTemplate, Refused
from node.backends.llama_cpp.sampling import draw
from node.backends.llama_cpp.scheduler import Grown, Scheduler, Text
from node.backends.summaries import summary_turns

WARM_UP = "Every evening the starlings gather over the reed bed, turn and fold like smoke."  # More tokens than any kernel minds.
PIECE_INTERVAL_S = 0.02  # At most 50 pieces a second; a reader sees no difference, and every node on the way does.


class Requests:
    """What the parent wants, between the thread that reads and the one that works."""

    def __init__(self, source: int, abort: AbortFlag) -> None:
        self._source, self._abort = source, abort
        self._come: queue.SimpleQueue[pipe.Generate | pipe.Cancel] = queue.SimpleQueue()
        self.computing: frozenset[int] = frozenset()
        """The calls that are worth stopping a batch for, should they be cancelled."""

    def read_forever(self) -> None:
        """Ends the process, at once and whatever it is doing, when the parent is gone or makes no sense."""
        unpacker = pipe.Unpacker()
        try:
            while chunk := os.read(self._source, 65_536):
                for said in unpacker.feed(chunk):
                    if isinstance(said, pipe.Generate | pipe.Cancel):
                        self._come.put(said)
                    if isinstance(said, pipe.Cancel) and said.call in self.computing:
                        self._abort.up()
        finally:
            os._exit(0)

    def take(self, wait: bool) -> Iterator[pipe.Generate | pipe.Cancel]:
        """All that has come; if asked to, wait until something does."""
        if wait:
            yield self._come.get()
        with suppress(queue.Empty):
            while True:
                yield self._come.get_nowait()


@dataclass(slots=True)
class Call:
    """One answer on its way."""

    number: int
    answer: Answer
    text: Text
    tokens_in: int
    left: int  # Tokens that it may still have.
    waiting: str = ""  # Text that was not sent yet.
    told: int = 0  # Tokens of the answer that were.
    sent_at: float = 0.0


class Worker:
    """Answers requests, as many at a time as the scheduler has room for."""

    def __init__(self, model: Model, context: Context, template: ChatTemplate | None, sink: int) -> None:
        self._model, self._context, self._template, self._sink = model, context, template, sink
        self._scheduler = Scheduler(context)
        self._calls: dict[int, Call] = {}
        self._by_text: dict[Text, Call] = {}
        self._out = bytearray()

    def run(self, requests: Requests, abort: AbortFlag) -> NoReturn:
        """Until the process is ended."""
        stopped = False
        while True:
            abort.down()  # Before looking: who is cancelled from here on raises it again.
            for said in requests.take(wait=not self._calls):
                if isinstance(said, pipe.Cancel):
                    self._cancel(said.call)
                else:
                    self._begin(said)
            # Never two in a row: who cancels all the time must not keep the others from going on.
            requests.computing = frozenset() if stopped else frozenset(self._calls)
            stopped = False
            try:
                self._go_on(self._scheduler.step())
            except Aborted:
                stopped = True
            except LoadFailed as error:
                for call in list(self._calls.values()):
                    self._end(call, "failed", str(error))
            self.flush()

    def warm_up(self) -> bool:
        """Whether a token has the same bits alone as among others. Raises LoadFailed.

        For many kinds of weights llama.cpp has other kernels for several rows than for one, and which depends on the processor.
        Pages and buffers are touched by it, so that the first user does not wait for that.
        """
        text = [self._model.first_token, *self._model.tokenize_plain(WARM_UP)]
        rows = [Row(0, at, token, True) for at, token in enumerate(text[: self._context.tokens])]
        for row in rows:
            self._context.decode([row])
        alone = self._context.logits(0).copy()
        self._context.forget(0, 0)
        self._context.decode(rows)
        exact = np.array_equal(alone, self._context.logits(len(rows) - 1))
        self._context.forget(0, 0)
        return bool(exact)

    def say(self, said: pipe.Said) -> None:
        """Put it with what is sent by the next flush."""
        self._out += pipe.pack(said)

    def flush(self) -> None:
        """Send all that was said, in one go."""
        data = memoryview(bytes(self._out))
        self._out.clear()
        while data:
            data = data[os.write(self._sink, data) :]

    # --- One call -----------------------------------------------------------------------------------------------------

    def _begin(self, request: pipe.Generate) -> None:
        tokens: list[int] = []
        try:
            tokens = self._model.tokenize(self._prompt(request)) or [self._model.first_token]
            if len(tokens) >= self._context.tokens:
                raise TooLong(f"the input has {len(tokens)} tokens; {self._context.tokens} are the most, answer included")
            answer = Answer(self._model, request)
            begun = answer.begun()
        except (Refused, TooLong, BackendError) as error:
            self.say(pipe.Ended(request.call, "refused", len(tokens), 0, str(error)))
            return
        left = min(request.tokens_max, self._context.tokens - len(tokens)) - len(answer.tokens)
        seed = request.seed or int.from_bytes(os.urandom(4), "big")
        dice = np.random.Generator(np.random.PCG64(seed).advance(len(answer.tokens)))  # Each token has taken one step.
        choose = partial(draw, temperature=request.temperature, top_p=request.top_p, dice=dice)
        text = Text([*tokens, *answer.tokens], choose)
        call = Call(request.call, answer, text, len(tokens), left, begun, len(answer.tokens))
        self._calls[call.number] = self._by_text[text] = call
        self._scheduler.add(text)
        if left < 1 or answer.is_over:
            self._finish(call)

    def _prompt(self, request: pipe.Generate) -> str:
        if not request.turns:
            raise Refused("there is no turn to answer")
        if request.skill == "complete":
            return request.turns[-1][1]
        if self._template is None:
            raise Refused(f"the model has no chat template and cannot {request.skill}")
        if request.skill == "summarize":
            return self._template.render(summary_turns(request.turns[-1][1]))
        return self._template.render(request.turns)

    def _go_on(self, grown: list[Grown]) -> None:
        """Send what the new tokens say, the first text of an answer at once, then coalesced."""
        for each in grown:
            call = self._by_text[each.text]
            if each.broken:
                self._end(call, "failed", each.broken)
            elif self._model.is_end(each.token):
                call.left = max(call.left, 1)
                self._finish(call)
            else:
                call.left -= 1
                call.waiting += call.answer.add(each.token, self._model.bytes_of(each.token))
                if call.answer.is_over or call.left < 1:
                    self._finish(call)
        now = time.monotonic()
        for call in self._calls.values():
            if call.waiting and now - call.sent_at >= PIECE_INTERVAL_S:
                call.sent_at = now
                self._send(call)

    def _send(self, call: Call) -> None:
        if call.waiting:
            self.say(pipe.Piece(call.number, call.waiting, call.answer.tokens[call.told :]))
            call.waiting, call.told = "", len(call.answer.tokens)

    def _finish(self, call: Call) -> None:
        call.waiting += call.answer.flush()
        self._send(call)
        self._end(call, "length" if call.left < 1 and not call.answer.is_over else "stop")

    def _cancel(self, number: int) -> None:
        if call := self._calls.get(number):
            self._end(call, "cancelled")

    def _end(self, call: Call, finish: str, reason: str = "") -> None:
        del self._calls[call.number], self._by_text[call.text]
        self._scheduler.remove(call.text)
        self.say(pipe.Ended(call.number, finish, call.tokens_in, len(call.answer.tokens), reason))
