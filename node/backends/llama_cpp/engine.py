"""One model on llama.cpp's low level: load, tokenize, decode, sample. Runs only in the child, on one thread.

Load and decode stay on the same thread: OpenMP otherwise counts one thread too many and decoding falls to a seventh.

Keys and values are f16 with flash attention, decoded in batches below 64 tokens: then a token's logits do not depend, in any
bit, on how the tokens before it were batched, and temperature 0 gives the same text whether a prefix was in the cache or not.
(From 64 tokens on llama.cpp takes another kernel. f16 without flash attention prefills a fifth faster, but its logits move by
up to 0.8; bf16 is as exact and half as fast on processors without AMX.)
"""

import ctypes
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import llama_cpp as ll
import numpy as np

from node.backends.llama_cpp.sampling import draw

CONTEXT_TOKENS_MAX = 4096  # The cache is allocated at load: 94 MB for SmolLM2-135M, 500 MB for an 8B model.
BATCH_TOKENS = 48  # See above. Prefill: 120 tokens/s against 148 with f16, no flash attention and batches of 512.
NUMERICS_BYTES = 16
ABORTED = 2  # What llama_decode returns when the abort callback said so.


class LoadFailed(Exception):
    """The engine cannot load or run the file. The message is for people and completes "FILE: …"."""


class TooLong(Exception):
    """The input does not fit the model's context. The message is for people."""


class Aborted(Exception):
    """The work was stopped inside of a decode. The engine is ready for the next request."""


class AbortFlag:
    """What llama.cpp asks between two graph nodes whether to go on. It can be raised from any thread, without Python in between.

    The callback is C's own `atoi` on a text of one digit: no interpreter lock is taken, and it costs nothing.
    """

    def __init__(self) -> None:
        self._digit = ctypes.create_string_buffer(b"0", 2)
        atoi = ctypes.cast(ctypes.CDLL(None).atoi, ll.ggml_abort_callback)
        self.callback, self.data = atoi, ctypes.cast(self._digit, ctypes.c_void_p)

    def __bool__(self) -> bool:
        return self._digit.value == b"1"

    def up(self) -> None:
        self._digit.value = b"1"

    def down(self) -> None:
        self._digit.value = b"0"


class Engine:
    """A loaded model with one sequence. What it has decoded last is kept, and a request that begins alike starts from there."""

    def __init__(self, path: Path, threads: int, abort: AbortFlag) -> None:
        """Raises LoadFailed. What the library says meanwhile goes to stderr."""
        self._abort = abort
        ll.llama_backend_init()
        model_params = ll.llama_model_default_params()
        model_params.n_gpu_layers = 0
        model = ll.llama_model_load_from_file(os.fsencode(path), model_params)
        if not model:
            raise LoadFailed("llama.cpp cannot load it")
        self._model = model
        if ll.llama_model_has_encoder(model) or not ll.llama_model_has_decoder(model):
            raise LoadFailed("it is no model that continues text (an encoder)")
        self._vocab = ll.llama_model_get_vocab(model)
        self.vocabulary_size = ll.llama_vocab_n_tokens(self._vocab)
        if self.vocabulary_size < 2:
            raise LoadFailed("it has no vocabulary")
        params = ll.llama_context_default_params()
        params.n_ctx = min(max(ll.llama_model_n_ctx_train(model), 1), CONTEXT_TOKENS_MAX)
        params.n_batch = params.n_ubatch = min(BATCH_TOKENS, params.n_ctx)
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = ll.GGML_TYPE_F16
        params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_ENABLED
        # Threads are not among them: one and two give the same bits (`make bench ARGS=resume`).
        self._formats = b"%d %d %d" % (params.type_k, params.flash_attn_type, params.n_ubatch)
        context = ll.llama_init_from_model(model, params)
        if not context:
            raise LoadFailed("llama.cpp cannot make a context for it; is there enough memory?")
        self._context = context
        self._memory = ll.llama_get_memory(context)
        ll.llama_set_abort_callback(context, abort.callback, abort.data)
        self.context_tokens = int(ll.llama_n_ctx(context))
        self._batch_tokens = int(ll.llama_n_batch(context))  # A tiny context takes less than was asked for.
        self._held: list[int] = []
        self._piece = ctypes.create_string_buffer(256)

    @property
    def template(self) -> str | None:
        """The chat template in the file, if there is one."""
        found = ll.llama_model_chat_template(self._model, None)
        return found.decode("utf-8", "replace") if found else None

    @property
    def begin(self) -> str:
        """The text of the token that begins a sequence."""
        return self._token_text(ll.llama_vocab_bos(self._vocab))

    @property
    def end(self) -> str:
        """The text of the token that ends a sequence."""
        return self._token_text(ll.llama_vocab_eos(self._vocab))

    def control_texts(self) -> list[str]:
        """The texts of the tokens that are no text but marks, longest first."""
        marks = (t for t in range(self.vocabulary_size) if ll.llama_vocab_is_control(self._vocab, t))
        return sorted(filter(None, map(self._token_text, marks)), key=lambda text: (-len(text), text))

    def tokenize(self, text: str) -> list[int]:
        """Tokens with the tokenizer's own beginning, once, and with marks such as `<|im_end|>` understood."""
        if ll.llama_vocab_get_add_bos(self._vocab) and self.begin:
            text = text.removeprefix(self.begin)
        return self._tokenize(text, True)

    def tokenize_plain(self, text: str) -> list[int]:
        """Tokens of a part of a text: no beginning, and what looks like a mark is only text."""
        return self._tokenize(text, False)

    def _tokenize(self, text: str, with_marks: bool) -> list[int]:
        data = text.encode("utf-8", "replace")
        size = len(data) + 8  # Never more tokens than bytes, but for those that the tokenizer adds.
        tokens = (ll.llama_token * size)()
        count = ll.llama_tokenize(self._vocab, data, len(data), tokens, size, with_marks, with_marks)
        if count < 0:
            raise TooLong(f"the tokenizer makes {-count} tokens of {len(data)} bytes")
        return list(tokens[:count])

    @property
    def numerics(self) -> bytes:
        """Equal for engines that compute the same bits: the library's build, the processor's instructions, the formats."""
        parts = (ll.__version__.encode(), ll.llama_print_system_info() or b"", self._formats)
        return sha256(b"\0".join(parts)).digest()[:NUMERICS_BYTES]

    def generate(
        self, tokens: list[int], drawn: int, tokens_max: int, temperature: float, top_p: float, seed: int
    ) -> Iterator[tuple[int, bytes]]:
        """The answer, token by token, with its bytes of UTF-8 that a token may cut anywhere (some tokens have none).

        The last `drawn` of `tokens` are an answer's beginning: the dice go on where they were after those. Ends when the model
        does, after `tokens_max` tokens, or when the context is full. Raises TooLong before anything is decoded, Aborted when the
        flag goes up, BrokenLogits, or LoadFailed when the library gives up.
        """
        if len(tokens) >= self.context_tokens:
            raise TooLong(f"the input has {len(tokens)} tokens; {self.context_tokens} are the most, answer included")
        dice = np.random.Generator(np.random.PCG64(seed).advance(drawn))  # Each token has taken one step.
        todo = self._resume(tokens or [max(ll.llama_vocab_bos(self._vocab), 0)])
        for _ in range(tokens_max):
            for start in range(0, len(todo), self._batch_tokens):
                self._decode(todo[start : start + self._batch_tokens])
            logits = np.ctypeslib.as_array(ll.llama_get_logits_ith(self._context, -1), (self.vocabulary_size,))
            token = draw(logits, temperature, top_p, dice)
            if self.is_end(token):
                return
            yield token, self.bytes_of(token)
            if len(self._held) + 1 >= self.context_tokens:
                return
            todo = [token]

    def _resume(self, tokens: list[int]) -> list[int]:
        """Forget what the cache holds beyond the common beginning; return the tokens that are still to be decoded."""
        same = 0
        # The last token is decoded in any case: its logits are needed.
        for held, wanted in zip(self._held, tokens[:-1], strict=False):
            if held != wanted:
                break
            same += 1
        self._keep(same)
        return tokens[len(self._held) :]

    def _keep(self, count: int) -> None:
        if not ll.llama_memory_seq_rm(self._memory, 0, count, -1):
            # Recurrent models cannot forget a part.
            ll.llama_memory_clear(self._memory, True)
            count = 0
        del self._held[count:]

    def _decode(self, tokens: list[int]) -> None:
        code = ABORTED
        if not self._abort:
            array = (ll.llama_token * len(tokens))(*tokens)
            code = ll.llama_decode(self._context, ll.llama_batch_get_one(array, len(tokens)))
        if code == 0:
            self._held += tokens
            return
        self._keep(len(self._held))
        if code == ABORTED:
            raise Aborted
        raise LoadFailed(f"llama.cpp cannot go on with it (llama_decode returned {code})")

    def is_end(self, token: int) -> bool:
        """Whether a model that draws this has ended its answer."""
        return bool(ll.llama_vocab_is_eog(self._vocab, token))

    def bytes_of(self, token: int) -> bytes:
        """What a token says. Raises ValueError for one that the model does not have."""
        if not 0 <= token < self.vocabulary_size:
            raise ValueError(f"the model has no token {token}")
        size = ll.llama_token_to_piece(self._vocab, token, self._piece, len(self._piece), 0, False)
        if size < 0:
            self._piece = ctypes.create_string_buffer(-size)
            size = ll.llama_token_to_piece(self._vocab, token, self._piece, len(self._piece), 0, False)
        return self._piece.raw[: max(size, 0)]

    def _token_text(self, token: int) -> str:
        return ll.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if token >= 0 else ""
