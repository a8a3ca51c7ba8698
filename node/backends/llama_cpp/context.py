"""The keys and values of several texts at once, and the decoding of batches over them. Used only in the child, on one thread.

Load and decode stay on the same thread: OpenMP otherwise counts one thread too many and decoding falls to a seventh.

Every text (a sequence, in llama.cpp's words) has a part of the memory to itself. In one that all share, attention looks at the
cells of everybody, and sixteen conversations take half as long again. The price: the texts of one batch must have consecutive
numbers, or llama.cpp computes them one group after the other.
"""

import ctypes
import os
from collections.abc import Sequence
from hashlib import sha256

import llama_cpp as ll
import numpy as np
import numpy.typing as npt

from node.backends.llama_cpp.batch import Batch, Row
from node.backends.llama_cpp.model import ComputeFailed, LoadFailed, Model

NUMERICS_BYTES = 16
ABORTED = 2  # What llama_decode returns when the abort callback said so.

Logits = npt.NDArray[np.float32]


class Aborted(Exception):
    """The work was stopped inside of a decode. What its rows left in the memory must be forgotten; then it goes on."""


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


# How keys are kept; values are in f16. With flash attention a token then gets the same bits alone or among others, as one of a long
# prompt or by itself, with any number of threads. Where both are of one type, f16 as is usual, llama.cpp takes other kernels from
# 64 tokens of one text on, and for a single long text on several threads.
FORMS = {"q8_0": ll.GGML_TYPE_Q8_0, "bf16": 30}  # GGML_TYPE_BF16, which the bindings do not name.
Q8_0_NUMBERS = 32  # It keeps so many numbers together; a head must be a multiple.
# llama.cpp would turn each key before it is cut to 8 bits, which takes 2 to 4 % of a short text's time. SmolLM2 and Gemma guess 900
# tokens of prose as well without it, to a thousandth.
os.environ["LLAMA_ATTN_ROT_DISABLE"] = "1"
ROWS_MAX = 256  # Of one batch.
FILLER = 0  # A token that every vocabulary has.
EXACT_BLOCK = 8  # Rows that every kernel computes alike, if there are never fewer: see `Context.block`.
QUICK_BLOCK = 4  # Rows that some kernels compute at a time.


def form_of(model: Model) -> str:
    """How this model's keys are kept: q8_0 takes half of the memory, and every processor multiplies it quickly."""
    return "bf16" if model.head_lengths[0] % Q8_0_NUMBERS else "q8_0"


class Context:
    """The memory of `sequences` texts of up to `tokens` tokens each."""

    def __init__(self, model: Model, sequences: int, tokens: int, threads: int, abort: AbortFlag) -> None:
        """Raises LoadFailed. All of the memory is taken now."""
        self.form = form_of(model)
        self.threads = threads
        self.block = 1
        """Every batch is filled up to a multiple of so many rows with some that nobody wants. 1: never.

        For some kinds of weights llama.cpp takes other kernels for few rows than for many, and their bits differ. With blocks of
        EXACT_BLOCK they do not (Gemma-3 in Q4_K_M, weights in F16 and BF16, on AVX-512), at a price. For others it computes four
        rows at a time and what is left over one by one, so that seven take longer than eight: blocks of QUICK_BLOCK.
        """
        self.text_bytes = 0.0
        """What the keys and values of one of its texts take, once that has been measured."""
        self.forgets = model.forgets
        """Whether the last tokens of a text can be taken back; else a sequence is kept whole or not at all."""
        self._abort = abort
        self._logits = ctypes.POINTER(ctypes.c_float * model.vocabulary_size)
        params = ll.llama_context_default_params()
        params.n_seq_max = sequences
        params.n_ctx = sequences * (tokens + EXACT_BLOCK)  # Rows that fill up a batch stand behind the text for a moment.
        params.n_batch = params.n_ubatch = max(min(ROWS_MAX, params.n_ctx), sequences)
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = False
        params.type_k, params.type_v = FORMS[self.form], ll.GGML_TYPE_F16
        params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.no_perf = True
        context = ll.llama_init_from_model(model.handle, params)
        if not context:
            raise LoadFailed("llama.cpp cannot make a context for it; is there enough memory?")
        self._context = context
        self._memory = ll.llama_get_memory(context)
        ll.llama_set_abort_callback(context, abort.callback, abort.data)
        self.sequences = sequences
        self.tokens = min(int(ll.llama_n_ctx_seq(context)), tokens)
        self.rows_max = int(ll.llama_n_batch(context))
        self._batch = Batch(self.rows_max)
        self._places: Sequence[int] = ()  # Of the rows of the last batch, in what was computed.

    def use_threads(self, count: int) -> None:
        """From now on. It changes no bit of what is computed."""
        self.threads = count
        ll.llama_set_n_threads(self._context, count, count)

    @property
    def _spared(self) -> int:
        """Batches of up to so many rows, or with so few that are wanted, are not filled up: they would not be quicker."""
        return self.block if self.block == QUICK_BLOCK else 0

    def close(self) -> None:
        """Give the memory back. Nothing else may be called after it."""
        ll.llama_free(self._context)

    @property
    def numerics(self) -> bytes:
        """Equal for engines that compute the same bits: the library's build, the processor's instructions, the form."""
        # Neither threads nor what else is in a batch are among them: they change nothing (`make bench ARGS=resume`).
        form = f"{self.form} f16 flash partitioned {1 if self._spared else self.block}".encode()
        parts = (ll.__version__.encode(), ll.llama_print_system_info() or b"", form)
        return sha256(b"\0".join(parts)).digest()[:NUMERICS_BYTES]

    def decode(self, rows: Sequence[Row]) -> None:
        """Compute these, at most `rows_max`, in ascending order of sequence and position.

        Raises Aborted, or ComputeFailed when the library gives up; in both cases the memory may hold some of the rows.
        """
        code = ABORTED
        if not self._abort:
            batch, filling, self._places = rows, [], range(len(rows))
            if self.block > 1 and len(rows) > self._spared:
                filling = self._filling(rows)
                batch = self._filled([*rows, *filling])
                own = {(row.sequence, row.position) for row in filling}
                self._places = [at for at, row in enumerate(batch) if (row.sequence, row.position) not in own]
            code = ll.llama_decode(self._context, self._batch.of(batch))
            for row in reversed(filling):
                ll.llama_memory_seq_rm(self._memory, row.sequence, row.position, -1)
        if code == ABORTED:
            raise Aborted
        if code != 0:
            raise ComputeFailed(f"llama.cpp cannot go on with it (llama_decode returned {code})")

    def _filling(self, rows: Sequence[Row]) -> list[Row]:
        """Rows that nobody wants, so that no kernel computes less than a block: in other sequences, or behind the texts."""
        ends = {row.sequence: row.position + 1 for row in rows}
        if len(ends) == len(rows):
            # One row of each text, as when they grow: others beside them make the block full, and are forgotten again.
            wanted = -(-len(rows) // self.block) * self.block
            first = max(0, min(min(ends), self.sequences - wanted))
            window = range(first, first + wanted)
            if wanted <= self.sequences and max(ends) in window:
                idle = [sequence for sequence in window if sequence not in ends]
                return [Row(sequence, self._length(sequence), FILLER, False) for sequence in idle]
            if self._spared:
                return []  # Behind the texts there would be several for each.
        filling = []
        for sequence, end in ends.items():
            count = sum(row.sequence == sequence for row in rows)
            filling += [Row(sequence, end + more, FILLER, False) for more in range(-count % self.block)]
        return filling

    def _filled(self, rows: list[Row]) -> list[Row]:
        """In order, and with so many of them wanted that the last layer has whole blocks too: those that fill up come first."""
        wanted = sum(row.wanted for row in rows)
        missing = -wanted % self.block if wanted > self._spared else 0
        filled = []
        for row in reversed(rows):
            filled.append(row._replace(wanted=row.wanted or missing > 0))
            missing -= not row.wanted
        return sorted(filled, key=lambda row: (row.sequence, row.position))

    def _length(self, sequence: int) -> int:
        """How many tokens a sequence has."""
        return int(ll.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def logits(self, row: int) -> Logits:
        """What follows a wanted row of the last batch: a view, valid until the next one."""
        found = ctypes.cast(ll.llama_get_logits_ith(self._context, self._places[row]), self._logits)
        return np.frombuffer(memoryview(found.contents), np.float32)

    def size_of(self, sequence: int) -> int:
        """How many bytes of memory the keys, values and states of a sequence take."""
        return int(ll.llama_state_seq_get_size(self._context, sequence))

    def forget(self, sequence: int, keep: int) -> int:
        """Forget a sequence from a position on. Returns how many tokens it still has: recurrent models forget all or nothing."""
        if ll.llama_memory_seq_rm(self._memory, sequence, keep, -1):
            return keep
        ll.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return 0

    def copy(self, source: int, target: int, keep: int) -> int:
        """Let a sequence begin with the first tokens of another; what it had is gone. Returns how many it has now."""
        ll.llama_memory_seq_rm(self._memory, target, -1, -1)
        # Between parts of the memory only whole texts can be copied.
        ll.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        return self.forget(target, keep)
