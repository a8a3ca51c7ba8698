"""What the child does with a model that makes a vector of a whole text, or a number of two: it computes many side by side."""

import json
from time import perf_counter

import llama_cpp as ll
import numpy as np
import numpy.typing as npt

from node.backends.llama_cpp import pipe
from node.backends.llama_cpp.batch import RATE_FIRST, Batch, Row, rate_after
from node.backends.llama_cpp.context import ABORTED, Aborted, AbortFlag
from node.backends.llama_cpp.mailbox import Sink
from node.backends.llama_cpp.model import ComputeFailed, LoadFailed, Model, TooLong
from node.backends.llama_cpp.prompts import Refused
from node.vectors import rounded

TEXTS_MAX = 16  # In one batch.
ROWS_MAX = 2_048  # In one batch, all texts together; or one text as long as the model takes.
BATCH_S = 0.5  # What a batch of several texts may take: whoever comes, or leaves, waits for it.

Vector = npt.NDArray[np.float32]


class Embedder:
    """A model that pools.

    One that makes vectors (`embed`) makes them of length 1: the nearer two texts are in meaning, the larger is their scalar
    product. One that judges (`rerank`) says of a question and a text how much they have to do with each other: any number, the
    larger the more.
    """

    def __init__(self, model: Model, tokens: int, threads: int, abort: AbortFlag, sink: Sink) -> None:
        """Texts of up to `tokens` tokens. Raises LoadFailed."""
        self.skill = "rerank" if model.pooling == ll.LLAMA_POOLING_TYPE_RANK else "embed"
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
        self._model, self._context, self._sink = model, context, sink
        self._memory = ll.llama_get_memory(context)
        judges = self.skill == "rerank"
        self._numbers = int(ll.llama_model_n_cls_out(model.handle) if judges else ll.llama_model_n_embd(model.handle))
        self._batch = Batch(int(params.n_batch))
        self.tokens = tokens
        self._waiting: dict[int, list[int]] = {}
        self._planned: list[int] = []  # The calls of the next batch.
        self._rows_per_s = RATE_FIRST

    def plan(self) -> frozenset[int]:
        self._planned = self._next()
        return frozenset(self._planned)

    def step(self) -> None:
        texts = [self._waiting[call] for call in self._planned]
        began = perf_counter()
        try:
            self._compute(texts)
        except ComputeFailed as error:
            for call in self._planned:
                self._end(call, "failed", 0, str(error))
            return
        self._rows_per_s = rate_after(self._rows_per_s, sum(map(len, texts)), perf_counter() - began)
        for number, call in enumerate(self._planned):
            try:
                said = self._said(self._vector(number))
            except ComputeFailed as error:
                self._end(call, "failed", 0, str(error))
            else:
                self._sink.say(pipe.Piece(call, said, []))
                self._end(call, "stop", 1)

    def _end(self, call: int, finish: str, tokens_out: int, reason: str = "") -> None:
        self._sink.say(pipe.Ended(call, finish, len(self._waiting.pop(call)), tokens_out, reason))

    def cancel(self, call: int) -> None:
        if self._waiting.pop(call, None) is not None:
            self._sink.say(pipe.Ended(call, "cancelled", 0, 0, ""))

    def begin(self, request: pipe.Generate) -> None:
        try:
            tokens = self._tokens(request)
            if len(tokens) > self.tokens:
                raise TooLong(f"the text has {len(tokens)} tokens; {self.tokens} are the most")
        except (Refused, TooLong) as error:
            self._sink.say(pipe.Ended(request.call, "too_long" if isinstance(error, TooLong) else "refused", 0, 0, str(error)))
        else:
            self._waiting[request.call] = tokens

    def _compute(self, texts: list[list[int]]) -> None:
        """All of them in one batch. Raises Aborted and ComputeFailed."""
        rows = [Row(number, at, token, True) for number, text in enumerate(texts) for at, token in enumerate(text)]
        compute = ll.llama_decode if self._memory else ll.llama_encode
        if self._memory:
            ll.llama_memory_clear(self._memory, True)
        code = compute(self._context, self._batch.of(rows))
        if code == ABORTED:
            raise Aborted
        if code != 0:
            raise ComputeFailed(f"llama.cpp cannot go on with it (code {code})")

    def _vector(self, number: int) -> Vector:
        """Of one text of the last batch. Raises ComputeFailed."""
        found = ll.llama_get_embeddings_seq(self._context, number)
        if not found:
            raise ComputeFailed("it makes no vector of a whole text")
        vector = np.ctypeslib.as_array(found, (self._numbers,)).copy()
        if not np.isfinite(vector).all():
            raise ComputeFailed("the model computes numbers that are none; its file is damaged")
        return vector

    def _said(self, vector: Vector) -> str:
        """JSON: of a judge the first number, which says how much; of a vector all."""
        if self.skill == "rerank":
            return json.dumps(rounded(vector[0]))
        return json.dumps([rounded(number) for number in vector / np.float32(np.linalg.norm(vector) or 1.0)])

    def _tokens(self, request: pipe.Generate) -> list[int]:
        """Raises Refused and TooLong."""
        texts = [turn[1] for turn in request.turns]
        if self.skill == "rerank":
            if len(texts) != 2:
                raise Refused("a question and a text are needed, a turn each")
            return self._model.tokenize_pair(*texts)
        tokens = self._model.tokenize(texts[-1]) if texts else []
        if not tokens:
            raise Refused("there is no text")
        return tokens

    def _next(self) -> list[int]:
        """As many as fit into one batch and its time, at least one, in the order in which they have come."""
        batch: list[int] = []
        room = min(self._batch.rows_max, int(self._rows_per_s * BATCH_S))
        for call, tokens in self._waiting.items():
            room -= len(tokens)
            if batch and (room < 0 or len(batch) == TEXTS_MAX):
                break
            batch.append(call)
        return batch
