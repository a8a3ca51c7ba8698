"""Loads a model and lets it say one word: run in a process of its own, since an engine built wrongly kills its process.

python tools/first_words.py MODEL.gguf
"""

import sys

PROMPT = "The capital of France is"
EXPECTED = "Paris"  # What SmolLM2 says at temperature 0 with every correct build tried, by a wide margin.


def main() -> int:
    """0: it said what it should; 1: it said something else. A broken build ends by a signal instead."""
    from llama_cpp import Llama

    model = Llama(sys.argv[1], n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False)
    # A prompt of more than 32 tokens goes through the matrix kernels that a single token does not reach.
    shots = "The capital of Italy is Rome. The capital of Spain is Madrid. The capital of Portugal is Lisbon. "
    said = ""
    for prompt in (PROMPT, shots + shots + PROMPT):
        answer = model.create_completion(prompt, max_tokens=4, temperature=0.0)
        said = answer["choices"][0]["text"]  # type: ignore[index]  # Not a stream, so a mapping.
        if EXPECTED not in said:
            print(f"said {said!r}")
            return 1
    print(said.strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
