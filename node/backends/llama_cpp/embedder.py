"""What the child does with a model that turns texts into vectors: takes all that have come, and computes them side by side."""

import json
from typing import NoReturn

import llama_cpp as ll
import numpy as np
import numpy.typing as npt

from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.batch import Batch, Row
from node.backends.llama_cpp.context import ABORTED, Aborted, AbortFlag
from node.backends.llama_cpp.mailbox import Requests, Sink
from node.backends.llama_cpp.model import LoadFailed, Model, TooLong

TEXTS_MAX = 16  # In one batch.
ROWS_MAX = 2_048  # In one batch, all texts together; or one text as long as the model takes.
DIGITS = 8  # Of each number: what 32 bits hold.

Vector = npt.NDArray[np.float32]


class Embedder:
    """A model's vectors, each of length 1: the nearer two texts are in meaning, the larger is their scalar product."""

    def __init__(self, model: Model, tokens: int, threads: int, abort: AbortFlag, sink: Sink) -> None:
        """Texts of up to `tokens` tokens. Raises LoadFailed."""
        if model.pooling == ll.LLAMA_POOLING_TYPE_RANK:
            raise LoadFailed("it judges pairs of texts (a reranker), of which nothing here makes use")
        params = ll.llama_context_default_params()
        params.embeddings = True
        params.n_seq_max = TEXTS_MAX
        # An encoder looks at a whole text at once: it cannot be cut into batches.
        params.n_ctx = params.n_batch = params.n_ubatch = max(ROWS_MAX, tokens)
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        params.no_perf = True
        context = ll.llama_init_from_model(model.handle, params)
        if not context:
            raise LoadFailed("llama.cpp cannot make a context for it; is there enough memory?")
        ll.llama_set_abort_callback(context, abort.callback, abort.data)
        self._model, self._context, self._abort, self._sink = model, context, abort, sink
        self._memory = ll.llama_get_memory(context)
        self._numbers = int(ll.llama_model_n_embd(model.handle))
        self._batch = Batch(int(params.n_batch))
        self.tokens = tokens
        self._waiting: dict[int, list[int]] = {}

    def run(self, requests: Requests) -> NoReturn:
        """Until the process is ended."""
        stopped = False
        while True:
            self._abort.down()  # Before looking: who is cancelled from here on raises it again.
            for said in requests.take(wait=not self._waiting):
                if isinstance(said, pipe.Cancel):
                    self._cancel(said.call)
                else:
                    self._begin(said)
            batch = self._next()
            # Never two in a row: who cancels all the time must not keep the others from going on.
            requests.computing = frozenset() if stopped else frozenset(batch)
            requests.busy = True
            stopped = bool(batch) and not self._answer(batch)
            requests.busy = False
            requests.steps += 1
            self._sink.flush()

    def vectors(self, texts: list[list[int]]) -> list[Vector]:
        """One for each text, computed in one batch. Raises Aborted and LoadFailed."""
        rows = [Row(number, at, token, True) for number, text in enumerate(texts) for at, token in enumerate(text)]
        compute = ll.llama_decode if self._memory else ll.llama_encode
        if self._memory:
            ll.llama_memory_clear(self._memory, True)
        code = compute(self._context, self._batch.of(rows))
        if code == ABORTED:
            raise Aborted
        if code != 0:
            raise LoadFailed(f"llama.cpp cannot go on with it (code {code})")
        return [self._vector(number) for number in range(len(texts))]

    def _vector(self, number: int) -> Vector:
        found = ll.llama_get_embeddings_seq(self._context, number)
        if not found:
            raise LoadFailed("it makes no vector of a whole text")
        vector = np.ctypeslib.as_array(found, (self._numbers,)).copy()
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length):
            raise LoadFailed("the model computes numbers that are none; its file is damaged")
        return vector / np.float32(length or 1.0)

    def _begin(self, request: pipe.Generate) -> None:
        try:
            tokens = self._model.tokenize(request.turns[-1][1]) if request.turns else []
            if not tokens:
                raise TooLong("there is no text")
            if len(tokens) > self.tokens:
                raise TooLong(f"the text has {len(tokens)} tokens; {self.tokens} are the most")
        except TooLong as error:
            self._sink.say(pipe.Ended(request.call, "refused", 0, 0, str(error)))
        else:
            self._waiting[request.call] = tokens

    def _cancel(self, number: int) -> None:
        if self._waiting.pop(number, None) is not None:
            self._sink.say(pipe.Ended(number, "cancelled", 0, 0, ""))

    def _next(self) -> dict[int, list[int]]:
        """As many as fit into one batch, in the order in which they have come."""
        batch: dict[int, list[int]] = {}
        rows = 0
        for call, tokens in self._waiting.items():
            rows += len(tokens)
            if rows > self._batch.rows_max or len(batch) == TEXTS_MAX:
                break
            batch[call] = tokens
        return batch

    def _answer(self, batch: dict[int, list[int]]) -> bool:
        """False if it was stopped."""
        try:
            vectors = self.vectors(list(batch.values()))
        except Aborted:
            return False
        except LoadFailed as error:
            for call in batch:
                self._sink.say(pipe.Ended(call, "failed", len(self._waiting.pop(call)), 0, str(error)))
            return True
        for call, vector in zip(batch, vectors, strict=True):
            self._sink.say(pipe.Piece(call, json.dumps([float(f"{number:.{DIGITS}g}") for number in vector]), []))
            self._sink.say(pipe.Ended(call, "stop", len(self._waiting.pop(call)), 1, ""))
        return True
