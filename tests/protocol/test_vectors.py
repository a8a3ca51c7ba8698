"""The vector files, read by this implementation and by a second one that was written from SPEC.md alone."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import codec, envelope, framing
from protocol import limits as lim
from protocol.errors import RemoteProtocolError
from protocol.exchange import Exchanges, Stage
from protocol.genesis import swarm_id
from protocol.identity import Identity, NodeId, node_from_text, node_text, verify
from protocol.messages import MESSAGES, Advert, Message, Pulse, Suspicion
from protocol.notary import Notary
from protocol.parts import Turn
from protocol.prefixes import prefix_of
from swarm.finding.regions import key_of
from swarm.values import Subject
from tests import independent_decoder as second
from tests.independent_signatures import holds
from tests.strategies import ADA, messages, plain
from tests.vectors import talks
from tests.vectors.files import FOLDER, MAKERS, files
from tests.vectors.samples import MESSAGES as SAMPLES
from tests.vectors.samples import as_json, named, packed

FILES = [f"{make.__name__}.json" for make in MAKERS]


@pytest.fixture(scope="session", autouse=True)
def written(request: pytest.FixtureRequest) -> None:
    """Under --rewrite the files are made anew before anything reads them."""
    if request.config.getoption("--rewrite", default=False):
        for name, content in files().items():
            (FOLDER / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def rows(name: str, part: str) -> list[Any]:
    found: list[Any] = read(name)[part]
    assert found
    return found


def refusal(call: Any) -> str:
    """The kind of error of either implementation, or nothing."""
    try:
        call()
    except (RemoteProtocolError, second.Refused) as error:
        return error.kind
    return ""


def second_json(name: str, fields: dict[str, Any]) -> Any:
    return {"message": name, "fields": _plain(fields)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def test_the_files_are_what_the_code_makes_of_the_seeds() -> None:
    """[VEC-1] A change of the wire shows here; if it is meant, --rewrite, and a new protocol id."""
    for name, content in files().items():
        assert json.loads(json.dumps(content)) == read(name), f"{name} differs; if that is meant, use --rewrite"


def test_there_is_a_body_of_every_kind() -> None:
    """[VEC-1] [MSG-1] A new message needs a vector."""
    assert [type(message) for message in SAMPLES] == [cls for _, cls in sorted(MESSAGES.items())]


# --- Names and keys ---------------------------------------------------------------------------------------------------


def test_identities() -> None:
    """[VEC-1] [IDN-1] [IDN-2] [IDN-3] Both ways, in both implementations."""
    for row in rows("identities.json", "valid"):
        node = bytes.fromhex(row["node"])
        assert Identity(bytes.fromhex(row["seed"])).node == node
        assert node_text(NodeId(node)) == second.peer_id(node) == row["text"]
        assert node_from_text(row["text"]) == second.node_of(row["text"]) == node
    for row in rows("identities.json", "invalid"):
        assert second.node_of(row["text"]) is None, row["why"]
        with pytest.raises(ValueError, match="not "):
            node_from_text(row["text"])


def test_signatures() -> None:
    """[VEC-1] [IDN-4] The rule in plain arithmetic and libsodium agree, on small and mixed orders too."""
    verdicts = []
    for row in read("signatures.json"):
        node, data, signature = (bytes.fromhex(row[part]) for part in ("node", "data", "signature"))
        assert verify(NodeId(node), data, signature) == holds(node, data, signature) == row["holds"], row["why"]
        verdicts.append((row["why"], row["holds"]))
    assert ("a key of mixed order", True) in verdicts
    assert ("a key of mixed order", False) in verdicts


def test_swarms() -> None:
    """[VEC-1] [SWM-1] Names and their ids."""
    for row in read("swarms.json"):
        assert swarm_id(row["name"]).hex() == second.swarm_of(row["name"]).hex() == row["swarm"]


def test_providers() -> None:
    """[VEC-1] [DHT-1] Where providers of a subject are written down, in each region."""
    rows = read("providers.json")
    for row in rows:
        swarm, digest = bytes.fromhex(row["swarm"]), bytes.fromhex(row["digest"])
        key = key_of(swarm, Subject(row["skill"], row["model"], digest), row["region"])
        assert key.hex() == second.provider_key(swarm, row["skill"], row["model"], digest, row["region"]).hex() == row["key"]
    assert len({row["key"] for row in rows}) == len(rows), "no two subjects, regions or swarms share a key"


def test_prefixes() -> None:
    """[VEC-1] [ADV-11] Digests of what conversations begin with."""
    rows = read("prefixes.json")
    for row in rows:
        turns = [(role, text) for role, text in row["turns"]]
        digest, size = prefix_of(row["model"], [Turn(*turn) for turn in turns], row["tools"])
        assert digest.hex() == second.prefix(row["model"], row["tools"], turns).hex() == row["prefix"]
        assert (size >= lim.PREFIX_TEXT_BYTES_MIN) is bool(digest)
    found = [row["prefix"] for row in rows]
    assert found[0] == found[1], "what follows is no part of it"
    assert len(set(found)) == 7
    assert found.count("") == 3


# --- Bytes of the wire ------------------------------------------------------------------------------------------------


def test_bodies() -> None:
    """[VEC-1] [COD-1] [COD-2] [COD-5] Fields and bytes of every kind."""
    for row in rows("bodies.json", "valid"):
        body = bytes.fromhex(row["body"])
        assert named(codec.decode(body)) == {"message": row["message"], "fields": row["fields"]}
        assert second_json(*second.decode(body)) == {"message": row["message"], "fields": row["fields"]}
        assert codec.encode(codec.decode(body)) == body


def test_bodies_to_refuse() -> None:
    """[VEC-1] [COD-3] [COD-4] [COD-5] [COD-6] [COD-8] By the same kind in both implementations."""
    for row in rows("bodies.json", "invalid"):
        body = bytes.fromhex(row["body"])
        assert refusal(lambda body=body: codec.decode(body)) == row["kind"], row["why"]
        assert refusal(lambda body=body: second.decode(body)) == row["kind"], row["why"]


def _first_opens(sealed: bytes, receiver: Any) -> tuple[Any, bytes]:
    header, body, _ = envelope.split(sealed)
    swarm, audience = bytes.fromhex(receiver["swarm"]), NodeId(bytes.fromhex(receiver["audience"]))
    envelope.check(header, swarm, audience, receiver["now_ms"])
    envelope.prove(sealed)
    return as_json(header), body


def _second_opens(sealed: bytes, receiver: Any) -> tuple[Any, bytes]:
    header, body = second.split(sealed)
    swarm, audience = bytes.fromhex(receiver["swarm"]), bytes.fromhex(receiver["audience"])
    second.judge(header, swarm, audience, receiver["now_ms"])
    second.prove(sealed)
    return _plain({name: value for name, value in header.items() if name != "version"}), body


def test_envelopes() -> None:
    """[VEC-1] [ENV-1] [ENV-2] [ENV-3] [ENV-8] Headers and bodies, at the edges of time too."""
    receiver = read("envelopes.json")["receiver"]
    for row in rows("envelopes.json", "valid"):
        sealed = bytes.fromhex(row["envelope"])
        wanted = (row["header"], bytes.fromhex(row["body"]))
        assert _first_opens(sealed, receiver) == wanted
        assert _second_opens(sealed, receiver) == wanted


def test_envelopes_to_refuse() -> None:
    """[VEC-1] [ENV-2] [ENV-4] [ENV-5] [ENV-6] [ENV-7] [ENV-8] [ENV-9] By the same kind in both implementations."""
    receiver = read("envelopes.json")["receiver"]
    for row in rows("envelopes.json", "invalid"):
        sealed = bytes.fromhex(row["envelope"])
        assert refusal(lambda sealed=sealed: _first_opens(sealed, receiver)) == row["kind"], row["why"]
        assert refusal(lambda sealed=sealed: _second_opens(sealed, receiver)) == row["kind"], row["why"]


def test_adverts() -> None:
    """[VEC-1] [ADV-1] [ADV-3] Those that hold and those that do not."""
    content = read("adverts.json")
    swarm, now_ms = bytes.fromhex(content["swarm"]), content["now_ms"]
    for row in content["adverts"]:
        sealed = bytes.fromhex(row["sealed"])
        assert _first_believes(row["kind"], sealed, swarm, now_ms) == row["holds"], row["why"]
        assert second.advert_holds(sealed, swarm, now_ms, row["kind"]) == row["holds"], row["why"]


def _first_believes(name: str, sealed: bytes, swarm: bytes, now_ms: int) -> bool:
    kind: type[Message] = {"Advert": Advert, "Pulse": Pulse, "Suspicion": Suspicion}[name]
    try:
        return not Notary(ADA, swarm, Random(0)).fault(codec.signed(kind, sealed), now_ms / 1000)
    except RemoteProtocolError:
        return False


def test_frames() -> None:
    """[VEC-1] [FRM-1] [FRM-2] [FRM-3] Streams, and what is left of them."""
    for row in rows("frames.json", "valid"):
        stream = bytes.fromhex(row["stream"])
        found, rest = second.frames(stream)
        wanted = [(item["form"], bytes.fromhex(item["payload"])) for item in row["frames"]]
        assert framing.FrameReader().feed(stream) == found == wanted
        assert rest.hex() == row["rest"]
    for row in rows("frames.json", "invalid"):
        stream = bytes.fromhex(row["stream"])
        assert refusal(lambda stream=stream: framing.FrameReader().feed(stream)) == row["kind"]
        assert refusal(lambda stream=stream: second.frames(stream)) == row["kind"]


# --- Conversations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", sorted(talks.SCRIPTS))
def test_the_second_implementation_hears_what_was_written_down(why: str) -> None:
    """[VEC-1] [LNK-1] [LNK-3] [LNK-4] [LNK-5] [LNK-6] The first one wrote it, see the test of the files themselves."""
    (talk,) = [talk for talk in read("links.json") if talk["why"] == why]
    swarm, own, peer, token = (bytes.fromhex(talk[part]) for part in ("swarm", "own", "peer", "token"))
    listener = second.Listener(swarm, own, peer, token)
    for step in talk["steps"]:
        if "say" in step:
            listener.say(step["say"]["message"], bytes.fromhex(step["say"]["fields"]["attempt"]["hex"]))
            continue
        chunk = bytes.fromhex(step["hear"])
        if "kind" in step:
            assert refusal(lambda chunk=chunk, step=step: listener.hear(chunk, step["now_ms"])) == step["kind"]
        else:
            assert [second_json(*heard) for heard in listener.hear(chunk, step["now_ms"])] == step["messages"]


def test_attempts() -> None:
    """[VEC-1] [EXC-1] [EXC-2] [EXC-3] [EXC-4] Every legal order, and each first wrong step, for who hears it."""
    samples: dict[str, Any] = {type(message).__name__: message for message in SAMPLES}
    for row in read("attempts.json"):
        *before, last = row["steps"]
        theirs = _side(last)
        ours = "worker" if theirs == "requester" else "requester"
        first, other = Exchanges(), second.Attempts()
        for name in before:
            message = samples[name]
            assert first.sent(message) if _side(name) == ours else first.received(message)
            assert other.note(name, message.attempt, ours, _side(name))
        assert _first_outcome(first, samples[last]) == row["last"]
        assert _second_outcome(other, last, samples[last].attempt, ours, theirs) == row["last"]


def _side(name: str) -> str:
    return "requester" if name in ("TaskRequest", "TaskCancelled") else "worker"


def _first_outcome(exchanges: Exchanges, message: Any) -> str:
    try:
        counts = exchanges.received(message)
    except RemoteProtocolError as error:
        return error.kind
    stage = exchanges.stage(message.attempt)
    return "late" if not counts else "closed" if stage is Stage.IDLE else stage.value


def _second_outcome(attempts: second.Attempts, name: str, attempt: bytes, ours: str, theirs: str) -> str:
    try:
        counts = attempts.note(name, attempt, ours, theirs)
    except second.Refused as error:
        return error.kind
    return "late" if not counts else attempts.stages.get(attempt, ("", "closed"))[1]


# --- Beyond the files: the two implementations on whatever comes ------------------------------------------------------


def _agree_on_body(body: bytes) -> None:
    first, other = refusal(lambda: codec.decode(body)), refusal(lambda: second.decode(body))
    assert first == other
    if not first:
        assert named(codec.decode(body)) == second_json(*second.decode(body))


@settings(max_examples=150)
@given(messages())
def test_both_read_any_message_alike(message: Message) -> None:
    """[COD-2] [COD-5] Not only the ones in the files."""
    _agree_on_body(codec.encode(message))


@settings(max_examples=150)
@given(st.sampled_from(SAMPLES), st.data())
def test_both_judge_a_changed_body_alike(message: Message, data: st.DataObject) -> None:
    """[COD-3] [COD-4] [COD-5] [COD-9] A changed, a missing or an inserted byte."""
    body = bytearray(codec.encode(message))
    at = data.draw(st.integers(0, len(body) - 1))
    byte = data.draw(st.binary(max_size=2))
    body[at : at + data.draw(st.integers(0, 2))] = byte
    _agree_on_body(bytes(body))


@settings(max_examples=150)
@given(st.sampled_from(sorted(MESSAGES)), st.lists(plain(), max_size=12))
def test_both_judge_any_fields_alike(kind: int, parts: list[Any]) -> None:
    """[COD-2] [COD-4] [COD-5] [COD-9] Whatever msgpack can say, behind a known kind."""
    _agree_on_body(packed([kind, *parts]))


@settings(max_examples=150)
@given(st.data())
def test_both_judge_a_changed_envelope_alike(data: st.DataObject) -> None:
    """[ENV-1] [ENV-2] [ENV-4] [ENV-5] [ENV-6] [ENV-7] [ENV-8] [ENV-9] By the same kind, so in the same order."""
    content = read("envelopes.json")
    sealed = bytearray(bytes.fromhex(content["valid"][1]["envelope"]))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    changed = bytes(sealed)
    first = refusal(lambda: _first_opens(changed, content["receiver"]))
    assert first == refusal(lambda: _second_opens(changed, content["receiver"]))
