"""`swarm ask`: what is sent, what is printed where, and how every ending is told."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from node.exits import ExitCode
from protocol import errors
from protocol.limits import TURN_BYTES_MAX
from tests.conftest import Golden
from tests.node.cli import control_api as canned
from tests.node.cli.conftest import Run
from tests.node.cli.control_api import Answer, Control


def sent(control: Control) -> dict[str, Any]:
    ((route, body),) = control.asked
    assert route == "POST /ask"
    assert isinstance(body, dict)
    return body


def user_text(control: Control) -> str:
    return str(sent(control)["turns"][-1]["text"])


def test_the_answer_is_all_that_stdout_gets(swarm: Run, control: Control) -> None:
    ran = swarm("ask", "what", "is", "17%", "of", "240?")
    assert (ran.code, ran.out, ran.err) == (ExitCode.DONE, "40.8\n", "")
    assert sent(control) == {"turns": [{"role": "user", "text": "what is 17% of 240?"}]}


def test_no_stream_prints_the_same_at_the_end(swarm: Run, control: Control) -> None:
    assert swarm("ask", "hi", "--no-stream").out == "40.8\n"


def test_a_line_that_is_ended_is_not_ended_twice(swarm: Run, control: Control) -> None:
    control.events(("text", {"text": "a\n"}), ("end", asdict(canned.answer())))
    assert swarm("ask", "hi").out == "a\n"


def test_wishes_are_sent_as_they_were_said(swarm: Run, control: Control) -> None:
    wishes = "--skill math --model m --peer heron --local --deadline 1.5m --tokens-max 9 --temperature 0 --top-p 0.5"
    assert swarm("ask", "hi", *wishes.split(), "--seed", "7", "--stop", "a", "--stop", "b").code == ExitCode.DONE
    assert sent(control) == {
        "turns": [{"role": "user", "text": "hi"}],
        "skill": "math",
        "model": "m",
        "peer": "heron",
        "privacy": "local",
        "deadline_s": 90.0,
        "tokens_max": 9,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 7,
        "stops": ["a", "b"],
    }


def test_what_an_answer_must_look_like_is_sent_from_files_or_as_it_stands(swarm: Run, control: Control, tmp_path: Path) -> None:
    schema, grammar = tmp_path / "person.json", tmp_path / "yes.gbnf"
    schema.write_text('{"type": "object"}')
    grammar.write_text('root ::= "yes"\n')
    for arguments, expected in (
        (["--schema", str(schema)], {"schema": {"type": "object"}}),
        (["--schema", '{"enum": [1]}'], {"schema": {"enum": [1]}}),
        (["--grammar", str(grammar)], {"grammar": 'root ::= "yes"'}),
        (["--option", "yes", "--option", "no"], {"options": ["yes", "no"]}),
        (["--top-k", "3", "--min-p", "0.1", "--repeat-penalty", "1.2"], {"top_k": 3, "min_p": 0.1, "repeat_penalty": 1.2}),
        (["--presence-penalty", "-1", "--frequency-penalty", "1"], {"presence_penalty": -1.0, "frequency_penalty": 1.0}),
    ):
        control.asked.clear()
        assert swarm("ask", "hi", *arguments).code == ExitCode.DONE
        assert sent(control) == {"turns": [{"role": "user", "text": "hi"}], **expected}


def test_a_schema_that_is_none_is_told_before_anything_is_sent(swarm: Run, control: Control, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "half.json").write_text('{"type":')
    for schema, problem in (
        (str(tmp_path / "list.json"), "is no JSON Schema"),
        (str(tmp_path / "half.json"), "is no JSON"),
        ('{"type":', "--schema is no JSON"),
        (str(tmp_path / "missing.json"), "cannot be read"),
    ):
        ran = swarm("ask", "hi", "--schema", schema)
        assert (ran.code, problem in ran.err) == (ExitCode.FAILED, True), ran.err
    assert control.asked == []


def test_log_probabilities_come_with_the_json(swarm: Run, control: Control) -> None:
    told = [{"text": "a", "logprob": -0.5, "top": [["a", -0.5]]}]
    control.events(("text", {"text": "a", "logprobs": told}), ("text", {"text": "b"}), ("end", asdict(canned.answer())))
    ran = swarm("ask", "hi", "--logprobs", "1", "--json")
    assert sent(control)["logprobs"] == 1
    assert (ran.json["text"], ran.json["logprobs"]) == ("ab", told)


def test_a_system_text_comes_first(swarm: Run, control: Control) -> None:
    swarm("ask", "hi", "--system", "be brief")
    assert sent(control)["turns"] == [{"role": "system", "text": "be brief"}, {"role": "user", "text": "hi"}]


def test_text_comes_from_files_and_stdin(swarm: Run, control: Control, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("two\nlines\n")
    for arguments, typed, expected in (
        (["sum up", "-f", str(file)], None, "sum up\n\ntwo\nlines"),
        (["-f", str(file), "-f", "-"], b"more", "two\nlines\n\nmore"),
        (["-"], b"typed\n", "typed"),
        ([], b"piped", "piped"),
        (["sum up", "-f", "-"], b"piped", "sum up\n\npiped"),
    ):
        control.asked.clear()
        assert swarm("ask", *arguments, typed=typed).code == ExitCode.DONE
        assert user_text(control) == expected


def test_stdin_is_not_read_when_there_is_a_question(swarm: Run, control: Control) -> None:
    swarm("ask", "hi", typed=b"something piped by a cron job")
    assert user_text(control) == "hi"


def test_bytes_that_are_no_text_are_wrong_usage(swarm: Run, control: Control) -> None:
    ran = swarm("ask", "\udcff bad")
    assert (ran.code, control.asked) == (ExitCode.USAGE, [])
    assert "not UTF-8" in ran.err


@pytest.mark.parametrize("typed", [None, b"", b" \n"])
def test_nothing_to_ask_is_wrong_usage(swarm: Run, control: Control, typed: bytes | None) -> None:
    ran = swarm("ask", typed=typed)
    assert ran.code == ExitCode.USAGE
    assert "Nothing to ask" in ran.err
    assert control.asked == []


def test_text_that_cannot_be_sent_is_refused_before_sending(swarm: Run, control: Control, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long").write_bytes(b"x" * (TURN_BYTES_MAX + 1))
    (tmp_path / "half").write_bytes(b"x" * (TURN_BYTES_MAX // 2 + 1))
    half = str(tmp_path / "half")
    for arguments, problem in (
        (["-f", str(tmp_path / "binary")], "is not UTF-8 text"),
        (["-f", str(tmp_path / "long")], "65,536 bytes"),
        (["-f", half, "-f", half], "it has 65,540 bytes"),
        (["-f", str(tmp_path / "missing")], "missing cannot be read"),
        (["-f", str(tmp_path)], "cannot be read"),
    ):
        ran = swarm("ask", *arguments)
        assert (ran.code, ran.out) == (ExitCode.FAILED, "")
        assert problem in ran.err
    assert control.asked == []


@pytest.mark.parametrize(
    "flag",
    [
        "--deadline=soon", "--deadline=0s", "--temperature=3", "--temperature=nan", "--seed=-1", "--tokens-max=0", "--min-p=2",
        "--logprobs=21",
    ],
)
def test_a_wish_that_makes_no_sense_is_wrong_usage(swarm: Run, control: Control, flag: str) -> None:
    ran = swarm("ask", "hi", flag)
    assert ran.code == ExitCode.USAGE
    assert flag.partition("=")[0] in ran.err
    assert control.asked == []


def test_why_tells_who_answered_after_the_answer(swarm: Run, control: Control, golden: Golden) -> None:
    ran = swarm("ask", "what is 17% of 240?", "--why")
    assert ran.out == "40.8\n"
    golden("ask-why.txt", ran.err)


def test_json_is_one_object_with_text_and_account(swarm: Run, control: Control) -> None:
    found = swarm("ask", "hi", "--json").json
    assert found["text"] == "40.8"
    assert (found["name"], found["routes"][0]["candidates"][0]["name"]) == ("heron", "heron")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errors.NO_CAPABLE_PEER, ExitCode.NO_CAPABLE_PEER),
        (errors.DEADLINE_EXCEEDED, ExitCode.DEADLINE_PASSED),
        (errors.NOT_ALLOWED, ExitCode.REFUSED),
        (errors.EXHAUSTED, ExitCode.FAILED),
        (errors.STREAM_BROKEN, ExitCode.FAILED),
        (errors.BUSY, ExitCode.FAILED),
    ],
)
def test_a_task_that_fails_keeps_its_text_and_says_why(
    swarm: Run, control: Control, code: errors.ErrorCode, expected: ExitCode
) -> None:
    end = json.loads(json.dumps(asdict(canned.answer(code.name, code.meaning))))
    control.events(("text", {"text": "par"}), ("text", {"text": "tial"}), ("end", end))
    ran = swarm("ask", "hi")
    assert (ran.code, ran.out) == (expected, "partial\n")
    assert code.meaning in ran.err
    found = swarm("ask", "hi", "--json").json
    assert (found["schema"], found["code"], found["exit"]) == ("swarm.error/1", code.name, expected)
    assert (found["text"], found["answer"]) == ("partial", end)
    assert "heron (gemma3) after 0.8 s" in swarm("ask", "hi", "--why").err


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("unknown_model", 404, ExitCode.NO_CAPABLE_PEER),
        ("unknown_skill", 404, ExitCode.NO_CAPABLE_PEER),
        ("unknown_peer", 404, ExitCode.NO_CAPABLE_PEER),
        ("bad_request", 400, ExitCode.FAILED),
        ("too_many_tasks", 429, ExitCode.FAILED),
        ("bug", 500, ExitCode.BUG),
    ],
)
def test_a_refusal_of_the_api_is_told_with_its_words(
    swarm: Run, control: Control, code: str, status: int, expected: ExitCode
) -> None:
    control.fail("POST /ask", code, "nobody offers x; there are: y, z", status)
    ran = swarm("ask", "hi")
    assert (ran.code, ran.out) == (expected, "")
    assert "nobody offers x; there are: y, z" in ran.err
    assert swarm("ask", "hi", "--json").json["code"] == code


def test_an_error_event_in_the_stream_is_told(swarm: Run, control: Control) -> None:
    error = {
        "error": {"message": "this node is stopping", "type": "server_error", "param": None, "code": "shutting_down"}
    }
    control.events(("text", {"text": "par"}), ("error", error))
    ran = swarm("ask", "hi")
    assert (ran.code, ran.out) == (ExitCode.FAILED, "par\n")
    assert "this node is stopping" in ran.err


def test_a_stream_that_just_ends_is_not_taken_for_an_answer(swarm: Run, control: Control) -> None:
    control.events(("text", {"text": "40"}))
    ran = swarm("ask", "hi")
    assert (ran.code, ran.out) == (ExitCode.FAILED, "40\n")
    assert "before the answer was complete" in ran.err


def test_half_an_event_at_the_end_is_no_event(swarm: Run, control: Control) -> None:
    control.answers["POST /ask"] = Answer(stream=b'event: text\ndata: {"text":"40"}\n\nevent: text\ndata: {"te')
    assert swarm("ask", "hi").out == "40\n"


def test_an_http_error_without_words_is_told_by_its_number(swarm: Run, control: Control) -> None:
    control.answers["POST /ask"] = Answer("what?", 502)
    ran = swarm("ask", "hi", "--json")
    assert (ran.code, ran.json["code"]) == (ExitCode.FAILED, "http_502")


def test_a_pipe_gets_what_the_model_wrote_and_a_screen_is_protected(
    swarm: Run, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.events(("text", {"text": "a\x1b[2Jb\tc\nd"}), ("end", asdict(canned.answer())))
    assert swarm("ask", "hi").out == "a\x1b[2Jb\tc\nd\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert swarm("ask", "hi", "--color", "never").out == "a\ufffd[2Jb\tc\nd\n"


def test_an_answer_without_text_prints_nothing(swarm: Run, control: Control) -> None:
    control.events(("end", asdict(replace(canned.answer(), tokens_out=0, first_piece_s=None))))
    ran = swarm("ask", "hi", "--why")
    assert (ran.code, ran.out) == (ExitCode.DONE, "")
    assert "tok/s" not in ran.err


@pytest.mark.parametrize("command", ["ask", "route"])
@pytest.mark.parametrize("code", ["unknown_skill", "unknown_model", "no_capable_peer"])
def test_who_asks_for_what_is_not_there_hears_what_is(swarm: Run, control: Control, command: str, code: str) -> None:
    control.fail(f"POST /{command}", code, "nobody does that", 404)
    ran = swarm(command, "hi")
    assert ran.code == ExitCode.NO_CAPABLE_PEER
    assert ran.err == "swarm: nobody does that\nThere are: chat (smollm2); classify (langid). See: swarm skills\n"
    control.answers["GET /skills"] = Answer({"skills": []})
    assert "Nobody offers anything yet" in swarm(command, "hi", "--json").json["hint"]


def test_the_list_of_what_there_is_stays_short(swarm: Run, control: Control) -> None:
    control.fail("POST /ask", "unknown_skill", "nobody does that", 404)
    offers = [{"skill": f"s{skill:02}", "model": f"m{model}"} for skill in range(20) for model in range(9)]
    control.answers["GET /skills"] = Answer({"skills": offers})
    hint = swarm("ask", "hi", "--json").json["hint"]
    assert "s11 (m0, m1, m2, m3, m4, m5 and 3 more); and 8 more." in hint
