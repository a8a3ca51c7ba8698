"""The routing language: every form of a name, and what is said when it leads nowhere."""

import pytest

from node.api.errors import ApiError
from node.api.names import Wanted, known_names, resolve
from protocol.identity import Identity, node_from_text, node_text
from tests.node.api.scripted_desk import HERON, WREN, ScriptedDesk, offer

HERON_ID, WREN_ID = node_from_text(HERON), node_from_text(WREN)


@pytest.mark.parametrize(
    ("name", "skill", "peer", "wanted"),
    [
        ("auto", "", "", Wanted("chat", "", None)),
        ("", "", "", Wanted("chat", "", None)),
        ("auto", "summarize", "", Wanted("summarize", "", None)),
        ("skill:summarize", "", "", Wanted("summarize", "", None)),
        ("skill:summarize", "summarize", "", Wanted("summarize", "", None)),
        ("smollm2-135m", "", "", Wanted("chat", "smollm2-135m", None)),
        ("org/tiny-chat", "summarize", "", Wanted("summarize", "org/tiny-chat", None)),
        ("magika", "", "", Wanted("classify", "magika", None)),
        ("peer:heron", "", "", Wanted("chat", "", HERON_ID)),
        (f"peer:{WREN}", "", "", Wanted("chat", "", WREN_ID)),
        ("peer:wren/org/tiny-chat", "", "", Wanted("chat", "org/tiny-chat", WREN_ID)),
        ("peer:heron/magika", "", "", Wanted("classify", "magika", HERON_ID)),
        ("auto", "", "heron", Wanted("chat", "", HERON_ID)),
        ("org/tiny-chat", "", WREN, Wanted("chat", "org/tiny-chat", WREN_ID)),
    ],
)
async def test_name_leads_to_what_it_says(name: str, skill: str, peer: str, wanted: Wanted) -> None:
    assert resolve(ScriptedDesk(), name, skill=skill, peer=peer) == wanted


@pytest.mark.parametrize(
    ("name", "skill", "peer", "code", "says"),
    [
        ("gpt-4o", "", "", "unknown_model", "smollm2-135m"),
        ("skill:vision", "", "", "unknown_skill", "chat, classify, summarize"),
        ("auto", "vision", "", "unknown_skill", "summarize"),
        ("smollm2-135m", "summarize", "", "unknown_skill", "Offered: chat"),
        ("peer:lynx", "", "", "unknown_peer", "heron, kestrel, wren"),
        ("peer:", "", "", "unknown_peer", "peer:NAME"),
        ("peer:heron/org/tiny-chat", "", "", "unknown_model", "magika, smollm2-135m"),
        ("peer:heron", "summarize", "", "unknown_skill", "Offered: chat, classify"),
        ("auto", "", "lynx", "unknown_peer", "heron"),
        ("skill:chat", "summarize", "", "bad_request", "contradicts"),
        ("peer:heron", "", "wren", "bad_request", "contradicts"),
    ],
)
async def test_name_that_leads_nowhere_names_what_exists(
    name: str, skill: str, peer: str, code: str, says: str
) -> None:
    with pytest.raises(ApiError) as refused:
        resolve(ScriptedDesk(), name, skill=skill, peer=peer)
    assert refused.value.code == code
    assert says in refused.value.message
    assert refused.value.param == "model"


async def test_what_makes_numbers_is_not_talked_with() -> None:
    desk = ScriptedDesk()
    desk.offers = [offer("embed", "minilm", HERON, "heron")]
    assert resolve(desk, "minilm", skill="embed") == Wanted("embed", "minilm", None)
    with pytest.raises(ApiError, match=r'does not offer the skill "chat"\. Offered: embed') as refused:
        resolve(desk, "minilm")
    assert refused.value.status == 404


@pytest.mark.parametrize(("state", "uptime_s"), [("starting", 60.0), ("ready", 1.0)])
async def test_young_node_asks_for_what_it_has_not_heard_of(state: str, uptime_s: float) -> None:
    desk = ScriptedDesk()
    desk.state, desk.uptime_s, desk.offers = state, uptime_s, []
    stranger = Identity(b"\x09" * 32).node
    assert resolve(desk, "gpt-4o") == Wanted("chat", "gpt-4o", None)
    assert resolve(desk, "skill:vision") == Wanted("vision", "", None)
    assert resolve(desk, f"peer:{node_text(stranger)}") == Wanted("chat", "", stranger)
    with pytest.raises(ApiError, match="Known: heron"):
        resolve(desk, "peer:lynx")


async def test_name_that_no_wire_can_carry_is_unknown_even_to_a_young_node() -> None:
    desk = ScriptedDesk()
    desk.uptime_s = 0.0
    with pytest.raises(ApiError) as refused:
        resolve(desk, "ü" * 49)
    assert refused.value.code == "unknown_model"
    with pytest.raises(ApiError) as refused:
        resolve(desk, "skill:" + "x" * 49)
    assert refused.value.code == "unknown_skill"


async def test_two_nodes_of_one_name_are_told_apart_by_id() -> None:
    class TwinDesk(ScriptedDesk):
        def peers(self):
            return [view for view in super().peers() if view.name == "heron"] + [
                type(view)(**{**{f: getattr(view, f) for f in view.__slots__}, "name": "heron"})
                for view in super().peers()
                if view.name == "wren"
            ]

    with pytest.raises(ApiError) as refused:
        resolve(TwinDesk(), "peer:heron")
    assert HERON in refused.value.message
    assert WREN in refused.value.message
    assert resolve(TwinDesk(), f"peer:{WREN}").worker == WREN_ID


async def test_list_of_what_exists_is_bounded() -> None:
    desk = ScriptedDesk()
    desk.offers = [offer("chat", f"model-{number:04}", HERON, "heron") for number in range(1000)]
    with pytest.raises(ApiError) as refused:
        resolve(desk, "x" * 5000)
    assert "and 986 more" in refused.value.message
    assert len(refused.value.message) < 500


async def test_names_are_listed_in_a_steady_order() -> None:
    names = known_names(ScriptedDesk().offers)
    assert names == [
        "auto", "skill:chat", "skill:classify", "skill:summarize", "magika", "org/tiny-chat", "smollm2-135m",
    ]  # fmt: skip
