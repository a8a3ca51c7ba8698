"""Model references as typed on the command line, made ready for a daemon that runs in another folder."""

from pathlib import Path

from node import notation
from node.exits import Failure


def checked_reference(ref: str) -> str:
    """The reference with its file made absolute. Raises Failure if it names a file that is not there."""
    file = notation.model_file(ref)
    if file is not None:
        found = Path.cwd() / file.expanduser()
        if not found.is_file():
            what = "is not a file" if found.exists() else "does not exist"
            raise Failure(
                "no_such_file", f"{found} {what}", hint="Give the path of a GGUF file, or the name of a model."
            )
    return notation.absolute_reference(ref, Path.cwd())
