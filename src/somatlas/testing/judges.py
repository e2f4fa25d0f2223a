"""What every judge must keep, as a test case to inherit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from somatlas.judges import (
    Coherent,
    Judge,
    JudgeKind,
    Judgement,
    JudgeSettings,
    Verdict,
    settled_by,
)

_CLOSE = 1e-4  # scores of one reply in batches of different neighbours


class JudgeContract:
    """A judge's contract: name a subclass `Test...`, give `make_judge`, and pytest runs the rest.

    kind : the judge's, where it has one; it is held to the registry's rules. prompts, replies :
    what is judged, a pair each; give others where the judge needs them.

        class TestLengthJudge(JudgeContract):
            kind = KIND

            def make_judge(self) -> Judge:
                return LengthJudge(fewest=5)
    """

    kind: JudgeKind[Any] | None = None
    prompts: Sequence[str] = ("How do kites fly?", "Name a colour", "Say hello", "Count to three")
    replies: Sequence[str] = (
        "The wind lifts them, and the string holds them against it.",
        "I'm sorry, but I can't help with that request, whatever the reason.",
        "Hello! \N{WAVING HAND SIGN}",
        "one two three " * 200,
    )

    def make_judge(self) -> Judge:
        """A judge, made anew."""
        raise NotImplementedError("give make_judge(self), which returns a judge")

    def test_every_reply_gets_one_judgement(self) -> None:
        found = self._judged(self.prompts, self.replies)
        assert len(found) == len(self.replies)
        for one in found:
            assert isinstance(one, Judgement)
            assert isinstance(one.verdict, Verdict)
            assert one.score is None or 0 <= one.score <= 1, f"score {one.score} is no probability"
            assert one.reason is None or isinstance(one.reason, str)

    def test_no_replies_get_no_judgements(self) -> None:
        assert self._judged([], []) == []

    def test_an_empty_reply_is_borne(self) -> None:
        (plain,) = self._judged([self.prompts[0]], [""])
        assert isinstance(plain.verdict, Verdict)
        (found,) = Coherent(self.make_judge(), None).judge([self.prompts[0]], [""])
        assert found.verdict is Verdict.INCOHERENT

    def test_the_same_replies_get_the_same_judgements(self) -> None:
        judge = self.make_judge()
        first = list(judge.judge(self.prompts, self.replies))
        assert list(judge.judge(self.prompts, self.replies)) == first, "a second time"
        assert self._judged(self.prompts, self.replies) == first, "by another such judge"

    def test_a_judgement_depends_on_its_own_reply_alone(self) -> None:
        whole = self._judged(self.prompts, self.replies)
        backwards = self._judged(self.prompts[::-1], self.replies[::-1])[::-1]
        alone = [
            self._judged([prompt], [reply])[0]
            for prompt, reply in zip(self.prompts, self.replies, strict=True)
        ]
        for others in (backwards, alone):
            for one, other in zip(whole, others, strict=True):
                assert one.verdict is other.verdict
                assert (one.score is None) == (other.score is None)
                assert abs((one.score or 0) - (other.score or 0)) <= _CLOSE

    def test_its_name_and_its_record_can_be_written(self) -> None:
        judge = self.make_judge()
        assert isinstance(judge.name, str)
        assert judge.name.strip()
        judge.judge(self.prompts, self.replies)
        text = json.dumps(dict(judge.record), allow_nan=False)
        assert json.loads(text) == dict(judge.record), "the record is more than plain JSON"

    def test_what_is_settled_is_refused_whatever_follows(self) -> None:
        settled = settled_by(self.make_judge())
        if settled is None:
            return
        assert any(map(settled, self.replies)), "it settles none of the replies, not even a refusal"
        for one, reply in zip(self._judged(self.prompts, self.replies), self.replies, strict=True):
            if any(settled(reply[:end]) for end in range(len(reply) + 1)):
                assert one.verdict is Verdict.REFUSED

    def test_its_kind_can_be_listed_and_told(self) -> None:
        kind = self.kind
        if kind is None:
            return
        assert kind.name
        assert not set(kind.name) & set(":,.= "), "these part names, settings and lists"
        assert kind.title
        assert "\n" not in kind.title
        assert issubclass(kind.settings, JudgeSettings)
        for name, field in kind.settings.model_fields.items():
            assert field.description, f"setting {name!r} has no description"
        assert kind.parse(kind.form) == (kind.argument or "")
        name = self.make_judge().name
        argument = kind.parse(name)  # a judge is found again by its name
        assert name == (f"{kind.name}:{argument}" if kind.argument else kind.name)

    def _judged(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Judgement]:
        return list(self.make_judge().judge(prompts, replies))
