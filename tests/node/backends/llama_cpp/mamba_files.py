"""Makes a GGUF file of a tiny Mamba with random weights: a model that keeps one state of all its tokens."""

import struct
from pathlib import Path

import numpy as np

from tests.node.backends.llama_cpp.bert_files import number, tensor
from tests.node.backends.llama_cpp.gguf_files import SMOLLM2, TEMPLATE, Gguf, read_gguf, text

SIZE, INNER, STATE, KERNEL, RANK, LAYERS = 64, 128, 16, 4, 4, 2
VOCABULARY = 49_152  # SmolLM2's, whose words it says.


def tiny_mamba(path: Path) -> Path:
    words = read_gguf(SMOLLM2).metadata
    numbers = {
        "context_length": 512, "embedding_length": SIZE, "feed_forward_length": 0, "attention.head_count": 0,
        "block_count": LAYERS, "ssm.conv_kernel": KERNEL, "ssm.inner_size": INNER, "ssm.state_size": STATE,
        "ssm.time_step_rank": RANK,
    }  # fmt: skip
    metadata = {key: value for key, value in words.items() if key.startswith("tokenizer.") and key != TEMPLATE}
    metadata |= {"general.architecture": text("mamba"), "mamba.attention.layer_norm_rms_epsilon": struct.pack("<If", 6, 1e-5)}
    metadata |= {f"mamba.{key}": number(value) for key, value in numbers.items()}
    dice = np.random.default_rng(1)

    def random(*shape: int) -> np.ndarray:
        return (dice.standard_normal(shape) * 0.3).astype(np.float32)

    weights = {"token_embd.weight": random(VOCABULARY, SIZE), "output_norm.weight": np.ones(SIZE, np.float32)}
    for layer in range(LAYERS):
        parts = {
            "attn_norm.weight": np.ones(SIZE, np.float32),
            "ssm_in.weight": random(2 * INNER, SIZE),
            "ssm_conv1d.weight": random(INNER, KERNEL),
            "ssm_conv1d.bias": random(INNER),
            "ssm_x.weight": random(RANK + 2 * STATE, INNER),
            "ssm_dt.weight": random(INNER, RANK),
            "ssm_dt.bias": random(INNER),
            "ssm_a": -np.exp(random(INNER, STATE)),
            "ssm_d": np.ones(INNER, np.float32),
            "ssm_out.weight": random(SIZE, INNER),
        }
        weights |= {f"blk.{layer}.{name}": part for name, part in parts.items()}
    return Gguf(metadata, {name: tensor(weight) for name, weight in weights.items()}).write(path)
