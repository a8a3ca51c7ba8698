"""Where a node's files are: one folder under SWARM_HOME, or the folders that the platform provides."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.exits import Failure

SOCKET_PATH_BYTES_MAX = 103  # macOS holds 104 with the closing zero, Linux 108.
_APP = "swarm"


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one node. Nothing exists until `create`."""

    config_file: Path
    data: Path
    state: Path
    runtime: Path

    @property
    def identity_key(self) -> Path:
        return self.data / "identity.key"

    @property
    def models(self) -> Path:
        return self.data / "models"

    @property
    def api_key(self) -> Path:
        return self.state / "api.key"

    @property
    def lock(self) -> Path:
        return self.state / "node.lock"

    @property
    def journal(self) -> Path:
        """What this node's users have asked; see `node.store.journal`."""
        return self.state / "journal.db"

    def peers(self, swarm: bytes) -> Path:
        """Who this node was linked with in one swarm; see `node.store.peers`."""
        return self.state / f"peers-{swarm[:8].hex()}.json"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def log_file(self) -> Path:
        """The daemon's own log; see `node.logs`."""
        return self.logs / "node.log"

    @property
    def stdio_file(self) -> Path:
        """What the daemon and its libraries wrote to stdout and stderr; begun anew at each start."""
        return self.logs / "stdio.log"

    @property
    def socket(self) -> Path:
        return self.runtime / "control.sock"

    def create(self) -> None:
        """Make the folders, readable only by this user. Folders that exist are left as they are.

        Raises Failure if one cannot be made, or if the socket's folder belongs to somebody else.
        """
        for folder in (self.config_file.parent, self.data, self.models, self.state, self.logs, self.runtime):
            try:
                _make_folder(folder)
            except OSError as error:
                raise Failure(
                    "home_unusable",
                    f"the folder {folder} cannot be made: {error.strerror}",
                    hint="Set SWARM_HOME to a folder that you can write to.",
                ) from None
        self.check_runtime()

    def check_runtime(self) -> None:
        """Raises Failure if the socket's folder is in a place that all users share and is not this user's alone.

        Another user may have put it there, to be asked in this node's stead. A folder that is not there is no danger.
        """
        if self.runtime in (self.data, self.state):
            return
        try:
            found = self.runtime.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Failure(
                "foreign_socket",
                f"others can write to {self.runtime}, where this node's socket would be",
                hint=f"Remove {self.runtime}, or set SWARM_HOME to a shorter path.",
            )


def find_home(environ: Mapping[str, str] = os.environ) -> Home:
    """The home that SWARM_HOME names, or else this user's. SWARM_CONFIG overrides where config.toml is. Touches nothing."""
    root = environ.get("SWARM_HOME", "")
    if root:
        base = Path(os.path.abspath(os.path.expanduser(root)))
        home = Home(base / "config.toml", base, base, base)
    else:
        home = _platform_home(environ)
    config = environ.get("SWARM_CONFIG", "")
    config_file = Path(os.path.abspath(os.path.expanduser(config))) if config else home.config_file
    return Home(config_file, home.data, home.state, _short_enough(home.runtime, home.state, environ))


def _platform_home(environ: Mapping[str, str]) -> Home:
    import platformdirs  # Only here: with SWARM_HOME set the command does without it.

    state = platformdirs.user_state_path(_APP)
    # Without XDG_RUNTIME_DIR platformdirs would choose the temporary folder, which is shared; the state folder is ours.
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    usable = runtime and os.path.isdir(runtime)
    return Home(
        platformdirs.user_config_path(_APP) / "config.toml",
        platformdirs.user_data_path(_APP),
        state,
        Path(runtime) / _APP if usable else state,
    )


def _short_enough(runtime: Path, state: Path, environ: Mapping[str, str]) -> Path:
    """`runtime`, or, if a socket's path there would be too long to bind, a short folder drawn from the home's own path."""
    if len(os.fsencode(runtime / "control.sock")) <= SOCKET_PATH_BYTES_MAX:
        return runtime
    import hashlib
    import tempfile

    name = f"{_APP}-{os.geteuid()}-{hashlib.sha256(os.fsencode(state)).hexdigest()[:16]}"
    for base in (environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"):
        folder = Path(base) / name
        if base and os.path.isdir(base) and len(os.fsencode(folder / "control.sock")) <= SOCKET_PATH_BYTES_MAX:
            return folder
    return runtime  # Binding will say that it is too long; there is nowhere else.


def _make_folder(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True, mode=0o700)
