"""The process that a GGUF model lives and may die in: `python -m node.backends.llama_cpp.child`.

It reads requests from stdin and answers on stdout (see `pipe`); whatever the engine prints goes to stderr, which the parent has
bound to a log. The main thread loads and decodes; a second one reads requests and ends the process when stdin closes, so that
no child outlives its parent. What is shut off before the file is read stands in `sandbox`.
"""

import codecs
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from node.backends import BackendError
from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.sandbox import restrict_files, restrict_process
from node.backends.stops import Remaining, StopFilter
from node.backends.summaries import summary_turns

if TYPE_CHECKING:
    from node.backends.llama_cpp.engine import AbortFlag, Engine
    from node.backends.llama_cpp.prompts import ChatTemplate

PIECE_INTERVAL_S = 0.02  # At most 50 pieces a second; a reader sees no difference, and every node on the way does.
CALLS_WAITING_MAX = 64  # The parent sends one at a time; more is a fault.
EXIT_UNFIT = 3


class Requests:
    """What the parent wants, between the thread that reads and the one that works."""

    def __init__(self, source: int, abort: "AbortFlag") -> None:
        self._source, self._abort = source, abort
        self._waiting: queue.Queue[pipe.Generate] = queue.Queue(CALLS_WAITING_MAX)
        self._cancelled: set[int] = set()
        self._working: int | None = None
        self._lock = threading.Lock()

    def read_forever(self) -> None:
        """Ends the process, at once and whatever it is doing, when the parent is gone or makes no sense."""
        unpacker = pipe.Unpacker()
        try:
            while chunk := os.read(self._source, 65_536):
                for said in unpacker.feed(chunk):
                    self._take(said)
        finally:
            os._exit(0)

    def _take(self, said: pipe.Said) -> None:
        if isinstance(said, pipe.Generate):
            self._waiting.put_nowait(said)
        elif isinstance(said, pipe.Cancel):
            with self._lock:
                self._cancelled.add(said.call)
                if said.call == self._working:
                    self._abort.up()

    def next(self) -> pipe.Generate:
        """Wait for the next request. A cancelled one comes too, with the flag up."""
        request = self._waiting.get()
        with self._lock:
            self._working = request.call
            if request.call in self._cancelled:
                self._abort.up()
        return request

    def done(self) -> None:
        with self._lock:
            self._working = None
            self._cancelled.clear()  # Calls come one after the other; what is left are cancels that came too late.
            self._abort.down()


class Worker:
    """Answers requests, one at a time."""

    def __init__(self, engine: "Engine", template: "ChatTemplate | None", abort: "AbortFlag", sink: int) -> None:
        self._engine, self._template, self._abort, self._sink = engine, template, abort, sink

    def say(self, said: pipe.Said) -> None:
        data = memoryview(pipe.pack(said))
        while data:
            data = data[os.write(self._sink, data) :]

    def answer(self, request: pipe.Generate) -> pipe.Ended:
        """Send the answer's pieces; return how it ended."""
        from node.backends.llama_cpp.engine import Aborted, LoadFailed, TooLong
        from node.backends.llama_cpp.prompts import Refused
        from node.backends.llama_cpp.sampling import BrokenLogits

        tokens: list[int] = []
        try:
            tokens = self._engine.tokenize(self._prompt(request))
            finish, count = self._stream(request, tokens, Answer(self._engine, request))
            return pipe.Ended(request.call, finish, len(tokens), count, "")
        except Aborted:
            return pipe.Ended(request.call, "cancelled", len(tokens), 0, "")
        except (Refused, TooLong, BackendError) as error:
            return pipe.Ended(request.call, "refused", len(tokens), 0, str(error))
        except (BrokenLogits, LoadFailed) as error:
            return pipe.Ended(request.call, "failed", len(tokens), 0, str(error))

    def _prompt(self, request: pipe.Generate) -> str:
        from node.backends.llama_cpp.prompts import Refused

        if not request.turns:
            raise Refused("there is no turn to answer")
        if request.skill == "complete":
            return request.turns[-1][1]
        if self._template is None:
            raise Refused(f"the model has no chat template and cannot {request.skill}")
        if request.skill == "summarize":
            return self._template.render(summary_turns(request.turns[-1][1]))
        return self._template.render(request.turns)

    def _stream(self, request: pipe.Generate, tokens: list[int], answer: "Answer") -> tuple[str, int]:
        """Send text as it comes, the first at once, then coalesced. Returns `finish` and the number of the answer's tokens."""
        seed = request.seed or int.from_bytes(os.urandom(4), "big")
        waiting, sent_at = answer.begun(), 0.0
        left = min(request.tokens_max, self._engine.context_tokens - len(tokens)) - len(answer.tokens)
        told, full = len(answer.tokens), left < 1
        drawn = [] if answer.is_over or (full and answer.tokens) else self._engine.generate(
            [*tokens, *answer.tokens], len(answer.tokens), left, request.temperature, request.top_p, seed
        )  # fmt: skip
        for token, data in drawn:
            left -= 1
            full = left < 1
            waiting += answer.add(token, data)
            if answer.is_over:
                break
            now = time.monotonic()
            if waiting and now - sent_at >= PIECE_INTERVAL_S:
                self.say(pipe.Piece(request.call, waiting, answer.tokens[told:]))
                waiting, sent_at, told = "", now, len(answer.tokens)
        waiting += answer.flush()
        if waiting:
            self.say(pipe.Piece(request.call, waiting, answer.tokens[told:]))
        return ("length" if full and not answer.is_over else "stop"), len(answer.tokens)


class Answer:
    """An answer's tokens and the text that they make; of that, what was not delivered before.

    Tokens that were delivered go through the same decoder and the same stop filter again, so that half a character, or what may be
    the beginning of a stop string, is held back here as it was there.
    """

    def __init__(self, engine: "Engine", request: pipe.Generate) -> None:
        self._engine, self._request = engine, request
        self._decoder = _decoder()
        self._stops, self._remaining = StopFilter(request.stops), Remaining(request.delivered)
        self._ended = False
        self.tokens: list[int] = []

    @property
    def is_over(self) -> bool:
        """Whether a stop string has been met, or the end was delivered already."""
        return self._stops.stopped or self._ended

    def begun(self) -> str:
        """Take in what was delivered; returns what follows from it already.

        Tokens that do not make the text are left aside: whoever told them, the text is what the user has seen.
        """
        delivered, tokens = self._request.delivered, self._request.delivered_tokens
        ends = next((at for at, token in enumerate(tokens) if self._engine.is_end(token)), len(tokens))
        if not self._make(tokens[:ends], delivered):
            self.tokens = self._engine.tokenize_plain(delivered)
            return self._remaining.after(self._stops.push(delivered))
        said = ""
        for token in tokens[:ends]:
            if not self.is_over:
                said += self.add(token, self._engine.bytes_of(token))
        self._ended = ends < len(tokens)
        return said

    def _make(self, tokens: list[int], text: str) -> bool:
        """Whether the tokens are the model's and say this text, or more."""
        try:
            return _decoder().decode(b"".join(map(self._engine.bytes_of, tokens))).startswith(text)
        except ValueError:
            return False

    def add(self, token: int, data: bytes) -> str:
        """Take in the next token; returns what the user can be given now."""
        self.tokens.append(token)
        return self._remaining.after(self._stops.push(self._decoder.decode(data)))

    def flush(self) -> str:
        """The answer is over. Bytes that no character was made of are dropped: the answer was cut inside of one."""
        return self._remaining.after(self._stops.flush())


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


def main() -> None:
    """Arguments: the model's path, the number of threads, the parent's process id."""
    path, threads, parent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    guards = restrict_process(parent)
    # The pipe's ends move out of the way; what prints to stdout now reaches the log.
    source, sink = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        worker, requests = _load(path, threads, guards, source, sink)
    except _CannotLoad as error:
        os.write(sink, pipe.pack(pipe.Unfit(str(error)[:1_000])))
        os._exit(EXIT_UNFIT)
    while True:
        request = requests.next()
        ended = worker.answer(request)
        requests.done()
        worker.say(ended)


class _CannotLoad(Exception):
    """The message goes to the user."""


def _load(path: Path, threads: int, guards: list[str], source: int, sink: int) -> tuple[Worker, Requests]:
    try:
        from node.backends.llama_cpp.engine import AbortFlag, Engine, LoadFailed
        from node.backends.llama_cpp.prompts import ChatTemplate, Refused
    except (ImportError, OSError, RuntimeError) as error:
        raise _CannotLoad(f"engine missing: {error}") from error
    # The parts of a model that is split over several files stand side by side.
    prefix = path.name.partition("-00001-of-")[0]
    siblings = sorted(path.parent.glob(f"{prefix}-*-of-*.gguf")) if prefix != path.name else []
    guards += restrict_files([path, path.resolve(), *siblings])
    abort = AbortFlag()
    requests = Requests(source, abort)
    threading.Thread(target=requests.read_forever, name="requests", daemon=True).start()
    template, note = None, "it has no chat template, so it only completes text"
    try:
        engine = Engine(path, threads, abort)
        if engine.template is not None:
            template, note = ChatTemplate(engine.template, engine.begin, engine.end, engine.control_texts()), ""
    except LoadFailed as error:
        raise _CannotLoad(str(error)) from error
    except Refused as error:
        note = f"{error}; so it only completes text"
    worker = Worker(engine, template, abort, sink)
    skills = ["chat", "summarize", "complete"] if template else ["complete"]
    # Pages and buffers are touched once, so that the first user does not wait for it.
    for _ in engine.generate(engine.tokenize("Hello"), 0, 1, 0.0, 1.0, 1):
        pass
    worker.say(pipe.Ready(engine.context_tokens, skills, guards, note, engine.numerics))
    return worker, requests


if __name__ == "__main__":
    main()
