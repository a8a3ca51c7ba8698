"""What many conversations begin with: the instructions of a program, which a worker needs to read only once."""

from collections.abc import Sequence
from hashlib import sha256

from protocol import limits as lim
from protocol.parts import Turn

CONTEXT = b"starlings/1/prefix\0"


def prefix_of(model: str, turns: Sequence[Turn], tools: str = "") -> tuple[bytes, int]:
    """The digest of a conversation's prefix as this model would read it, and the bytes of its texts; empty if it is too short.

    A prefix is `tools` and the turns of the role `system` before any other. The digest is the first PREFIX_BYTES bytes of the
    SHA-256 of CONTEXT, the model's name, `tools` and these texts, each of the latter after its length as 8 bytes, big-endian.
    """
    texts = [tools.encode(errors="replace")]
    for turn in turns:
        if turn.role != "system":
            break
        texts.append(turn.text.encode(errors="replace"))
    size = sum(map(len, texts))
    if size < lim.PREFIX_TEXT_BYTES_MIN:
        return b"", 0
    whole = sha256(CONTEXT)
    for text in (model.encode(errors="replace"), *texts):
        whole.update(len(text).to_bytes(8, "big") + text)
    return whole.digest()[: lim.PREFIX_BYTES], size
