"""Exports, each loaded back by the tools that users load it with, and compared with hooks."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from architectures import EXPORTED, build, language_model
from command import SMALL, Command
from conftest import save_tiny, tiny_tokenizer
from somatlas import DirectionSet, InputError, Projection
from somatlas.ablation import edited_weights
from somatlas.exports import Provenance, save_adapter, save_model
from somatlas.exports.adapter import carried_by_lora
from somatlas.exports.carried import left_behind
from somatlas.exports.edited_model import probe_logits, relative_gap
from somatlas.models.checkpoint import merge_adapter
from somatlas.models.integrity import stored_tensors
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.models.output_maps import output_maps

CARD = Provenance(
    "some/base", "abc", 2, (3, 0), "sequential", "projection", "mine", "f" * 64, 0, "SOM directions"
)
# LoRA cannot hold these architectures' biases or stacked experts.
PARTIAL = {
    *("GPT-2", "GPT-NeoX", "Falcon", "Mixtral", "Qwen3-MoE", "DeepSeek-V3", "GPT-OSS"),
    *("Qwen3-Next", "Falcon-H1"),
    "Llama",  # built with attention_bias
}


def projection(lm: LanguageModel) -> Projection:
    return Projection(torch.randn(3, lm.d_model, generator=torch.Generator().manual_seed(2)))


def hooked_logits(lm: LanguageModel) -> torch.Tensor:
    with lm.ablate(projection(lm)):
        return probe_logits(lm)


@pytest.mark.parametrize("name", EXPORTED)
def test_a_saved_model_loads_as_any_other_and_equals_hooks(name: str, tmp_path: Path) -> None:
    lm = language_model(name)
    before, hooked = probe_logits(lm), hooked_logits(lm)
    save_model(lm, projection(lm), tmp_path / "m", CARD)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    loaded = replace(lm, model=model, tokenizer=AutoTokenizer.from_pretrained(tmp_path / "m"))
    assert relative_gap(probe_logits(loaded), hooked) < 1e-3
    assert relative_gap(probe_logits(lm), before) < 1e-4  # the model in memory stays as it was
    card = (tmp_path / "m" / "README.md").read_text()
    for fact in ("some/base", "abc", "3 0", "mine", "Intended use"):
        assert fact in card


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "Gemma2"])
def test_a_tied_model_is_saved_untied_and_its_head_is_left_alone(name: str, tmp_path: Path) -> None:
    lm = replace(language_model(name), model=build(name))
    ids = torch.tensor([lm.token_ids("Hello")])
    from somatlas.models.output_maps import is_tied
    from somatlas.models.structure import find_structure

    if not is_tied(lm.model):  # Llama's config class does not tie by itself
        lm.model.config.tie_word_embeddings = True
        lm.model.tie_weights()
    lm = replace(lm, structure=find_structure(lm.model, ids))
    assert is_tied(lm.model)
    head = lm.model.get_output_embeddings().weight.clone()
    hooked = hooked_logits(lm)
    save_model(lm, projection(lm), tmp_path / "m", CARD)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    assert not is_tied(loaded)
    assert torch.equal(loaded.get_output_embeddings().weight, head)
    assert relative_gap(probe_logits(replace(lm, model=loaded)), hooked) < 1e-3


@pytest.mark.parametrize("name", EXPORTED)
def test_a_saved_adapter_has_rank_k_and_equals_hooks_where_it_can(
    name: str, tmp_path: Path
) -> None:
    lm = language_model(name)
    before, hooked = probe_logits(lm), hooked_logits(lm)
    save_adapter(lm, projection(lm), tmp_path / "a", CARD)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 3
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert {min(t.shape) for t in tensors.values()} == {3}
    from somatlas.models.output_maps import untie_head

    base = build(name)
    untie_head(base)
    gap = relative_gap(
        probe_logits(replace(lm, model=PeftModel.from_pretrained(base, tmp_path / "a"))), hooked
    )
    card = (tmp_path / "a" / "README.md").read_text()
    if name in PARTIAL:
        assert gap > 1e-3
        assert "does not carry" in card
    else:
        assert gap < 1e-3
        assert "does not carry" not in card
    assert "KL" in card
    assert relative_gap(probe_logits(lm), before) < 1e-4


def test_an_export_has_all_tensors_and_files_of_its_source(
    command: Command, tmp_path: Path
) -> None:
    """A model of images and text with multi-token prediction, which no class reads."""
    source, saved = tmp_path / "source", tmp_path / "saved"
    build("Qwen3.5 (image-text)").save_pretrained(source)
    tiny_tokenizer().save_pretrained(source)
    tensors = load_file(source / "model.safetensors")
    mtp = {"mtp.fc.weight": torch.randn(32, 64), "mtp.layers.0.mlp.up_proj.weight": torch.ones(9)}
    tensors |= mtp
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    (source / "preprocessor_config.json").write_text('{"patch_size": 4}')
    generation = json.dumps({"eos_token_id": [1, 7], "temperature": 0.6, "do_sample": True})
    (source / "generation_config.json").write_text(generation)
    (source / "original").mkdir()
    (source / "consolidated.safetensors").write_bytes(b"")

    lm = load_model(str(source))
    assert type(lm.model).__name__ == "Qwen3_5ForConditionalGeneration"
    hooked = hooked_logits(lm)
    save_model(lm, projection(lm), saved, CARD)
    stored = stored_tensors(saved)
    assert set(stored) == set(tensors)
    written = {
        key: value for file in saved.glob("*.safetensors") for key, value in load_file(file).items()
    }
    edited = {key for key in tensors if not torch.allclose(written[key], tensors[key], atol=1e-5)}
    last = ("o_proj.weight", "out_proj.weight", "down_proj.weight", "embed_tokens.weight")
    assert edited == {k for k in tensors if k.startswith("model.language") and k.endswith(last)}
    assert (saved / "preprocessor_config.json").read_text() == '{"patch_size": 4}'
    assert (saved / "generation_config.json").read_text() == generation
    card = (saved / "README.md").read_text()
    assert "copied unedited: mtp.fc.weight" in card
    assert "not carried: consolidated.safetensors" in card
    assert "not carried: the folders original/" in card
    assert left_behind(lm) == [line[2:] for line in card.splitlines() if "not carried" in line]
    assert relative_gap(probe_logits(load_model(str(saved))), hooked) < 1e-3


def test_what_a_model_will_not_have_is_said_before_it_is_saved(
    command: Command, tmp_path: Path
) -> None:
    source = save_tiny(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"")
    places = ("--out", tmp_path / "runs", "--save-model", tmp_path / "m")
    result = command("run", source, *SMALL, *places)
    assert result.code == 0, result.err
    assert "not carried: pytorch_model.bin" in result.err


def test_an_adapter_that_lacks_a_matrix_is_refused(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", tied=False)
    lm = load_model(str(base))
    save_adapter(lm, projection(lm), tmp_path / "a", replace(CARD, base=str(base)))
    load_model(str(tmp_path / "a"))
    file = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if "layers.2" in key)
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(InputError, match=f"lacks {re.escape(name)}"):
        load_model(str(tmp_path / "a"))


def test_an_adapter_of_a_mixture_holds_what_peft_loads_of_it(tmp_path: Path) -> None:
    """PEFT takes the dense layers' down_proj for an old name of the experts, and drops them."""
    base = tmp_path / "base"
    build("DeepSeek-V3").save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    lm = load_model(str(base))
    save_adapter(lm, projection(lm), tmp_path / "a", replace(CARD, base=str(base)))
    assert "PEFT takes for experts" in (tmp_path / "a" / "README.md").read_text()
    loaded = probe_logits(load_model(str(tmp_path / "a")))
    maps = carried_by_lora(lm, output_maps(lm.model, lm.structure))[0]
    with edited_weights(maps, projection(lm)):
        expected = probe_logits(lm)
    assert relative_gap(loaded, expected) < 1e-3


def test_what_weights_cannot_carry_is_refused(tmp_path: Path) -> None:
    lm = replace(language_model("Gemma2"), site="residual")
    for save in (save_model, save_adapter):
        with pytest.raises(InputError, match="no weight edit equals site"):
            save(lm, projection(lm), tmp_path / "x", CARD)
    assert not list(tmp_path.iterdir())


def test_an_adapter_cannot_edit_a_shared_head(tmp_path: Path, tiny_folder: Path) -> None:
    lm = load_model(str(tiny_folder), edit_head=True)
    with pytest.raises(InputError, match='tied_head = "paper"'):
        save_adapter(lm, projection(lm), tmp_path / "a", CARD)
    hooked = hooked_logits(lm)
    save_model(lm, projection(lm), tmp_path / "m", CARD)
    assert relative_gap(probe_logits(load_model(str(tmp_path / "m"))), hooked) < 1e-3


def test_a_path_that_is_taken_is_refused(tmp_path: Path) -> None:
    lm = language_model("Llama")
    with pytest.raises(InputError, match="exists already"):
        save_model(lm, projection(lm), tmp_path, CARD)


def test_a_run_saves_all_three_and_they_come_back_by_name(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    places = {form: tmp_path / form for form in ("model", "adapter", "directions.safetensors")}
    result = command(
        *("run", tiny_folder, *SMALL, "--out", tmp_path / "runs"),
        *("--save-model", places["model"], "--save-adapter", places["adapter"]),
        *("--save-directions", places["directions.safetensors"]),
    )
    assert result.code == 0, result.err
    assert result.out.count("saved: ") == 3
    run = tmp_path / "runs" / "tiny" / "default"
    directions = DirectionSet.load(places["directions.safetensors"])
    ranks = json.loads((run / "search.json").read_text())["ranks"]
    lm = load_model(str(tiny_folder))
    with lm.ablate(Projection(directions.vectors[ranks])):
        hooked = probe_logits(lm)
    assert relative_gap(probe_logits(load_model(str(places["model"]))), hooked) < 1e-3
    assert "attack success (ASR)" in (places["model"] / "README.md").read_text()
    with safe_open(places["directions.safetensors"], framework="pt") as file:
        facts = json.loads(file.metadata()["somatlas"])
    assert facts["ranks ablated"] == " ".join(map(str, ranks))
    assert facts["base model"] == str(tiny_folder)
    assert (facts["method"], facts["directions"]) == ("som", "SOM directions (arXiv 2511.08379)")
    assert "Intended use" in (tmp_path / "directions.md").read_text()
    again = command("run", tiny_folder, "--out", tmp_path / "runs", "--save-model", places["model"])
    assert again.code == 2
    assert "exists already" in again.err


def test_an_adapter_folder_is_a_model_and_one_of_another_base_is_refused(
    command: Command, tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base", tied=False)
    lm = load_model(str(base))
    card = replace(CARD, base=str(base))
    plain = Projection(torch.ones(1, lm.d_model))
    for block in lm.model.model.layers:  # a LoRA carries no bias
        block.self_attn.o_proj.bias.zero_()
    lm.model.save_pretrained(base)
    save_adapter(lm, plain, tmp_path / "adapter", card)
    with lm.ablate(plain):
        hooked = probe_logits(lm)
    assert relative_gap(probe_logits(load_model(str(tmp_path / "adapter"))), hooked) < 1e-3
    other = build("Qwen2")
    other.save_pretrained(base)
    message = command.fails("represent", tmp_path / "adapter", "--out", tmp_path)
    assert "made for another model" in message


def test_merging_an_adapter_asks_nobody_for_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    lm = load_model(str(save_tiny(tmp_path / "base", tied=False)))
    card = replace(CARD, base="x")
    save_adapter(lm, Projection(torch.ones(1, lm.d_model)), tmp_path / "adapter", card)
    config = tmp_path / "adapter" / "adapter_config.json"
    facts = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(facts | {"base_model_name_or_path": "of-no-folder"}))
    asked: list[object] = []
    monkeypatch.setattr(
        "peft.utils.save_and_load.check_file_exists_on_hf_hub",
        lambda *args, **options: asked.append(args),
    )
    merge_adapter(lm.model, tmp_path / "adapter")
    assert not asked
    assert not recwarn.list


def test_directions_of_the_papers_code_are_read(tmp_path: Path) -> None:
    vectors = torch.randn(4, 8)
    for content in (vectors, list(vectors), vectors[:, None]):
        torch.save(content, tmp_path / "directions.pt")
        assert torch.equal(DirectionSet.load(tmp_path / "directions.pt").vectors, vectors)
    torch.save(vectors[0], tmp_path / "one.pt")  # a single vector, as RDO's code saves it
    assert torch.equal(DirectionSet.load(tmp_path / "one.pt").vectors, vectors[:1])


@pytest.mark.parametrize(
    "content", [b"not a pickle", {"a": 1}, [torch.ones(3), torch.ones(4)], Path("x")]
)
def test_other_pickles_are_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "directions.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"directions\.pt"):
        DirectionSet.load(path)


def test_an_adapter_names_a_base_that_can_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conftest import save_tiny
    from somatlas.exports.base import base_model
    from somatlas.models.load import load_tokenizer

    cached = tmp_path / "models--org--net-1" / "snapshots" / "abc123"
    save_tiny(cached)
    found = base_model(str(cached), "")
    assert (found.name, found.revision) == ("org/net-1", "abc123")
    assert base_model("org/net-1", "def").revision == "def"
    folder = save_tiny(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    found = base_model("base", "")
    assert found.name == str(folder)
    assert digest in found.text

    lm = load_model("base")
    save_adapter(lm, projection(lm), tmp_path / "a", replace(CARD, base="base", revision=""))
    assert digest in (tmp_path / "a" / "README.md").read_text()
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder)
    hooked = hooked_logits(lm)
    monkeypatch.chdir(tmp_path / "a")  # from anywhere on this machine
    assert relative_gap(probe_logits(load_model(str(tmp_path / "a"))), hooked) < 1e-3
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"names .*base as its base, which is not here: write"):
        load_model(str(tmp_path / "a"))
    for path in (tmp_path / "a").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(InputError, match="which is not here"):
        load_tokenizer(str(tmp_path / "a"))


def test_an_export_says_what_made_its_directions(whole: Path) -> None:
    """What the file of directions says counts, not the run's settings, which may name a method."""
    from somatlas.directions.direction_set import Origin
    from somatlas.runs.folder import run_at
    from somatlas.runs.run_exports import save_exports

    run = run_at(whole)
    vectors = DirectionSet.load(run.path("directions.safetensors")).vectors
    for method, said in (
        ("kmeans", "k-means centroids"),
        ("elsewhere", "elsewhere"),
        ("", "not say"),
    ):
        given = whole / f"given{method}.safetensors"
        DirectionSet.of_vectors(vectors, Origin(method)).save(given)
        run.config = run.config.model_copy(update={"directions": str(given), "ids": (0, 1)})
        saved = whole / f"saved{method}.safetensors"
        save_exports(run, {"save_directions": saved})
        card = saved.with_suffix(".md").read_text()
        assert said in card
        assert "SOM" not in card.split("## Measured")[0]
        assert DirectionSet.load(saved).origin.method == method
