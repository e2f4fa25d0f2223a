"""Verdicts and replies of a server that works, fails, hangs, answers nonsense or is in the way."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fake_server import fake_server
from injections import REPLIES
from judging import by_words
from somatlas import InputError
from somatlas.judges import Judgement, Verdict
from somatlas.judges.registry import check_missing
from somatlas.judges.rubric import RUBRIC, EndpointJudge, question, read_answer
from somatlas.models.reasoning import Parted
from somatlas.models.served import Endpoint


def endpoint(url: str, **options: Any) -> Endpoint:
    return Endpoint(url, "judge", **{"timeout_s": 5.0, "retries": 1, **options})


def verdicts(judgements: list[Judgement]) -> list[str]:
    return [j.verdict.value for j in judgements]


def test_a_server_judges_each_pair_once_and_its_answers_are_kept(tmp_path: Path) -> None:
    cache = tmp_path / "answers.jsonl"
    with fake_server(by_words) as server:
        judge = EndpointJudge(endpoint(server.url), cache)
        found = judge.judge(["a", "b", "c"], ["I can't help with that", "Sure: x", ""])
        assert verdicts(found) == ["refused", "complied", "incoherent"]
        assert found[0].reason == "because"
        assert judge.record["tokens"] == {"sent": 20, "received": 6}
        judge.judge(["a", "b"], ["I can't help with that", "Sure: x"])
        assert len(server.requests) == 2
        assert {body["seed"] for body, _ in server.requests} == {0}
        with cache.open("a") as file:
            file.write('{"key": "cut sho')  # a run that was killed
        again = EndpointJudge(endpoint(server.url), cache)
        assert verdicts(again.judge(["a", "d"], ["I can't help with that", "Sure"])) == [
            "refused",
            "complied",
        ]
        assert len(server.requests) == 3


def test_an_answer_of_another_shape_is_no_verdict_and_its_reason_can_be_written() -> None:
    assert read_answer('{"verdict": ["refused"]}') is None
    assert read_answer('{"verdict": {"a": 1}}') is None
    assert read_answer('{"a":' * 2000) is None
    assert read_answer('{"verdict": ' + "1" * 5000 + "}") is None
    found = read_answer('{"verdict": "refused", "reason": "cut \\ud83d"}')
    assert found == Judgement(Verdict.REFUSED, reason="cut ?")


def test_an_empty_reply_is_incoherent_and_nobody_is_asked() -> None:
    with fake_server(by_words) as server:
        judge = EndpointJudge(endpoint(server.url))
        found = judge.judge(["a", "b", "c"], ["", " \n\t", "Sure: x"])
        assert len(server.requests) == judge.record["asked"] == 1
    assert found[:2] == [Judgement(Verdict.INCOHERENT, reason="empty reply")] * 2
    assert found[2].verdict is Verdict.COMPLIED


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMATLAS_API_KEY", "sk-secret")
    with fake_server(by_words) as server:
        judge = EndpointJudge(endpoint(server.url), tmp_path / "answers.jsonl")
        judge.judge(["a"], ["b"])
        assert server.requests[0][1] == "Bearer sk-secret"
    written = (tmp_path / "answers.jsonl").read_text() + json.dumps(judge.record)
    assert "sk-secret" not in written


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (lambda _: 500, "HTTP 500"),
        (lambda _: 429, "HTTP 429"),
        (lambda _: 2.0, "time-out"),
        (lambda _: "I would say that it complied.", "no verdict"),
        (lambda _: '{"verdict": "perhaps"}', "no verdict"),
        (lambda _: '{"verdict": "complied"} {"verdict": "refused"}', "no verdict"),
    ],
)
def test_a_failing_server_gives_missing_never_a_verdict(answer: Any, failure: str) -> None:
    with fake_server(answer) as server:
        judge = EndpointJudge(endpoint(server.url, timeout_s=0.5))
        found = judge.judge(["a", "b"], ["x", "y"])
    assert verdicts(found) == ["missing", "missing"]
    assert judge.record["failures"] == {failure: 2}
    with pytest.raises(InputError, match=f"no verdict on 2 of 2.*{failure} 2.*--max-missing"):
        check_missing(judge, found, 0.02)
    check_missing(judge, found, 1.0)


def test_no_server_gives_missing() -> None:
    with fake_server(by_words) as server:
        url = server.url
    judge = EndpointJudge(endpoint(url, retries=0))
    assert verdicts(judge.judge(["a"], ["x"])) == ["missing"]
    assert judge.record["failures"] == {"no connection": 1}


def test_what_no_further_try_mends_is_said_at_once() -> None:
    for status, message in ((401, "refuses the key"), (404, "has no model 'judge'")):
        with (
            fake_server(lambda _, status=status: status) as server,
            pytest.raises(InputError, match=message),
        ):
            EndpointJudge(endpoint(server.url)).judge(["a"], ["x"])
    with pytest.raises(InputError, match="no http address"):
        endpoint("localhost:8000")
    with pytest.raises(InputError, match="must not hold a key"):
        endpoint("http://me:secret@host/v1")


def test_a_busy_server_is_asked_again() -> None:
    calls: Counter[str] = Counter()
    lock = threading.Lock()

    def busy(body: dict[str, Any]) -> str | int:
        with lock:
            calls[body["messages"][-1]["content"]] += 1
            return 429 if calls[body["messages"][-1]["content"]] == 1 else by_words(body)

    with fake_server(busy) as server:
        found = EndpointJudge(endpoint(server.url, retries=2)).judge(["a", "b"], ["x", "y"])
    assert verdicts(found) == ["complied", "complied"]


def test_a_server_without_answer_shapes_is_asked_without() -> None:
    with fake_server(lambda b: 400 if "response_format" in b else by_words(b)) as server:
        judge = EndpointJudge(endpoint(server.url, concurrency=1))
        assert verdicts(judge.judge(["a", "b"], ["x", "y"])) == ["complied", "complied"]
        assert len(server.requests) == 3  # one with, then without


def test_no_reply_can_leave_its_quotes_or_stand_for_the_answer() -> None:
    assert len(REPLIES) >= 30
    for reply in REPLIES:
        system, user = question("Do it", reply)
        assert system["content"] == RUBRIC
        assert json.loads(user["content"]) == {"request": "Do it", "reply": reply}
    with fake_server(by_words) as server:
        found = EndpointJudge(endpoint(server.url)).judge(["Do it"] * len(REPLIES), REPLIES)
    assert Counter(verdicts(found)) == {"refused": len(REPLIES)}


def test_a_long_reply_is_judged_by_its_beginning_and_the_record_says_how_much() -> None:
    with fake_server(by_words) as server:
        judge = EndpointJudge(endpoint(server.url))
        limit = judge.record["reply_characters"]
        found = judge.judge(["p", "p"], ["x" * limit + "I can't help with that", "x" * limit])
        assert len(server.requests) == 1  # what is read of the two is the same
        read = json.loads(server.requests[0][0]["messages"][-1]["content"])["reply"]
    assert read == "x" * limit
    assert verdicts(found) == ["complied", "complied"]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"content": "Yes"}, Parted("", "Yes")),
        ({"content": "<think>Hm.</think>Yes"}, Parted("Hm.", "Yes")),
        ({"content": "\n\nYes", "reasoning_content": "Hm.\n"}, Parted("Hm.", "Yes")),
        ({"content": "Yes", "reasoning": "Hm.", "reasoning_content": None}, Parted("Hm.", "Yes")),
        ({"content": "Yes", "reasoning": "", "reasoning_content": "Hm."}, Parted("Hm.", "Yes")),
        ({"content": None, "reasoning_content": "Hm, so"}, Parted("Hm, so", "")),
        ({"content": None}, None),
    ],
)
def test_reasoning_is_read_from_the_servers_field_or_from_the_text(
    message: dict[str, Any], said: Parted | None
) -> None:
    with fake_server(lambda _: message) as server:
        assert endpoint(server.url).ask([{"role": "user", "content": "p"}], 9) == said


def test_a_judge_that_thinks_aloud_is_taken_at_its_answer() -> None:
    said = {"content": '{"verdict": "refused"}', "reasoning_content": '{"verdict": "complied"}?'}
    with fake_server(lambda _: said) as server:
        found = EndpointJudge(endpoint(server.url)).judge(["a"], ["x"])
    assert verdicts(found) == ["refused"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"reason": "r", "verdict": "refused"}', Verdict.REFUSED),
        ('Here:\n```json\n{"verdict": "complied"}\n```', Verdict.COMPLIED),
        ('<think>{"x": {</think> {"verdict": "incoherent", "reason": 3}', Verdict.INCOHERENT),
        ('{"verdict": "missing"}', None),
        ("{", None),
        ("", None),
    ],
)
def test_answers_are_read_strictly(text: str, verdict: Verdict | None) -> None:
    found = read_answer(text)
    assert (found and found.verdict) == verdict
