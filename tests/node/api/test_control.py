"""The control API as the command line uses it: over the Unix socket, every route, every refusal."""

import msgspec
import pytest
import trio

from node.desk import AskText
from node.views import AnswerView, ModelView, PeerView, RouteView, SkillView, StatusView
from protocol.identity import node_from_text
from protocol.parts import Sampling, Turn
from swarm.values import Privacy
from tests.node.api.raw_http import Served, events
from tests.node.api.scripted_desk import HERON, WREN, done, routed


def view(data: object, cls: type) -> object:
    """The view that this JSON is, strictly."""
    return msgspec.convert(data, cls)


async def test_reads_are_the_views(api: Served) -> None:
    status = view((await api.get("/swarm/v1/status", unix=True)).json, StatusView)
    assert status == api.desk.status()
    peers = (await api.get("/swarm/v1/peers", unix=True)).json
    assert peers["schema"] == "swarm.peers/1"
    assert [view(peer, PeerView) for peer in peers["peers"]] == api.desk.peers()
    skills = (await api.get("/swarm/v1/skills", unix=True)).json
    assert skills["schema"] == "swarm.skills/1"
    assert [view(skill, SkillView) for skill in skills["skills"]] == api.desk.skills()
    models = (await api.get("/swarm/v1/models", unix=True)).json
    assert models == {"schema": "swarm.models/1", "models": []}


async def test_control_routes_work_over_tcp_with_the_key(api: Served) -> None:
    assert (await api.get("/swarm/v1/status")).json["name"] == "kestrel"


async def test_ask_streams_route_text_and_end(api: Served) -> None:
    reply = await api.post("/swarm/v1/ask", {"text": "one two"}, unix=True)
    assert reply.status == 200
    assert reply.headers["x-swarm-node"] == HERON
    found = events(reply.body)
    assert found[0][0] == "route"
    assert isinstance(view(found[0][1], RouteView), RouteView)
    assert "".join(data["text"] for name, data in found if name == "text") == "one two"
    name, end = found[-1]
    assert name == "end"
    assert view(end, AnswerView) == done(api.desk.asked[0]).answer
    task = api.desk.asked[0]
    assert (task.skill, task.turns, task.worker) == ("chat", (Turn("user", "one two"),), None)


async def test_route_is_told_before_any_text_comes(api: Served) -> None:
    go_on = trio.Event()
    api.desk.answers = lambda task: [routed(task), go_on, AskText("x"), done(task)]
    async with api.connected(unix=True) as conversation:
        await api.begin_post(conversation, "/swarm/v1/ask", {"text": "x"}, unix=True)
        assert (await conversation.begin())[0] == 200
        assert (await conversation.chunk()).startswith(b"event: route\n")
        go_on.set()
        assert b"event: end\n" in await conversation.rest()


async def test_every_wish_reaches_the_task(api: Served) -> None:
    body = {
        "turns": [{"role": "system", "text": "s"}, {"role": "user", "text": "u"}],
        "skill": "summarize", "model": "org/tiny-chat", "peer": "wren", "tokens_max": 9, "temperature": 0.0,
        "top_p": 0.5, "seed": 3, "stops": ["#"], "deadline_s": 1.5, "privacy": "local",
    }  # fmt: skip
    for path in ("/swarm/v1/ask", "/swarm/v1/route"):
        assert (await api.post(path, body, unix=True)).status == 200
        task = api.desk.asked.pop()
        assert task.turns == (Turn("system", "s"), Turn("user", "u"))
        assert (task.skill, task.model, task.worker) == ("summarize", "org/tiny-chat", node_from_text(WREN))
        assert (task.tokens_max, task.sampling, task.stops) == (9, Sampling(0.0, 0.5, seed=3), ("#",))
        assert (task.deadline_s, task.privacy) == (1.5, Privacy.LOCAL)


async def test_seed_zero_is_the_workers_choice(api: Served) -> None:
    await api.post("/swarm/v1/route", {"text": "x", "seed": 0}, unix=True)
    assert api.desk.asked[0].sampling.seed == 0


async def test_route_answers_without_sending(api: Served) -> None:
    reply = await api.post("/swarm/v1/route", {"text": "x", "skill": "summarize"}, unix=True)
    assert view(reply.json, RouteView) == api.desk.route(api.desk.asked[0])


@pytest.mark.parametrize("path", ["/swarm/v1/ask", "/swarm/v1/route"])
@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"text": "x", "skill": "vision"}, 404, "unknown_skill", "chat, classify, summarize"),
        ({"text": "x", "model": "gpt-4o"}, 404, "unknown_model", "smollm2-135m"),
        ({"text": "x", "peer": "lynx"}, 404, "unknown_peer", "heron"),
        ({}, 400, "bad_request", "text or turns"),
        ({"text": "x", "turns": []}, 400, "bad_request", "text or turns"),
        ({"turns": []}, 400, "bad_request", "empty"),
        ({"turns": [{"role": "tool", "text": "x"}]}, 400, "bad_request", "turns[0].role"),
        ({"text": "x", "deadline": 3}, 400, "bad_request", "deadline"),
        ({"text": "x", "deadline_s": -1}, 400, "bad_request", "deadline_s"),
        ({"text": "x" * 100_000}, 400, "too_long", "too long"),
    ],
)
async def test_task_that_cannot_be_asked_is_refused(
    api: Served, path: str, body: dict, status: int, code: str, says: str
) -> None:
    reply = await api.post(path, body, unix=True)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert says in reply.error["message"]
    assert api.desk.asked == []


async def test_model_is_loaded_and_shown(api: Served) -> None:
    reply = await api.post("/swarm/v1/models", {"ref": " echo: "}, unix=True)
    assert view(reply.json, ModelView) == api.desk.models()[0]
    assert (await api.get("/swarm/v1/models", unix=True)).json["models"][0]["ref"] == "echo:"
    assert (await api.post("/swarm/v1/models", {"ref": " "}, unix=True)).error["param"] == "ref"
    assert (await api.post("/swarm/v1/models", {}, unix=True)).status == 400


async def test_others_are_served_while_a_model_loads(api: Served) -> None:
    api.desk.loading = trio.Event()
    async with api.connected(unix=True) as conversation:
        await api.begin_post(conversation, "/swarm/v1/models", {"ref": "slow:"}, unix=True)
        assert (await api.get("/swarm/v1/status", unix=True)).status == 200
        api.desk.loading.set()
        assert (await conversation.reply()).json["ref"] == "slow:"


async def test_join_answers_with_the_peer(api: Served) -> None:
    reply = await api.post("/swarm/v1/join", {"address": "/ip4/127.0.0.1/tcp/4976"}, unix=True)
    assert view(reply.json, PeerView).name == "wren"
    assert api.desk.joined == ["/ip4/127.0.0.1/tcp/4976"]


async def test_join_that_fails_says_why(api: Served) -> None:
    reply = await api.post("/swarm/v1/join", {"address": "nonsense"}, unix=True)
    assert reply.status == 502
    assert reply.error["code"] == "join_failed"
    assert "not a multiaddr" in reply.error["message"]


async def test_shutdown_is_answered_before_the_node_stops(api: Served) -> None:
    async with api.connected(unix=True) as conversation:
        await conversation.send("POST", "/swarm/v1/shutdown", [("host", "swarm")])
        reply = await conversation.reply()
        assert (reply.status, reply.json) == (202, {"state": "stopping"})
        with trio.fail_after(20):
            await api.desk.stopped.wait()


async def test_readiness_follows_the_node(api: Served) -> None:
    for state, status in [("starting", 503), ("ready", 200), ("stopping", 503)]:
        api.desk.state = state
        reply = await api.get("/readyz")
        assert (reply.status, reply.json) == (status, {"ready": state == "ready", "state": state})
        assert (await api.get("/healthz")).status == 200
