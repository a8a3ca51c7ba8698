"""The process that a GGUF model lives and may die in: `python -m node.backends.llama_cpp.child`.

It reads requests from stdin and answers on stdout (see `pipe`); whatever the engine prints goes to stderr, which the parent has
bound to a log. The main thread loads and decodes; a second one reads requests and ends the process when stdin closes, so that
no child outlives its parent. What is shut off before the file is read stands in `sandbox`.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from node.backends.llama_cpp import model_file, pipe
from node.backends.llama_cpp.sandbox import restrict_files, restrict_process

if TYPE_CHECKING:
    from node.backends.llama_cpp.mailbox import Sink

EXIT_UNFIT = 3
PROGRESS_S = 0.5  # Between two words on how far loading is.


def main() -> NoReturn:
    """Arguments: the model's path; `exact`, threads, memory and tokens as in `node.backends.Surroundings`; the parent's process id;
    and what the process before this one said when it was ready, if there was one.
    """
    path, exact, (threads, memory, context_tokens, parent) = Path(sys.argv[1]), sys.argv[2], map(int, sys.argv[3:7])
    before = next((said for said in pipe.Unpacker().feed(bytes.fromhex(sys.argv[7])) if isinstance(said, pipe.Ready)), None)
    guards = restrict_process(parent)
    # The pipe's ends move out of the way; what prints to stdout now reaches the log.
    source, sink = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        serve(path, threads, memory, context_tokens, exact, before, guards, source, sink)
    except _CannotLoad as error:
        os.write(sink, pipe.pack(pipe.Unfit(str(error)[:1_000])))
        os._exit(EXIT_UNFIT)


class _CannotLoad(Exception):
    """The message goes to the user."""


def serve(
    path: Path, threads: int, memory: int, context_tokens: int, wanted: str,
    before: pipe.Ready | None, guards: list[str], source: int, descriptor: int,
) -> NoReturn:  # fmt: skip
    """Load the model, say so, and answer for ever. What was found out `before` is not tried again. Raises _CannotLoad."""
    try:
        # Not before: loading these starts threads, which would be outside of the sandbox.
        from node.backends.llama_cpp.context import NUMERICS_BYTES, AbortFlag
        from node.backends.llama_cpp.embedder import TEXTS_MAX, Embedder
        from node.backends.llama_cpp.formats import Formats
        from node.backends.llama_cpp.mailbox import Requests, Sink
        from node.backends.llama_cpp.model import ComputeFailed, LoadFailed, Model
        from node.backends.llama_cpp.prompts import ChatTemplate, Refused
        from node.backends.llama_cpp.tuning import fitting, fitting_again, speedup_of
        from node.backends.llama_cpp.worker import Worker
        from protocol.parts import FEATURES
    except (ImportError, OSError, RuntimeError) as error:
        raise _CannotLoad(f"engine missing: {error}") from error
    guards += restrict_files([path, path.resolve(), *model_file.parts(path)])
    abort = AbortFlag()
    sink = Sink(descriptor)
    requests = Requests(source, abort, sink)
    threading.Thread(target=requests.read_forever, name="requests", daemon=True).start()
    template, note = None, "it has no chat template, so it only completes text"
    try:
        model = Model(path, _teller(sink))
        tokens = min(model.trained_tokens, context_tokens)
        if model.pooling:
            embedder = Embedder(model, tokens, threads, abort, sink)
            sink.say(pipe.Ready(tokens, TEXTS_MAX, threads, [embedder.skill], [], guards, "", b"", 1.0, 1, 0.0))
            sink.flush()
            requests.serve(embedder)
        if before is not None:
            context, numerics, speedup = fitting_again(model, before, memory, abort), before.numerics, before.speedup
        else:
            context, exact = fitting(model, tokens, wanted, threads, memory, abort)
            # What nobody can compute again is equal to nobody's.
            numerics = context.numerics if exact else os.urandom(NUMERICS_BYTES)
            speedup = speedup_of(context, model.first_token)
        if model.template is not None:
            try:
                template, note = ChatTemplate(model.template, model.begin, model.end, model.control_texts()), ""
            except Refused as error:
                note = f"{error}; so it only completes text"
        worker = Worker(model, context, template, Formats(model), sink)
    except (LoadFailed, ComputeFailed) as error:
        raise _CannotLoad(str(error)) from error
    skills = ["chat", "summarize", "complete"] if template else ["complete"]
    calls_functions = template is not None and template.style is not None
    features = [feature for feature in FEATURES if feature != "tools" or calls_functions]
    of_context = (context.tokens, context.sequences, context.threads)
    sink.say(pipe.Ready(*of_context, skills, features, guards, note, numerics, speedup, context.block, context.text_bytes))
    sink.flush()
    requests.serve(worker)


def _teller(sink: "Sink") -> Callable[[float], None]:
    """Tells the parent how far reading the file has come, now and then."""
    told_at = time.monotonic()

    def tell(share: float) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= PROGRESS_S:
            told_at = time.monotonic()
            sink.say(pipe.Loading(share))
            sink.flush()

    return tell


if __name__ == "__main__":
    main()
