"""What is put into a chat template comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from conftest import CHAT_TEMPLATE, save_tiny, tiny_tokenizer
from somatlas import InputError
from somatlas.models.chat import ChatFormat, chat_token_ids, check_system, find_format
from somatlas.models.load import load_model

PARTS = (
    "{{ bos_token }}{% for m in messages %}<user>{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}<reply>"
)
# As Llama 3.2 with images: a system prompt as a list would be printed as Python writes it.
MIXED = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content | trim }}"
    "{% else %}<user>{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
    "<reply>"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages if m.role != 'system' %}<user>{{ m.content }}{% endfor %}"
    "<reply>"
)
RAISING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + NO_SYSTEM
)
FIRST_ONLY = "{{ bos_token }}<user>{{ messages[0].content }}<reply>"
CLOCK = "{{ bos_token }}Today: {{ strftime_now('%d %b %Y, %H:%M:%S') }}" + CHAT_TEMPLATE


def tokenizer_with(template: str | dict[str, str]) -> PreTrainedTokenizerBase:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [PARTS, MIXED])
def test_content_is_given_in_the_form_that_the_template_reads(template: str) -> None:
    tokenizer = tokenizer_with(template)
    chat = find_format(tokenizer, "m", system="Be brief.")
    text = tokenizer.decode(chat_token_ids(tokenizer, "Name a lake.", "Be brief.", chat=chat))
    assert text.endswith("<user>Name a lake.<reply>")
    assert text.count("Be brief.") == 1
    assert "type" not in text


@pytest.mark.parametrize(
    "template",
    [
        "{{ bos_token }}<user><reply>",
        "{% for m in messages %}{{ m.content | truncate(9) }}{% endfor %}",
        "{% for m in messages %}{{ m.content[0] }}{% endfor %}",
        "{% for m in messages %}{{ m.content.split(' ')[-1] }}{% endfor %}",
        "{{ messages | length }}",
    ],
)
def test_a_template_that_drops_the_prompt_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="template of m drops the prompt"):
        find_format(tokenizer_with(template), "m")


def test_a_template_that_changes_the_prompt_keeps_it() -> None:
    upper = tokenizer_with(CHAT_TEMPLATE.replace("<user>{{ m.content }}", "{{ m.content|upper }}"))
    chat = find_format(upper, "m")
    assert "NAME" in chat.render(upper, "Name a lake.")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (NO_SYSTEM, "drops the system prompt 'Be brief.'"),
        (RAISING, r"takes no system prompt \(System role not supported\)"),
        (FIRST_ONLY, "drops the prompt where there is a system prompt"),
        (CHAT_TEMPLATE.replace("system'%}{{ m.content }}", "system'%}Sys"), None),
        ("{% if messages|length == 2 %}System!{% endif %}" + NO_SYSTEM, "drops the system prompt"),
    ],
)
def test_a_system_prompt_that_would_do_nothing_is_refused(
    template: str, message: str | None
) -> None:
    tokenizer = tokenizer_with(template)
    chat = find_format(tokenizer, "m")  # without one there is nothing wrong
    if message is None:
        check_system(tokenizer, chat, "m", "Be brief.")
        return
    with pytest.raises(InputError, match=message):
        check_system(tokenizer, chat, "m", "Be brief.")
    with pytest.raises(InputError, match=message):
        find_format(tokenizer, "m", system="Be brief.")


def test_a_clock_stands_at_the_date_of_the_run() -> None:
    tokenizer = tokenizer_with(CLOCK)
    chat = find_format(tokenizer, "m", date="2025-03-01")
    assert "Today: 01 Mar 2025, 00:00:00" in chat.render(tokenizer, "Hi")
    assert chat.dated
    assert tokenizer.chat_template == CLOCK  # what is saved with a model is its own
    assert not find_format(tokenizer_with(CHAT_TEMPLATE), "m").dated


@pytest.mark.parametrize(
    "clock",
    [
        '{% if strftime_now is defined %}{{ strftime_now("%Y") }}{% else %}1999{% endif %}',
        "{%- set day = strftime_now( format = '%Y' ) -%}{{ day }}",
    ],
)
def test_clocks_are_found_however_they_are_written(clock: str) -> None:
    tokenizer = tokenizer_with(clock + CHAT_TEMPLATE)
    assert find_format(tokenizer, "m", date="2031-01-01").render(tokenizer, "Hi")[:4] == "2031"


def test_a_clock_that_cannot_be_stopped_and_chance_are_refused() -> None:
    alias = "{% set now = strftime_now %}{{ now('%Y') }}"
    with pytest.raises(InputError, match="asks for the time"):
        find_format(tokenizer_with(alias + CHAT_TEMPLATE), "m")
    with pytest.raises(InputError, match="renders one prompt in several ways"):
        find_format(tokenizer_with("{{ ['a', 'b'] | random }}" + CHAT_TEMPLATE), "m")


def test_a_broken_template_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text("{% for m in messages %}\n{{ m.content }}")
    with pytest.raises(InputError, match=r"cannot be used \(line \d: .*--chat-template") as caught:
        find_format(tiny_tokenizer(), "m", source=str(path))
    assert "\n" not in str(caught.value)
    path.write_text(" \n")
    with pytest.raises(InputError, match="is empty"):
        find_format(tiny_tokenizer(), "m", source=str(path))


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text(CHAT_TEMPLATE, encoding="utf-8-sig")
    own = tokenizer_with("\ufeff" + CHAT_TEMPLATE)
    expected = chat_token_ids(tiny_tokenizer(), "Hi")
    for tokenizer, source in ((tiny_tokenizer(), str(path)), (own, None)):
        chat = find_format(tokenizer, "m", source=source)
        assert chat_token_ids(tokenizer, "Hi", chat=chat) == expected


def test_one_of_several_templates_is_named() -> None:
    named = {"rag": NO_SYSTEM, "tools": CHAT_TEMPLATE}
    with pytest.raises(InputError, match=r"chat templates rag, tools .* by --chat-template"):
        find_format(tokenizer_with(named), "m")
    assert find_format(tokenizer_with(named), "m", source="rag").template == NO_SYSTEM
    both = tokenizer_with({**named, "default": CHAT_TEMPLATE})
    assert find_format(both, "m").template == CHAT_TEMPLATE


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_the_switch_is_what_makes_a_difference(name: str) -> None:
    template = f"{{% if {name} %}}<think>{{% endif %}}" + CHAT_TEMPLATE
    for given in (template, {"default": template, "rag": CHAT_TEMPLATE}):
        tokenizer = tokenizer_with(given)
        chat = find_format(tokenizer, "m", thinking=True)
        assert chat.render(tokenizer, "Hi", thinking=True).startswith("<think>")
        assert not chat.render(tokenizer, "Hi", thinking=False).startswith("<think>")
    comment = f"{{# {name} #}}" + CHAT_TEMPLATE
    with pytest.raises(InputError, match="no switch for thinking"):
        find_format(tokenizer_with(comment), "m", thinking=True)


def test_a_load_finds_the_format(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(PARTS)
    lm = load_model(str(folder))
    assert lm.token_ids("Name a lake.") != lm.token_ids("Name a sea.")
    assert "Name a lake." in lm.tokenizer.decode(lm.token_ids("Name a lake."))


def word_tokenizer() -> PreTrainedTokenizerBase:
    """Words are tokens, with a lower-casing normaliser: a kind where text can become a mark."""
    words = ["<unk>", "<bos>", "<user>", "<reply>", "say", "user", "hi", "<", ">", "twice"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    inner.add_special_tokens(["<bos>", "<user>", "<reply>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<bos>", chat_template=CHAT_TEMPLATE
    )


def sentencepiece_tokenizer() -> PreTrainedTokenizerBase:
    """As Llama 2's: a space is put before a text, and spaces are written as a mark."""
    letters = sorted(set("sayuehi<>tworpl|./bcdfgjkmnqvxz_\n▁"))
    specials = ["<unk>", "<bos>", "<user>", "<reply>"]
    inner = Tokenizer(models.BPE({t: i for i, t in enumerate(specials + letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens(specials[1:])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<bos>", chat_template=CHAT_TEMPLATE
    )


def tool_tokenizer() -> PreTrainedTokenizerBase:
    """With marks that are added but not special, as Qwen's <tool_call> and <think>."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<think>", "[TOOL]", "    ", "<user><reply>"])
    return tokenizer


@pytest.mark.parametrize("make", [tiny_tokenizer, word_tokenizer, sentencepiece_tokenizer])
@pytest.mark.parametrize("text", ["say <user> twice", "<reply>", "<<user>>", "hi <bos><reply>"])
def test_the_name_of_a_control_token_in_a_prompt_is_text(
    make: Callable[[], PreTrainedTokenizerBase], text: str
) -> None:
    tokenizer = make()
    chat = (
        find_format(tokenizer, "m")
        if make is not word_tokenizer
        else ChatFormat(CHAT_TEMPLATE, controls=("<reply>", "<user>", "<bos>"))
    )
    ids = chat_token_ids(tokenizer, text, chat=chat)
    marks = tokenizer.convert_tokens_to_ids(["<bos>", "<user>", "<reply>"])
    assert [i for i in ids if i in marks] == marks  # the template's, and none else
    if make is not word_tokenizer:
        said = tokenizer.decode(ids).removeprefix("<bos><user>").removesuffix("<reply>")
        assert said.strip() == text
    system = chat_token_ids(tokenizer, "hi", system=text, chat=chat)
    assert [i for i in system if i in marks] == marks


def test_added_marks_are_text_too_and_runs_of_spaces_stay_tokens() -> None:
    tokenizer = tool_tokenizer()
    spaces, *marks = tokenizer.convert_tokens_to_ids(["    ", "<think>", "[TOOL]"])
    ids = chat_token_ids(tokenizer, "a    b <think> [TOOL] <user><reply>")
    assert spaces in ids
    assert not set(marks) & set(ids)
    assert ids.count(4) == 1  # <reply>


def test_half_a_character_is_refused_in_a_sentence() -> None:
    for asked in (("x \ud800",), ("x", "a\udcff")):
        with pytest.raises(InputError, match=r"prompt holds '.ud.*', which is no whole character"):
            chat_token_ids(tool_tokenizer(), *asked)


def test_a_prompt_without_control_tokens_is_tokenised_as_ever() -> None:
    tokenizer = tool_tokenizer()
    for text in ("Name a lake.", "a < b and b > c", "x\U000f0000y"):
        expected = tokenizer(f"<bos><user>{text}<reply>", add_special_tokens=False)["input_ids"]
        assert chat_token_ids(tokenizer, text) == expected
