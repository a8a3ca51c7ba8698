"""Makes GGUF files of BERT models, which turn texts into vectors: a tiny one with random weights, and MiniLM out of its package."""

import json
import struct
from pathlib import Path

import numpy as np

from tests.node.backends.llama_cpp.gguf_files import Gguf, text

_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _INT32 = 4, 6, 7, 8, 9, 5
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NORMAL, UNKNOWN, CONTROL = 1, 2, 3
MEAN, RANK = 1, 4

Weights = dict[str, np.ndarray]

_NAMES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "pooler.dense": "cls",
    "classifier": "cls.output",
}


LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [*MARKS, *LETTERS, *(f"##{letter}" for letter in LETTERS), ".", "!"]
HEADS = 2


def tiny_bert(path: Path, pooling: int = MEAN, template: str = "") -> Path:
    """One layer of 32 numbers with random weights, and a vocabulary of letters. `template`: how a pair is read."""
    more = {"tokenizer.chat_template.rerank": text(template)} if template else {}
    return bert(path, WORDS, tiny_weights(pooling), heads=HEADS, tokens=64, pooling=pooling, more=more)


def tiny_weights(pooling: int = MEAN) -> Weights:
    """By the names that they have in PyTorch."""
    words, size, inner, dice = WORDS, 32, 64, np.random.default_rng(1)

    def random(*shape: int) -> np.ndarray:
        return (dice.standard_normal(shape) * 0.3).astype(np.float32)

    weights: Weights = {
        "embeddings.word_embeddings.weight": random(len(words), size),
        "embeddings.token_type_embeddings.weight": random(2, size),
        "embeddings.position_embeddings.weight": random(64, size),
        "embeddings.LayerNorm.weight": np.ones(size, np.float32),
        "embeddings.LayerNorm.bias": np.zeros(size, np.float32),
    }
    layer = "encoder.layer.0."
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        weights |= {f"{layer}{name}.weight": random(size, size), f"{layer}{name}.bias": random(size)}
    weights |= {f"{layer}intermediate.dense.weight": random(inner, size), f"{layer}intermediate.dense.bias": random(inner)}
    weights |= {f"{layer}output.dense.weight": random(size, inner), f"{layer}output.dense.bias": random(size)}
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        weights |= {f"{layer}{name}.weight": np.ones(size, np.float32), f"{layer}{name}.bias": np.zeros(size, np.float32)}
    if pooling == RANK:
        weights |= {"pooler.dense.weight": random(size, size), "pooler.dense.bias": random(size)}
        weights |= {"classifier.weight": random(1, size), "classifier.bias": random(1)}
    return weights


def judged(weights: Weights, tokens: list[int]) -> float:
    """What a model of one layer that judges says of these tokens, step by step."""
    one = {name.removeprefix("encoder.layer.0."): array.astype(np.float64) for name, array in weights.items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ one[f"{name}.weight"].T + one[f"{name}.bias"]

    def normal(name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * one[f"{name}.weight"] + one[f"{name}.bias"]

    x = one["embeddings.word_embeddings.weight"][tokens] + one["embeddings.token_type_embeddings.weight"][0]
    x = normal("embeddings.LayerNorm", x + one["embeddings.position_embeddings.weight"][: len(tokens)])
    query, key, value = (
        np.split(linear(f"attention.self.{name}", x), HEADS, axis=1) for name in ("query", "key", "value")
    )
    mixed = []
    for q, k, v in zip(query, key, value, strict=True):
        shares = np.exp(q @ k.T / np.sqrt(q.shape[1]))
        mixed.append(shares / shares.sum(1, keepdims=True) @ v)
    x = normal("attention.output.LayerNorm", x + linear("attention.output.dense", np.concatenate(mixed, axis=1)))
    inner = linear("intermediate.dense", x)
    inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    x = normal("output.LayerNorm", x + linear("output.dense", inner))
    return float(linear("classifier", np.tanh(linear("pooler.dense", x[0])))[0])


def minilm(path: Path, folder: Path) -> Path:
    """all-MiniLM-L6-v2 out of a folder with `model.safetensors`, `vocab.txt` and `config.json`."""
    words = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    heads = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_attention_heads"]
    return bert(path, words, _safetensors(folder / "model.safetensors"), heads=heads, tokens=512, pooling=MEAN)


def bert(
    path: Path, words: list[str], weights: Weights, *, heads: int, tokens: int, pooling: int, more: dict[str, bytes] | None = None
) -> Path:
    """A BERT model by the names that its weights have in PyTorch."""
    tensors = {name: array for name, array in map(_renamed, weights.items()) if name}
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blk."))
    kinds = [UNKNOWN if word == "[UNK]" else CONTROL if word in MARKS else NORMAL for word in words]
    metadata = {
        "general.architecture": text("bert"),
        "bert.block_count": number(layers),
        "bert.context_length": number(tokens),
        "bert.embedding_length": number(tensors["token_embd.weight"].shape[1]),
        "bert.feed_forward_length": number(tensors["blk.0.ffn_up.weight"].shape[0]),
        "bert.attention.head_count": number(heads),
        "bert.attention.layer_norm_epsilon": struct.pack("<If", _FLOAT32, 1e-12),
        "bert.attention.causal": struct.pack("<I?", _BOOL, False),
        "bert.pooling_type": number(pooling),
        "tokenizer.ggml.token_type_count": number(len(tensors["token_types.weight"])),
        "tokenizer.ggml.model": text("bert"),
        "tokenizer.ggml.pre": text("default"),
        "tokenizer.ggml.tokens": _strings([_phantom(word) for word in words]),
        "tokenizer.ggml.token_type": struct.pack(f"<IIQ{len(kinds)}i", _ARRAY, _INT32, len(kinds), *kinds),
        "tokenizer.ggml.padding_token_id": number(words.index("[PAD]")),
        "tokenizer.ggml.unknown_token_id": number(words.index("[UNK]")),
        "tokenizer.ggml.cls_token_id": number(words.index("[CLS]")),
        "tokenizer.ggml.bos_token_id": number(words.index("[CLS]")),
        "tokenizer.ggml.seperator_token_id": number(words.index("[SEP]")),
        "tokenizer.ggml.eos_token_id": number(words.index("[SEP]")),
        "tokenizer.ggml.mask_token_id": number(words.index("[MASK]")),
    }
    return Gguf(metadata | (more or {}), {name: tensor(array) for name, array in tensors.items()}).write(path)


def _renamed(item: tuple[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """The name in GGUF; empty for what is not used."""
    name, array = item
    prefix = ""
    if name.startswith("encoder.layer."):
        _, _, number, name = name.split(".", 3)
        prefix = f"blk.{number}."
    for old, new in _NAMES.items():
        if name == old or name.startswith(f"{old}."):
            return prefix + name.replace(old, new), array
    return "", array


def _safetensors(path: Path) -> Weights:
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    start = 8 + size
    found = {}
    for name, about in json.loads(data[8:start]).items():
        if name != "__metadata__" and about["dtype"] == "F32":
            begin, end = about["data_offsets"]
            found[name] = np.frombuffer(data[start + begin : start + end], np.float32).reshape(about["shape"])
    return found


def _phantom(word: str) -> str:
    """As llama.cpp has a WordPiece vocabulary: what begins a word is marked, not what goes on."""
    return word if word in MARKS else word[2:] if word.startswith("##") else "\u2581" + word


def tensor(array: np.ndarray) -> tuple[bytes, bytes]:
    shape = array.shape[::-1]
    return struct.pack(f"<I{len(shape)}QI", len(shape), *shape, 0), np.ascontiguousarray(array, np.float32).tobytes()


def number(value: int) -> bytes:
    return struct.pack("<II", _UINT32, value)


def _strings(values: list[str]) -> bytes:
    packed = [struct.pack("<Q", len(value.encode())) + value.encode() for value in values]
    return struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + b"".join(packed)
