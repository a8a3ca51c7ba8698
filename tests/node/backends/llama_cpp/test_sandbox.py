"""What the child can no longer do, tried in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from node.backends.llama_cpp.sandbox import LOG_BYTES_MAX

ATTEMPTS = """
import json, os, resource, socket, sys, threading
from pathlib import Path
from node.backends.llama_cpp.sandbox import restrict_files, restrict_process

model, secret, folder = map(Path, sys.argv[1:])
guards = restrict_process(os.getppid()) + restrict_files([model])

def tries(attempt):
    try:
        attempt()
        return "done"
    except OSError as error:
        return error.strerror

def connect():
    with socket.socket() as s:
        s.settimeout(5)
        s.connect(("127.0.0.1", int(os.environ["PORT"])))

result = {
    "guards": guards,
    "read model": tries(model.read_bytes),
    "read secret": tries(secret.read_bytes),
    "list folder": tries(lambda: os.listdir(folder)),
    "write file": tries(lambda: (folder / "new").write_bytes(b"x")),
    "write model": tries(lambda: model.write_bytes(b"x")),
    "remove secret": tries(secret.unlink),
    "connect": tries(connect),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
}
thread = threading.Thread(target=lambda: result.update({"thread reads secret": tries(secret.read_bytes)}))
thread.start(); thread.join()
print(json.dumps(result), flush=True)
for _ in range(64):
    try:
        os.write(2, b"x" * 65536)
    except OSError:
        break
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    import socket

    folder = tmp_path_factory.mktemp("sandbox")
    (folder / "model").write_bytes(b"model")
    (folder / "secret").write_bytes(b"secret")
    log = folder / "log"
    with socket.create_server(("127.0.0.1", 0)) as server, log.open("wb") as errors:
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, folder / "model", folder / "secret", folder],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={"PYTHONPATH": str(Path(__file__).parents[4]), "PORT": str(server.getsockname()[1])},
            timeout=60,
            check=True,
        )
    said: dict[str, object] = json.loads(done.stdout)
    said["log bytes"] = log.stat().st_size
    return said


def test_the_model_can_be_read(result: dict[str, object]) -> None:
    assert result["read model"] == "done"


def test_what_is_claimed_of_files_holds(result: dict[str, object]) -> None:
    guards = result["guards"]
    assert isinstance(guards, list)
    if "no foreign files" not in guards:
        pytest.skip("this kernel has no Landlock")
    for attempt in ("read secret", "thread reads secret", "list folder", "write file", "write model", "remove secret"):
        assert result[attempt] == "Permission denied", attempt


def test_what_is_claimed_of_the_network_holds(result: dict[str, object]) -> None:
    guards = result["guards"]
    assert isinstance(guards, list)
    if not {"no network", "no TCP"} & set(guards):
        pytest.skip("this kernel permits neither namespaces nor Landlock for TCP")
    assert result["connect"] in ("Network is unreachable", "Permission denied")


def test_neither_core_nor_log_fills_the_disk(result: dict[str, object]) -> None:
    assert result["core"] == 0
    assert result["log bytes"] == LOG_BYTES_MAX
