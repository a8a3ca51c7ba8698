"""The engine's builder: the recipe fits the CPU, a build that dies is replaced and remembered, a good one is kept.

The programs that it runs are played by a script that behaves like pip and like an engine, crashes included.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tools import engine
from tools.engine import Builder, Compiler, recipes
from tools.running import SetupError

XEON = "#define __AMX_TILE__ 1\n#define __AVX512FP16__ 1\n"
OLDER = "#define __AVX2__ 1\n"
PERMISSIVE = Compiler(("true",), ("true",), "cc 1.0", XEON)

# Behaves like the Python of a virtual environment, as far as the builder uses it. Beside it lies `plays.json`: which
# recipes' engines die, and whether compiling fails; `done` gathers what was asked of it.
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, signal, sys
here = pathlib.Path(__file__).parent
plays = json.loads((here / "plays.json").read_text())
words = sys.argv[1:]
def note(text):
    with (here / "done").open("a") as done:
        done.write(text + "\\n")
if words[:3] == ["-m", "pip", "download"]:
    assert "--require-hashes" in words
    pathlib.Path(words[words.index("-d") + 1], "engine.tar.gz").write_text("source")
elif words[:3] == ["-m", "pip", "wheel"]:
    recipe = "portable" if "cmake.define.GGML_NATIVE=OFF" in words else "plain" if any("amx" in w for w in words) else "best"
    note("built " + recipe)
    print("[1/2] compiling")
    if plays["compiling"] == "fails":
        print("no space left")
        sys.exit(1)
    folder = pathlib.Path(words[words.index("-w") + 1])
    folder.mkdir()
    (folder / "engine-1.whl").write_text(recipe)
elif words[:3] == ["-m", "pip", "install"]:
    (here / "installed").write_text(pathlib.Path(words[-1]).read_text())
elif words[0] == "-c":
    print("model.gguf")
else:
    how = plays["engines"].get((here / "installed").read_text(), "works")
    if how == "dies":
        os.kill(os.getpid(), signal.SIGILL)
    elif how == "babbles":
        print("said 'Lyon'")
        sys.exit(1)
"""


class Stage:
    """A builder with its stand-in, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "python"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)
        self.pins = folder / "engine.txt"
        self.pins.write_text("engine==1\n")
        self.builder = Builder(self.python, self.pins, folder / "log", folder / "cache")

    def install(
        self, compiler: Compiler = PERMISSIVE, *, compiling: str = "works", rebuild: bool = False, **engines: str
    ) -> str:
        plays = {"compiling": compiling, "engines": engines}
        (self.folder / "plays.json").write_text(json.dumps(plays))
        return self.builder.install(compiler, rebuild=rebuild)

    def built(self) -> list[str]:
        done = self.folder / "done"
        return done.read_text().split("\n")[:-1] if done.exists() else []


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def defines(compiler: Compiler, number: int = 0) -> dict[str, str]:
    return dict(recipes(compiler)[number].defines)


def test_flaws_of_the_newest_xeons_are_built_around() -> None:
    assert defines(PERMISSIVE)["CMAKE_CXX_FLAGS"] == "-fno-dse -mno-avx512fp16"
    assert defines(PERMISSIVE)["CMAKE_C_FLAGS"] == "-mno-avx512fp16"


def test_other_cpus_get_no_flags() -> None:
    assert not {"CMAKE_CXX_FLAGS", "CMAKE_C_FLAGS"} & set(defines(Compiler(("true",), ("true",), "cc", OLDER)))
    assert [recipe.name for recipe in recipes(Compiler(("true",), ("true",), "cc", OLDER))] == [
        "for this CPU",
        "for any CPU of this kind",
    ]


def test_flags_that_the_compiler_refuses_are_left_out() -> None:
    assert "CMAKE_CXX_FLAGS" not in defines(Compiler(("false",), ("false",), "cc", XEON))


def test_second_recipe_does_without_amx_and_the_last_without_this_cpu() -> None:
    assert "-mno-amx-tile" in defines(PERMISSIVE, 1)["CMAKE_CXX_FLAGS"]
    assert defines(PERMISSIVE, 2)["GGML_NATIVE"] == "OFF"


def test_engine_that_works_is_built_once(stage: Stage) -> None:
    assert stage.install() == "built for this CPU"
    assert stage.install() == "built for this CPU, kept from before"
    assert stage.built() == ["built best"]


def test_engine_that_dies_is_replaced_by_the_next(stage: Stage) -> None:
    assert stage.install(best="dies") == "built without AMX"
    assert stage.install(best="dies", plain="dies") == "built for any CPU of this kind"
    assert stage.built() == ["built best", "built plain", "built portable"]


def test_engine_that_died_is_not_built_again(stage: Stage) -> None:
    stage.install(best="dies")
    assert stage.install() == "built without AMX, kept from before"
    assert stage.built() == ["built best", "built plain"]


def test_engine_that_computes_wrongly_is_replaced_too(stage: Stage) -> None:
    assert stage.install(best="babbles") == "built without AMX"


def test_rebuilding_forgets_what_was_kept(stage: Stage) -> None:
    stage.install(best="dies")
    assert stage.install(rebuild=True) == "built for this CPU"
    assert stage.built() == ["built best", "built plain", "built best"]


def test_no_engine_at_all_says_what_each_one_did(stage: Stage) -> None:
    with pytest.raises(SetupError, match=r"(?s)for this CPU: died by signal 4.*without AMX: said 'Lyon'.*ENGINE=no"):
        stage.install(best="dies", plain="babbles", portable="dies")


def test_compiler_that_fails_is_quoted_and_nothing_is_kept(stage: Stage) -> None:
    with pytest.raises(SetupError, match=r"(?s)Compiling the engine failed.*no space left"):
        stage.install(compiling="fails")
    assert list((stage.folder / "cache").iterdir()) == []
    assert stage.install() == "built for this CPU"


@pytest.mark.parametrize("change", ["pins", "compiler", "environment", "cpu"])
def test_engine_built_for_something_else_is_not_reused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    stage.install()
    compiler = PERMISSIVE
    if change == "pins":
        stage.pins.write_text("engine==2\n")
    elif change == "compiler":
        compiler = Compiler(("true",), ("true",), "cc 2.0", XEON)
    elif change == "environment":
        monkeypatch.setenv("CMAKE_ARGS", "-DGGML_BLAS=ON")
    else:
        monkeypatch.setattr(engine, "cpu", lambda: "another")
    assert stage.install(compiler) == "built for this CPU"
    assert stage.built() == ["built best", "built best"]


def test_only_the_latest_builds_are_kept(stage: Stage) -> None:
    for number in range(engine.KEPT_BUILDS + 2):
        stage.install(Compiler(("true",), ("true",), f"cc {number}", XEON))
    assert len(list((stage.folder / "cache").iterdir())) == engine.KEPT_BUILDS
    assert stage.install(Compiler(("true",), ("true",), f"cc {number}", XEON)).endswith("kept from before")


def test_missing_compiler_is_told_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SetupError, match=r"(?s)Install one:.*ENGINE=no"):
        engine.find_compiler()


def test_compiler_without_its_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")  # Is there, and compiles nothing.
    with pytest.raises(SetupError, match="no working C and C"):
        engine.find_compiler()


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler here")
def test_compiler_of_this_machine_knows_its_flags() -> None:
    compiler = engine.find_compiler()
    assert compiler.accepts("-O2")
    assert not compiler.accepts("-mno-such-thing")
    assert compiler.version
    assert "#define" in compiler.macros


def test_cpu_is_told_by_more_than_its_architecture() -> None:
    assert len(engine.cpu().split()) > 1
    assert engine.cpu() == engine.cpu()


def test_cache_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine.platform, "system", lambda: "Linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engine.cache_folder() == tmp_path / "starlings/engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert engine.cache_folder() == tmp_path / "home/.cache/starlings/engines"
    assert os.fspath(engine.cache_folder()).startswith(str(tmp_path))
