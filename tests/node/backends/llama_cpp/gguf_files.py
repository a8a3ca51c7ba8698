"""Makes GGUF files for tests out of a real one: fewer layers, other metadata, and every kind of damage."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from node.backends.llama_cpp.model_file import split_argument
from node.backends.references import resolve

SMOLLM2 = Path(split_argument(resolve("smollm2-135m").argument)[1])
TEMPLATE = "tokenizer.chat_template"
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4


@dataclass
class Gguf:
    """A parsed file: metadata as raw bytes (type and value), tensors as (raw dimensions and type, data)."""

    metadata: dict[str, bytes]
    tensors: dict[str, tuple[bytes, bytes]]

    def write(self, path: Path) -> Path:
        parts = [b"GGUF", struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata))]
        parts += [_packed(key) + value for key, value in self.metadata.items()]
        offset = 0
        for name, (shape, data) in self.tensors.items():
            parts.append(_packed(name) + shape + struct.pack("<Q", offset))
            offset += len(data) + -len(data) % 32
        head = b"".join(parts)
        with path.open("wb") as file:
            file.write(head + b"\0" * (-len(head) % 32))
            for _, data in self.tensors.values():
                file.write(data + b"\0" * (-len(data) % 32))
        return path


def read_gguf(path: Path) -> Gguf:
    data = path.read_bytes()
    _, _, tensors, pairs = struct.unpack_from("<4sIQQ", data)
    at, metadata, infos = 24, {}, []
    for _ in range(pairs):
        key, at = _string(data, at)
        end = _value_end(data, at + 4, struct.unpack_from("<I", data, at)[0])
        metadata[key], at = data[at:end], end
    for _ in range(tensors):
        name, at = _string(data, at)
        end = at + 4 + 8 * struct.unpack_from("<I", data, at)[0] + 4
        infos.append((name, data[at:end], struct.unpack_from("<Q", data, end)[0]))
        at = end + 8
    start = at + -at % 32
    ends = sorted([offset for _, _, offset in infos] + [len(data) - start])
    found = {}
    for name, shape, offset in infos:
        found[name] = (shape, data[start + offset : start + ends[ends.index(offset) + 1]])
    return Gguf(metadata, found)


def text(value: str) -> bytes:
    """A metadata value of type string."""
    return struct.pack("<I", _STRING) + _packed(value)


def small_model(path: Path, template: str | None, **other: bytes) -> Path:
    """SmolLM2 with one layer of thirty and this template: answers nonsense, the same nonsense every time, and loads fast."""
    model = read_gguf(SMOLLM2)
    model.tensors = {
        name: tensor
        for name, tensor in model.tensors.items()
        if not name.startswith("blk.") or name.startswith("blk.0.")
    }
    model.metadata["llama.block_count"] = struct.pack("<II", _UINT32, 1)
    model.metadata.pop(TEMPLATE)
    if template is not None:
        model.metadata[TEMPLATE] = text(template)
    model.metadata |= other
    return model.write(path)


def _damage(make: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(make(SMOLLM2.read_bytes()))
        return path

    return write


def _flipped(data: bytes) -> bytes:
    """Metadata with every 97th byte turned over."""
    head = bytearray(data[:200_000])
    for at in range(24, len(head), 97):
        head[at] ^= 0xFF
    return bytes(head) + data[200_000:2_000_000]


DAMAGED: Mapping[str, Callable[[Path], Path]] = {
    "empty": _damage(lambda data: b""),
    "text": _damage(lambda data: b"<!DOCTYPE html><html>not found</html>"),
    "cut in the header": _damage(lambda data: data[:13]),
    "cut in the metadata": _damage(lambda data: data[:50_000]),
    "cut in the tensors": _damage(lambda data: data[: len(data) // 2]),
    "version 99": _damage(lambda data: data[:4] + struct.pack("<I", 99) + data[8:100_000]),
    "big-endian": _damage(lambda data: data[:4] + struct.pack(">I", 3) + data[8:100_000]),
    "endless metadata": _damage(lambda data: data[:16] + struct.pack("<Q", 2**62) + data[24:100_000]),
    "more metadata than there is": _damage(lambda data: data[:16] + struct.pack("<Q", 999_999) + data[24:100_000]),
    "key of 2**60 bytes": _damage(lambda data: data[:24] + struct.pack("<Q", 2**60) + data[32:100_000]),
    "flipped bytes": _damage(_flipped),
    "zeros": _damage(lambda data: data[:24] + bytes(100_000)),
    "noise": _damage(lambda data: data[:24] + data[50_000_000:50_100_000]),
}
"""Ways to be no model, each a function that writes the file."""


def _packed(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _string(data: bytes, at: int) -> tuple[str, int]:
    size = struct.unpack_from("<Q", data, at)[0]
    return data[at + 8 : at + 8 + size].decode(), at + 8 + size


def _value_end(data: bytes, at: int, kind: int) -> int:
    if kind == _STRING:
        return at + 8 + int(struct.unpack_from("<Q", data, at)[0])
    if kind != _ARRAY:
        return at + _SIZES[kind]
    inner, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner in _SIZES:
        return at + int(_SIZES[inner] * length)
    for _ in range(length):
        at = _value_end(data, at, inner)
    return at
