"""Makes the metadata of a vocabulary like Llama 2's: pieces of SentencePiece, which puts a space before every text."""

import struct

from tests.node.backends.llama_cpp.gguf_files import text

SIZE = 49_152  # As many as SmolLM2 has.
NORMAL, UNKNOWN, CONTROL, BYTE, UNUSED = 1, 2, 3, 6, 5
WORDS = ["\u2581", *"helouya", "he", "ll", "hell", "hello", "\u2581hello", "\u2581you"]


def spm_vocabulary() -> dict[str, bytes]:
    pieces = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL), *((f"<0x{byte:02X}>", BYTE) for byte in range(256))]
    pieces += [(word, NORMAL) for word in WORDS]
    pieces += [(f"<unused{number}>", UNUSED) for number in range(SIZE - len(pieces))]
    scores = [float(len(piece)) if kind == NORMAL else 0.0 for piece, kind in pieces]
    return {
        "tokenizer.ggml.model": text("llama"),
        "tokenizer.ggml.tokens": _array(8, [_packed(piece) for piece, _ in pieces]),
        "tokenizer.ggml.scores": _array(6, [struct.pack("<f", score) for score in scores]),
        "tokenizer.ggml.token_type": _array(5, [struct.pack("<i", kind) for _, kind in pieces]),
        "tokenizer.ggml.add_space_prefix": struct.pack("<I?", 7, True),
        "tokenizer.ggml.bos_token_id": struct.pack("<II", 4, 1),
        "tokenizer.ggml.eos_token_id": struct.pack("<II", 4, 2),
    }


def _packed(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _array(kind: int, values: list[bytes]) -> bytes:
    return struct.pack("<IIQ", 9, kind, len(values)) + b"".join(values)
