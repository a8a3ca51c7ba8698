"""One GGUF model as llama.cpp loads it: its vocabulary, its template, what it is. Used only in the child, on one thread."""

import ctypes
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import llama_cpp as ll

TOKENS_KEPT = 8192  # What they say, and whether they are an end: a language's usual ones.


class LoadFailed(Exception):
    """The engine cannot load or run the file. The message is for people and completes "FILE: …"."""


class ComputeFailed(Exception):
    """The engine cannot compute a batch. The message is for people; whoever was not in it can go on."""


class TooLong(Exception):
    """The input does not fit the model's context. The message is for people."""


class Model:
    """The weights, and what turns text into tokens and back. `handle` and `vocabulary` are the library's own pointers."""

    def __init__(self, path: Path, progress: Callable[[float], None] = lambda share: None) -> None:
        """Raises LoadFailed. What the library says meanwhile goes to stderr; `progress` is told what share has been read."""
        ll.llama_backend_init()
        params = ll.llama_model_default_params()
        params.n_gpu_layers = 0

        def tell(share: float, _: object) -> bool:
            progress(share)
            return True  # Go on.

        told = ll.llama_progress_callback(tell)
        params.progress_callback = told
        model = ll.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise LoadFailed("llama.cpp cannot load it")
        self.handle = model
        if ll.llama_model_has_encoder(model):
            raise LoadFailed("it is a model with an encoder and a decoder, of which nothing here makes use")
        self.vocabulary = ll.llama_model_get_vocab(model)
        self.vocabulary_size = int(ll.llama_vocab_n_tokens(self.vocabulary))
        if self.vocabulary_size < 2:
            raise LoadFailed("it has no vocabulary")
        self.trained_tokens = max(int(ll.llama_model_n_ctx_train(model)), 1)  # The longest text that it was trained with.
        self._piece = ctypes.create_string_buffer(256)
        self.is_end = lru_cache(TOKENS_KEPT)(self._is_end)
        """Whether a model that draws this token has ended its answer."""
        self.bytes_of = lru_cache(TOKENS_KEPT)(self._bytes_of)
        """What a token says. Raises ValueError for one that the model does not have."""

    @property
    def head_lengths(self) -> tuple[int, int]:
        """How many numbers the key, and the value, of one head are."""
        usual = int(ll.llama_model_n_embd(self.handle)) // max(int(ll.llama_model_n_head(self.handle)), 1)
        return self._number("attention.key_length", usual), self._number("attention.value_length", usual)

    @property
    def forgets(self) -> bool:
        """Whether the last tokens of a text can be taken back: of one that keeps a state of them all, it is all or nothing."""
        return not (ll.llama_model_is_recurrent(self.handle) or ll.llama_model_is_hybrid(self.handle))

    def _number(self, name: str, usual: int) -> int:
        """A number among what the file says of its architecture."""
        text = self._described(f"{self._described('general.architecture')}.{name}")
        return int(text) if text.isascii() and text.isdigit() else usual

    def _described(self, key: str) -> str:
        size = ll.llama_model_meta_val_str(self.handle, key.encode(), self._piece, len(self._piece))
        return self._piece.value.decode("utf-8", "replace") if size >= 0 else ""

    @property
    def pooling(self) -> int:
        """How it makes one vector of a whole text, as llama.cpp counts; 0 for a model that continues text."""
        return self._number("pooling_type", ll.LLAMA_POOLING_TYPE_NONE)

    @property
    def template(self) -> str | None:
        """The chat template in the file, if there is one."""
        found = ll.llama_model_chat_template(self.handle, None)
        return found.decode("utf-8", "replace") if found else None

    @property
    def begin(self) -> str:
        """The text of the token that begins a sequence."""
        return self._token_text(ll.llama_vocab_bos(self.vocabulary))

    @property
    def end(self) -> str:
        """The text of the token that ends a sequence."""
        return self._token_text(ll.llama_vocab_eos(self.vocabulary))

    @property
    def first_token(self) -> int:
        """What a sequence without any text begins with."""
        return max(int(ll.llama_vocab_bos(self.vocabulary)), 0)

    def control_texts(self) -> list[str]:
        """The texts of the tokens that are no text but marks, longest first."""
        marks = (t for t in range(self.vocabulary_size) if ll.llama_vocab_is_control(self.vocabulary, t))
        return sorted(filter(None, map(self._token_text, marks)), key=lambda text: (-len(text), text))

    def tokenize(self, text: str) -> list[int]:
        """Tokens with the tokenizer's own beginning, once, and with marks such as `<|im_end|>` understood."""
        if ll.llama_vocab_get_add_bos(self.vocabulary) and self.begin:
            text = text.removeprefix(self.begin)
        return self._tokenize(text, True, True)

    def tokenize_pair(self, question: str, text: str) -> list[int]:
        """Tokens of a question and a text as a model that judges them was trained to read them.

        By a template of its own, in which marks have a meaning; else one after the other, between marks.
        """
        template = ll.llama_model_chat_template(self.handle, b"rerank")
        if template:
            parts = re.split(r"\{(query|document)\}", template.decode("utf-8", "replace"))
            known = {"query": question, "document": text}
            # Every second part is a name; what it stands for is plain text.
            return [
                token
                for number, part in enumerate(parts)
                for token in (self.tokenize_plain(known[part]) if number % 2 else self._tokenize(part, False, True))
            ]
        end = int(ll.llama_vocab_eos(self.vocabulary))
        separator = int(ll.llama_vocab_sep(self.vocabulary))
        end = separator if end < 0 else end
        ends = [end] if ll.llama_vocab_get_add_eos(self.vocabulary) and end >= 0 else []
        between = [separator] if ll.llama_vocab_get_add_sep(self.vocabulary) and separator >= 0 else []
        begins = [self.first_token] if ll.llama_vocab_get_add_bos(self.vocabulary) else []
        # The last mark as in training; llama-server leaves it out for BERT.
        return [*begins, *self.tokenize_plain(question), *ends, *between, *self.tokenize_plain(text), *(ends or between)]

    def tokenize_first(self, text: str) -> list[int]:
        """Tokens of a text as they are read where nothing but the beginning of a sequence stands before it."""
        return self._tokenize(text, False, True)

    def tokenize_plain(self, text: str) -> list[int]:
        """Tokens of a part of a text: no beginning, and what looks like a mark is only text."""
        return self._tokenize(text, False, False)

    def tokenize_rest(self, text: str) -> list[int]:
        """Tokens of a text that goes on after another: also without the space that some vocabularies put before everything."""
        if self.bytes_of((self.tokenize_plain("a") or [0])[0])[:1] != b" ":
            return self.tokenize_plain(text)
        # Behind a line's end, of which no word is a part.
        before, tokens = self.tokenize_plain("\n"), self.tokenize_plain(f"\n{text}")
        return tokens[len(before) :] if tokens[: len(before)] == before else self.tokenize_plain(text)

    def _tokenize(self, text: str, with_beginning: bool, with_marks: bool) -> list[int]:
        data = text.encode("utf-8", "replace")
        size = len(data) + 8  # Never more tokens than bytes, but for those that the tokenizer adds.
        tokens = (ll.llama_token * size)()
        count = ll.llama_tokenize(self.vocabulary, data, len(data), tokens, size, with_beginning, with_marks)
        if count < 0:
            raise TooLong(f"the tokenizer makes {-count} tokens of {len(data)} bytes")
        return list(tokens[:count])

    def _is_end(self, token: int) -> bool:
        return bool(ll.llama_vocab_is_eog(self.vocabulary, token))

    def _bytes_of(self, token: int) -> bytes:
        if not 0 <= token < self.vocabulary_size:
            raise ValueError(f"the model has no token {token}")
        size = ll.llama_token_to_piece(self.vocabulary, token, self._piece, len(self._piece), 0, False)
        if size < 0:
            self._piece = ctypes.create_string_buffer(-size)
            size = ll.llama_token_to_piece(self.vocabulary, token, self._piece, len(self._piece), 0, False)
        return self._piece.raw[: max(size, 0)]

    def marks(self, *texts: str) -> dict[int, bytes]:
        """Those of these texts that are one token which says nothing when it is read, with what they are."""
        tokens = {text: self._tokenize(text, False, True) for text in texts if text}
        return {one[0]: text.encode() for text, one in tokens.items() if len(one) == 1 and not self.bytes_of(one[0])}

    @property
    def ends(self) -> list[int]:
        """The tokens that end an answer, the usual one first."""
        usual = max(int(ll.llama_vocab_eos(self.vocabulary)), 0)
        return [usual, *(t for t in range(self.vocabulary_size) if t != usual and ll.llama_vocab_is_eog(self.vocabulary, t))]

    def _token_text(self, token: int) -> str:
        return ll.llama_vocab_get_text(self.vocabulary, token).decode("utf-8", "replace") if token >= 0 else ""
