"""Run by `make wheel` in a clean environment: the installed package finds what it ships."""

from importlib.resources import files

from somatlas.models.names import ADAPTERS
from somatlas.prompts import bundled_prompts, general_prompts

assert "site-packages" in str(files("somatlas")), files("somatlas")
assert len(bundled_prompts().positive["train"]) == 384
assert len(general_prompts()) == 420
for name in ADAPTERS:
    folder = files("somatlas") / "data" / "adapters" / name
    for file in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        assert (folder / file).is_file(), f"{name}/{file}"
    assert len((folder / "adapter_model.safetensors").read_bytes()) <= 6_000_000
