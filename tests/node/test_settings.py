"""Settings: where values come from, and what is said when they are wrong."""

import re
from pathlib import Path
from random import Random

import pytest

from node.exits import ExitCode
from node.settings import ConfigError, Settings, load
from node.store.home import Home, find_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return find_home({"SWARM_HOME": str(tmp_path)})


def write(home: Home, text: str) -> Home:
    home.config_file.write_text(text)
    return home


def read(home: Home, **environ: str) -> Settings:
    return load(home, {}, environ=environ)


def refusal(home: Home, overrides: dict[str, object] | None = None, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(home, overrides or {}, environ=environ)
    assert caught.value.exit == ExitCode.CONFIG_INVALID
    return caught.value


def test_without_a_file_everything_is_default(home: Home) -> None:
    settings = read(home)
    assert settings.api.listen == "127.0.0.1:7976"
    assert (settings.api.host, settings.api.port) == ("127.0.0.1", 7976)
    assert settings.ask.deadline_s == 60
    assert set(settings.origins.values()) == {"default"}


def test_later_layers_win_and_every_value_knows_its_origin(home: Home) -> None:
    write(home, 'version = 1\n[offer]\nmax_parallel = 3\nthreads = 3\nmodels = ["a"]\n[log]\nlevel = "debug"\n')
    environ = {"SWARM_OFFER__THREADS": "4", "SWARM_OFFER__MODELS": "b,c"}
    settings = load(home, {"offer.models": ["d"]}, environ=environ)
    assert (settings.offer.max_parallel, settings.origins["offer.max_parallel"]) == (3, "file")
    assert (settings.offer.threads, settings.origins["offer.threads"]) == (4, "env")
    assert (settings.offer.models, settings.origins["offer.models"]) == (("d",), "flag")
    assert (settings.offer.models, settings.origins["api.listen"]) == (("d",), "default")
    assert {key: value for key, value, _ in settings.items()}["offer.threads"] == 4


def test_an_unknown_key_names_file_line_and_what_was_meant(home: Home) -> None:
    failure = refusal(write(home, '[node]\nname = "x"\n\n[api]\nlisen = "127.0.0.1:1"\n'))
    assert failure.message == f'{home.config_file}, line 5: unknown key "lisen" in [api]'
    assert failure.hint == 'Did you mean "listen"?'


def test_an_unknown_section_names_file_line_and_what_was_meant(home: Home) -> None:
    failure = refusal(write(home, "[nod]\nmdns = true\n"))
    assert failure.message == f'{home.config_file}, line 1: unknown section "nod"'
    assert failure.hint == 'Did you mean "node"?'


def test_a_dotted_key_is_found_too(home: Home) -> None:
    assert "line 2: " in refusal(write(home, 'node.mdns = true\nnode.nmae = "x"\n')).message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[offer]\nmax_parallel = 0\n", "line 2: offer.max_parallel: Expected `int` >= 1, not 0"),
        ("[offer]\nmax_parallel = '2'\n", "line 2: offer.max_parallel: Expected `int`, got `str`"),
        ("[node]\nlisten = '/ip4/0.0.0.0/tcp/1'\n", "line 2: node.listen: Expected `array`, got `str`"),
        ("[node]\nlisten = ['0.0.0.0:1']\n", "line 2: node.listen: cannot listen on"),
        ("[node]\nlisten = ['']\n", "line 2: node.listen: an entry is empty"),
        ("[node]\njoin = ['example.org']\n", "line 2: node.join: not an address"),
        ("[node]\nname = 'a\\u001bb'\n".replace("'", '"'), "line 2: node.name: an entry is empty or has characters"),
        ("[node]\nname = 'ä23456789012345678901234567890123'\n", "line 2: node.name: at most 32 bytes"),
        ("[api]\nlisten = '0.0.0.0:7976'\n", "line 2: api.listen: the API listens on loopback only"),
        ("[log]\nlevel = 'loud'\n", "line 2: log.level: one of debug, info, warning, error, not"),
        ("[api]\nhosts = ['*']\n", "line 2: api.hosts: a Host name without"),
        ("[api]\norigins = ['null']\n", "line 2: api.origins: an origin as a browser writes it"),
        ("[api]\norigins = ['http://a.b/']\n", "line 2: api.origins: an origin as a browser writes it"),
        ("[api]\norigins = ['https://*.a.b']\n", "line 2: api.origins: an origin as a browser writes it"),
        ("[api]\norigins = ['http://a.b:80']\n", "line 2: api.origins: an origin as a browser writes it"),
        ("[api]\norigins = ['localhost:3000']\n", "line 2: api.origins: an origin as a browser writes it"),
        ("[offer]\nmemory = '6'\n", "line 2: offer.memory: not an amount of memory"),
        ("[ask]\ndeadline = 'soon'\n", "line 2: ask.deadline: not a duration"),
        ("[ask]\ndeadline = '11m'\n", "line 2: ask.deadline: a deadline is over 0 s and at most 600 s"),
        ("[ask]\ndeadline = '0s'\n", "line 2: ask.deadline: a deadline is over 0 s"),
        ("[log]\nprompts = 1\n", "line 2: log.prompts: Expected `bool`, got `int`"),
        ("node = 3\n", "line 1: node is a section: write [node]"),
        ("\nversion = 2\n", "line 2: version is 2; this program reads version 1"),
        ("version = true\n", "line 1: version is True"),
        ("[node\n", "is not TOML: "),
        ("[node]\n[node]\n", "is not TOML: "),
    ],
)
def test_a_bad_value_names_file_line_and_key(home: Home, text: str, problem: str) -> None:
    message = refusal(write(home, text)).message
    assert message.startswith(str(home.config_file))
    assert problem in message


def test_a_broken_file_names_the_line(home: Home) -> None:
    assert re.search(r"is not TOML: .*line 3", refusal(write(home, "[node]\n\nname = \n")).message)


def test_a_file_that_is_no_text_or_too_large_or_a_folder_is_named(home: Home) -> None:
    home.config_file.write_bytes(b"[node]\n\xff\xfe")
    assert "line 2: is not UTF-8" in refusal(home).message
    home.config_file.write_bytes(b"#" * 1_000_001)
    assert "is larger than" in refusal(home).message
    home.config_file.unlink()
    home.config_file.mkdir()
    assert str(home.config_file) in refusal(home).message


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    environ = {"SWARM_HOME": str(tmp_path), "SWARM_CONFIG": str(tmp_path / "mine.toml")}
    assert "mine.toml: there is no such file" in refusal(find_home(environ), **environ).message


def test_the_environment_speaks_of_numbers_booleans_and_lists(home: Home) -> None:
    settings = read(
        home,
        SWARM_OFFER__MAX_PARALLEL="7",
        SWARM_NODE__MDNS="false",
        SWARM_NODE__LISTEN='["/ip4/127.0.0.1/tcp/0"]',
        SWARM_NODE__JOIN="/ip4/1.2.3.4/tcp/1, /ip4/1.2.3.4/tcp/2",
        SWARM_OFFER__MODELS="",
    )
    assert (settings.offer.max_parallel, settings.node.mdns) == (7, False)
    assert settings.node.listen == ("/ip4/127.0.0.1/tcp/0",)
    assert settings.node.join == ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2")
    assert settings.offer.models == ()


def test_a_variable_without_a_setting_names_what_was_meant(home: Home) -> None:
    failure = refusal(home, SWARM_API__LISEN="127.0.0.1:1")
    assert failure.message == "environment variable SWARM_API__LISEN: no such setting"
    assert failure.hint == 'Did you mean "SWARM_API__LISTEN"?'


def test_a_bad_variable_is_named(home: Home) -> None:
    message = refusal(home, SWARM_OFFER__THREADS="many").message
    assert message.startswith("environment variable SWARM_OFFER__THREADS: offer.threads: Expected `int`")
    assert "not a JSON list" in refusal(home, SWARM_NODE__LISTEN="[1,").message


def test_short_variables_give_way_to_long_ones(home: Home) -> None:
    assert read(home, SWARM_LOG="error").log.level == "error"
    assert read(home, SWARM_LOG="error", SWARM_LOG__LEVEL="debug").log.level == "debug"


def test_the_flags_reach_the_daemon_through_its_environment(home: Home) -> None:
    settings = load(home, environ={"SWARM_OVERRIDES": '{"node.name": "wren"}'})
    assert (settings.node.name, settings.origins["node.name"]) == ("wren", "flag")
    with pytest.raises(ConfigError, match="not a JSON object"):
        load(home, environ={"SWARM_OVERRIDES": "[]"})


def test_a_bad_flag_is_named(home: Home) -> None:
    assert refusal(home, {"api.listen": "192.168.1.1:80"}).message.startswith(
        "flag for api.listen: api.listen: the API"
    )
    assert refusal(home, {"api.lisen": ""}).hint == 'Did you mean "api.listen"?'


def test_offline_moves_everything_to_loopback(home: Home) -> None:
    write(
        home,
        '[node]\nlisten = ["/ip4/0.0.0.0/tcp/4976", "/ip6/::/tcp/4976", "/ip4/127.0.0.2/tcp/1"]\n'
        'join = ["/ip4/127.0.0.1/tcp/5", "/dns4/example.org/tcp/1"]\nannounce = ["/dns4/example.org/tcp/1"]\n',
    )
    node = read(home, SWARM_OFFLINE="1").node
    assert node.listen == ("/ip4/127.0.0.1/tcp/4976", "/ip6/::1/tcp/4976", "/ip4/127.0.0.2/tcp/1")
    assert (node.join, node.announce, node.mdns) == (("/ip4/127.0.0.1/tcp/5",), (), False)
    assert read(home).node.mdns


def test_model_files_are_found_from_the_folder_of_the_config(home: Home) -> None:
    write(home, '[offer]\nmodels = ["models/x.gguf", "echo:", "~/y.gguf"]\n')
    file, other, own = read(home).offer.models
    assert file == str(home.config_file.parent / "models/x.gguf")
    assert other == "echo:"
    assert own == str(Path.home() / "y.gguf")


def test_pages_of_browsers_and_of_programs_that_contain_one_can_be_let_in(home: Home) -> None:
    pages = ("http://localhost:3000", "https://a.b", "http://[::1]:1", "app://obsidian.md", "chrome-extension://abcdef")
    assert read(home, SWARM_API__ORIGINS=",".join(pages)).api.origins == pages


def test_port_zero_is_allowed(home: Home) -> None:
    settings = load(home, {"api.listen": "127.0.0.1:0", "node.listen": ["/ip4/127.0.0.1/tcp/0"]}, environ={})
    assert settings.api.port == 0


def test_whatever_is_in_the_file_the_only_failure_is_a_config_error(home: Home) -> None:
    whole = (
        'version = 1\n[node]\nname = "wren"\nlisten = ["/ip4/0.0.0.0/tcp/4976"]\nmdns = true\n[api]\nlisten = "127.0.0.1:1"\n'
        '[offer]\nmodels = ["echo:"]\nmax_parallel = 2\n[ask]\ndeadline = "60s"\n'
    )
    for seed in range(600):
        dice = Random(seed)
        text = list(whole)
        for _ in range(dice.randint(1, 6)):
            at = dice.randrange(len(text))
            text[at : at + dice.randint(0, 8)] = dice.choices('[]"=.\n0a/:-{},\\ \u00e9\x00', k=dice.randint(0, 3))
        home.config_file.write_text("".join(text))
        try:
            read(home)
        except ConfigError as failure:
            assert str(home.config_file) in failure.message, seed
