"""The built-in judges, and the one of docs/extending.md, keep the contract of judges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from conftest import tiny_llama, tiny_tokenizer
from fake_server import FakeServer, fake_server
from judging import by_words, classifier_folder
from somatlas.judges import Coherent, Judge, Judgement, KeywordJudge, Verdict
from somatlas.judges.local import load_classifier, load_yes_no
from somatlas.judges.registry import built_in_kinds
from somatlas.judges.rubric import EndpointJudge
from somatlas.judges.template import JudgeTemplate
from somatlas.models.language_model import LanguageModel
from somatlas.models.served import Endpoint
from somatlas.testing import JudgeContract

KINDS = built_in_kinds()


class TestKeywordJudge(JudgeContract):
    kind = KINDS["keyword"]

    def make_judge(self) -> Judge:
        return KeywordJudge()


class TestAnotherBehaviour(JudgeContract):
    def make_judge(self) -> Judge:
        return KeywordJudge(lambda reply: "wind" in reply)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_folder(tmp_path_factory.mktemp("judges") / "c", ["NORMAL", "REJECTION"])


@pytest.fixture(scope="module")
def yes_no(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges") / "y"
    model, tokenizer = tiny_llama(seed=3), tiny_tokenizer()
    tokenizer.add_tokens(["yes", "no"])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with fake_server(by_words) as running:
        yield running


class TestClassifierJudge(JudgeContract):
    kind = KINDS["classifier"]

    @pytest.fixture(autouse=True)
    def _folder(self, classifier: Path) -> None:
        self.folder = str(classifier)

    def make_judge(self) -> Judge:
        return load_classifier(
            self.folder, labels=None, template=None, device="cpu", trust_remote_code=False
        )


class TestYesNoJudge(JudgeContract):
    kind = KINDS["yesno"]

    @pytest.fixture(autouse=True)
    def _folder(self, yes_no: Path) -> None:
        self.folder = str(yes_no)

    def make_judge(self) -> Judge:
        template = JudgeTemplate("{prompt}\n{reply}\nyes or no?", "test")
        return load_yes_no(self.folder, template=template, device="cpu", trust_remote_code=False)


class TestEndpointJudge(JudgeContract):
    kind = KINDS["endpoint"]

    @pytest.fixture(autouse=True)
    def _server(self, server: FakeServer) -> None:
        self.url = server.url

    def make_judge(self) -> Judge:
        return EndpointJudge(Endpoint(self.url, "m"))


class TestCoherent(JudgeContract):
    @pytest.fixture(autouse=True)
    def _model(self, tiny: LanguageModel) -> None:
        self.lm = tiny

    def make_judge(self) -> Judge:
        return Coherent.calibrated(KeywordJudge(), self.lm, ["a", "b", "c", "d"], tokens=12)


def test_every_built_in_kind_is_tried_here() -> None:
    tried = {one.kind.name for one in JudgeContract.__subclasses__() if one.kind is not None}
    assert tried >= set(KINDS)


class Drifting:
    """Judges by what came before, and not at all by the reply."""

    name = "drifting"
    record: ClassVar = {"limit": float("nan")}

    def __init__(self) -> None:
        self.seen = 0

    def is_settled(self, beginning: str) -> bool:
        return len(beginning) > 3

    def judge(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Judgement]:
        self.seen += len(replies)
        return [
            Judgement(Verdict.REFUSED if (self.seen + i) % 2 else Verdict.COMPLIED, score=2.0)
            for i, _ in enumerate(replies)
        ]


class Broken(JudgeContract):
    replies = ("a b c d", "e f g h", "i j k l", "m n o p")
    kind = KINDS["keyword"]

    def make_judge(self) -> Judge:
        return Drifting()


@pytest.mark.parametrize(
    "name",
    [
        "test_every_reply_gets_one_judgement",
        "test_a_judgement_depends_on_its_own_reply_alone",
        "test_its_name_and_its_record_can_be_written",
        "test_what_is_settled_is_refused_whatever_follows",
        "test_its_kind_can_be_listed_and_told",
    ],
)
def test_a_judge_that_breaks_the_contract_fails(name: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        getattr(Broken(), name)()
