"""Writes requirements/*.txt anew from the short lists beside them: `make pins`, after a list has changed or to move on.

The pins hold for Python 3.11 and later on every system, carry hashes, and name no place from which anything was downloaded.

    python tools/pins.py [--upgrade]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

UV = "uv==0.13.9"  # Writes one file for all systems at once; pip cannot yet.
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
LISTS = {
    "node": ("--override", "overrides.txt", "--excludes", "without.txt"),
    "engine": ("--no-deps",),
    "build": ("-c", "node.txt"),
    "dev": ("-c", "node.txt", "-c", "build.txt"),
}
SETTINGS = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-emit-index-url")


def main() -> int:
    """0 if every file was written. Stops at the first list that cannot be resolved."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, UV], check=True)
        uv = str(Path(folder, "bin/uv"))
        for name, options in LISTS.items():
            files = (f"{name}.in", *options, "-o", f"{name}.txt", *sys.argv[1:])
            command = [uv, "pip", "compile", "--quiet", *SETTINGS, "--custom-compile-command", "make pins", *files]
            subprocess.run(command, cwd=REQUIREMENTS, check=True, stdout=subprocess.DEVNULL)
            print(f"requirements/{name}.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
