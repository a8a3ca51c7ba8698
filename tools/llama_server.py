"""Builds llama-server from the engine's own source package, with the engine's own flags, for `make bench-engine`.

Prints the program's path on stdout; what it does meanwhile goes to stderr. Built once for each engine: 6 minutes with two cores.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from tools.engine import cache_folder, find_compiler, fingerprint, recipes, wanted  # noqa: E402

PINS = ROOT / "requirements/engine.txt"
# What a server on loopback does not need: a page, TLS, and other programs.
OPTIONS = ("LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI", "LLAMA_OPENSSL", "LLAMA_CURL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES")


def main() -> int:
    """0: the path was printed."""
    pins = PINS.read_text(encoding="utf-8")
    recipe = recipes(find_compiler())[0]
    built = cache_folder().parent / "llama-server" / fingerprint(wanted(pins), Path(__file__).read_text(encoding="utf-8"))
    program = built / "bin/llama-server"
    if not program.exists():
        shutil.rmtree(built, ignore_errors=True)  # What was interrupted belongs to a source that is gone.
        with tempfile.TemporaryDirectory() as name:
            download = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
            _run(*download, "--require-hashes", "-r", str(PINS), "-d", name)
            with tarfile.open(next(Path(name).glob("*.tar.gz"))) as archive:
                archive.extractall(name, filter="data")
            source = next(Path(name).glob("*/vendor/llama.cpp"))
            defines = [*((option, "OFF") for option in OPTIONS), ("CMAKE_BUILD_TYPE", "Release"), *recipe.defines]
            # Ninja, because CMake lets make start as many compilers as there are files.
            _run("cmake", "-G", "Ninja", "-S", str(source), "-B", str(built), *(f"-D{key}={value}" for key, value in defines))
            _run("cmake", "--build", str(built), "--target", "llama-server")
    print(program)
    return 0


def _run(*command: str) -> None:
    # CMake and Ninja are among the pinned tools for the build.
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(command, stdout=sys.stderr, check=True, env={**os.environ, "PATH": places})


if __name__ == "__main__":
    sys.exit(main())
