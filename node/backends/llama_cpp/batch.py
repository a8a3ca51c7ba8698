"""The rows of one llama_decode. Used only in the child, on one thread."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import llama_cpp as ll
import numpy as np


class Row(NamedTuple):
    """One token to compute: where it stands in which sequence, and whether what comes of it is wanted."""

    sequence: int
    position: int
    token: int
    wanted: bool


RATE_FIRST = 100.0  # Rows a second, until a batch was measured.
RATE_WEIGHT = 0.3  # Of the newest batch.


def rate_after(rate: float, rows: int, took_s: float) -> float:
    """How many rows a second are computed, smoothed, now that a batch has taken so long."""
    return rate + RATE_WEIGHT * (rows / took_s - rate)


class Batch:
    """Room for so many rows: flat memory with one store for each field, where the library's own helpers take one for each row."""

    def __init__(self, rows_max: int) -> None:
        self.rows_max = rows_max
        self._tokens = np.zeros(rows_max, np.int32)
        self._positions = np.zeros(rows_max, np.int32)
        self._sequences = np.zeros(rows_max, np.int32)
        self._counts = np.ones(rows_max, np.int32)
        self._wanted = np.zeros(rows_max, np.int8)
        self._pointers = self._sequences.ctypes.data + 4 * np.arange(rows_max, dtype=np.uintp)
        self._batch = ll.llama_batch(
            token=self._tokens.ctypes.data_as(ctypes.POINTER(ll.llama_token)),
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ll.llama_pos)),
            n_seq_id=self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=ctypes.cast(self._pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(ll.llama_seq_id))),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def of(self, rows: Sequence[Row]) -> ll.llama_batch:
        """As the library takes it; valid until the next call."""
        count = self._batch.n_tokens = len(rows)
        self._sequences[:count], self._positions[:count], self._tokens[:count], self._wanted[:count] = zip(*rows, strict=True)
        return self._batch
