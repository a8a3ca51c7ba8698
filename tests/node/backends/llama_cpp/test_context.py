"""That what a token's numbers are never depends on how the text before it was cut, nor on threads, nor on its neighbours."""

import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from node.backends.llama_cpp.batch import Row
from node.backends.llama_cpp.context import AbortFlag, Context
from node.backends.llama_cpp.model import Model
from tests.node.backends.llama_cpp.gguf_files import small_model

LENGTH = 700  # Over 512, from where on llama.cpp may share out one text among threads,
PIECES = (16, 63, 64, 250)  # and over 64 rows, from where on it may compute them as a tile.
HEADS_OF_16 = {"attention.head_count": 36, "attention.head_count_kv": 12, "rope.dimension_count": 16}


@pytest.mark.parametrize(("form", "metadata"), [("q8_0", {}), ("bf16", HEADS_OF_16)])
def test_a_long_text_has_the_same_bits_however_it_is_read(form: str, metadata: dict[str, int], tmp_path: Path) -> None:
    other = {f"llama.{name}": struct.pack("<II", 4, number) for name, number in metadata.items()}
    model = Model(small_model(tmp_path / "small.gguf", None, **other))
    tokens = [(97 * at) % 5_000 + 50 for at in range(LENGTH)]
    found = []
    for threads in (1, 2):
        with closing(Context(model, 2, LENGTH, threads, AbortFlag())) as context:
            assert context.form == form
            for piece in PIECES:
                context.forget(0, 0)
                for start in range(0, LENGTH - 1, piece):
                    context.decode([Row(0, at, tokens[at], False) for at in range(start, min(start + piece, LENGTH - 1))])
                context.decode([Row(0, LENGTH - 1, tokens[-1], True)])
                found.append(context.logits(0).copy())
            context.forget(0, LENGTH - 1)
            context.decode([Row(0, LENGTH - 1, tokens[-1], True), Row(1, 0, tokens[0], True)])
            found.append(context.logits(0).copy())
    assert all(np.array_equal(one, found[0]) for one in found[1:])
