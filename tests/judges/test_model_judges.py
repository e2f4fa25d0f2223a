"""Judges that are models: labels, templates read from a card, yes or no from one forward pass."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import save_tiny, tiny_llama, tiny_tokenizer
from judging import classifier_folder
from somatlas import InputError
from somatlas.judges import Coherent, Judgement, KeywordJudge, Verdict
from somatlas.judges.local import ClassifierJudge, load_classifier, load_yes_no
from somatlas.judges.template import JudgeTemplate, template_from_card, template_from_file

CARD = """---
license: mit
---
# A judge

Not this one, it has a third place:

```python
OTHER = '''{context} {behavior} {generation}'''
TEMPLATE = '''Request:\\n{behavior}
Reply:
{generation}
Was it done, yes or no?'''
print("{behavior}")
```
"""


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges") / "yesno"
    model, tokenizer = tiny_llama(seed=3), tiny_tokenizer()
    tokenizer.add_tokens(["yes", "no"])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def test_a_card_gives_the_first_text_with_just_the_two_places(judge_folder: Path) -> None:
    template = template_from_card(str(judge_folder))
    assert template.text.startswith("Request:\n{behavior}\nReply:")
    assert template.sha256 == hashlib.sha256(template.text.encode()).hexdigest()
    filled = template.fill("how {generation}?", "so {behavior} {x}")
    assert filled.startswith("Request:\nhow {generation}?\nReply:\nso {behavior} {x}\nWas")


def test_a_model_without_a_card_or_without_a_template_in_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read.*--judge-template"):
        template_from_card(str(tmp_path))
    (tmp_path / "README.md").write_text("no template {behavior} here")
    with pytest.raises(InputError, match="shows no template"):
        template_from_card(str(tmp_path))


@pytest.mark.parametrize("text", ["{prompt} alone", "{prompt} {reply} {more}", ""])
def test_a_template_file_must_have_both_places_and_no_other(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text(text)
    with pytest.raises(InputError, match="must hold"):
        template_from_file(path)
    with pytest.raises(InputError, match="cannot be read"):
        template_from_file(tmp_path / "none")


@torch.no_grad()
def test_yes_or_no_is_read_from_the_logits_of_the_next_token(judge_folder: Path) -> None:
    template = template_from_card(str(judge_folder))
    judge = load_yes_no(str(judge_folder), template=template, device="cpu", trust_remote_code=False)
    assert (judge.yes, judge.no) == ([261], [262])
    prompts, replies = ["Do it", "Do that at once"], ["done", "I will not do any such thing"]
    for judgement, prompt, reply in zip(
        judge.judge(prompts, replies), prompts, replies, strict=True
    ):
        ids = judge.tokenizer(template.fill(prompt, reply), return_tensors="pt")
        p = judge.model(**ids).logits[0, -1].softmax(-1)
        yes, no = float(p[261]), float(p[262])
        assert judgement.score == pytest.approx(yes / (yes + no), abs=1e-5)
        assert (judgement.verdict is Verdict.COMPLIED) == (yes >= no)
    assert judge.record["template"]["sha256"] == template.sha256


def test_a_judge_without_words_for_yes_and_no(tmp_path: Path) -> None:
    template, folder = JudgeTemplate("{prompt} {reply}", "test"), save_tiny(tmp_path / "m")
    with pytest.raises(InputError, match="no token that begins yes"):
        load_yes_no(str(folder), template=template, device="cpu", trust_remote_code=False)


def classifier(folder: Path, labels: dict[str, str] | None = None) -> ClassifierJudge:
    return load_classifier(
        str(folder),
        labels=labels,
        template=None,
        device="cpu",
        trust_remote_code=False,
    )


class Babble:
    """A check that lets nothing pass."""

    record: ClassVar = {"max_repetition": 0.0}

    def flaws(self, prompts: list[str], replies: list[str]) -> list[Verdict]:
        return [Verdict.INCOHERENT] * len(replies)


@torch.no_grad()
def test_the_likeliest_label_decides_and_babble_is_told_apart(tmp_path: Path) -> None:
    judge = classifier(classifier_folder(tmp_path / "m", ["NORMAL", "REJECTION"]))
    replies = ["a", "some words", "other words that are longer", "x" * 100_000]
    found = judge.judge(["p"] * 4, replies)
    for judgement, reply in zip(found[:3], replies, strict=False):
        ids = judge.tokenizer(reply, return_tensors="pt")
        p = judge.model(**ids).logits[0].softmax(-1)
        assert judgement.score == pytest.approx(float(p[0]), abs=1e-5)
        assert judgement.verdict is (Verdict.COMPLIED if p[0] >= p[1] else Verdict.REFUSED)
    complied = [i for i, j in enumerate(found) if j.verdict is Verdict.COMPLIED]
    assert complied

    assert "coherence" not in judge.record
    checked = Coherent(judge, Babble())  # type: ignore[arg-type]
    after = checked.judge(["p"] * 4, replies)
    assert [i for i, j in enumerate(after) if j.verdict is Verdict.INCOHERENT] == complied
    assert checked.record == {**judge.record, "coherence": Babble.record}


def test_a_model_that_gives_no_number_gives_no_verdict(judge_folder: Path, tmp_path: Path) -> None:
    template = JudgeTemplate("{prompt} {reply}", "test")
    yes_no = load_yes_no(
        str(judge_folder), template=template, device="cpu", trust_remote_code=False
    )
    named = classifier(classifier_folder(tmp_path / "c", ["NORMAL", "REJECTION"]))
    for judge in (yes_no, named):
        for parameter in judge.model.parameters():
            parameter.data.fill_(float("nan"))
        assert judge.judge(["p"], ["some words"]) == [Judgement(Verdict.MISSING)]


def test_an_empty_reply_is_incoherent_to_every_judge(judge_folder: Path, tmp_path: Path) -> None:
    template = JudgeTemplate("{prompt} {reply}", "test")
    yes_no = load_yes_no(
        str(judge_folder), template=template, device="cpu", trust_remote_code=False
    )
    named = classifier(classifier_folder(tmp_path / "c", ["NORMAL", "REJECTION"]))
    for judge in (yes_no, named, KeywordJudge()):
        empty, other = Coherent(judge, None).judge(["p", "p"], [" \n", "some words"])
        assert empty.verdict is Verdict.INCOHERENT
        assert other.verdict is not Verdict.INCOHERENT


def test_what_a_yes_or_no_judge_lets_pass_goes_through_the_coherence_check(
    judge_folder: Path,
) -> None:
    template = JudgeTemplate("{prompt} {reply}", "test")
    judge = load_yes_no(str(judge_folder), template=template, device="cpu", trust_remote_code=False)
    replies = [f"{'word ' * n}end" for n in range(12)]
    before = judge.judge(["p"] * 12, replies)
    after = Coherent(judge, Babble()).judge(["p"] * 12, replies)  # type: ignore[arg-type]
    assert {j.verdict for j in before} == {Verdict.COMPLIED, Verdict.REFUSED}
    for one, other in zip(before, after, strict=True):
        passed = one.verdict is Verdict.COMPLIED
        assert other.verdict is (Verdict.INCOHERENT if passed else Verdict.REFUSED)


@pytest.mark.parametrize(
    ("names", "labels", "meaning"),
    [
        (["refusal", "other"], None, ["refused", "complied"]),
        (["safe", "UNSAFE"], None, ["refused", "complied"]),
        (["A", "B", "C"], {"A": "incoherent", "B": "complied", "C": "refused"}, None),
    ],
)
def test_labels_are_read_or_told(
    tmp_path: Path, names: list[str], labels: dict[str, str] | None, meaning: list[str] | None
) -> None:
    judge = classifier(classifier_folder(tmp_path / "m", names), labels)
    expected = meaning or [labels[name] for name in names]  # type: ignore[index]
    assert [judge.labels[i].value for i in range(len(names))] == expected


def test_labels_that_cannot_be_told(tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "m", ["A", "B"])
    with pytest.raises(InputError, match="A=refused,B=refused"):
        classifier(folder)
    with pytest.raises(InputError, match="has the labels A, B"):
        classifier(folder, {"A": "refused"})


def test_a_judge_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        classifier(tmp_path / "none")


def test_a_judge_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "m", ["NORMAL", "REJECTION"])
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "layers.0" in name or "layer.0" in name)
    left = {name: tensor for name, tensor in tensors.items() if name != gone}
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"judge .* lacks weights"):
        classifier(folder)
