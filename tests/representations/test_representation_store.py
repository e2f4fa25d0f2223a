"""Representations on disk: whole or not at all, and never all in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from somatlas import InputError
from somatlas.representations import store as module
from somatlas.representations.store import RepresentationStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RepresentationStore:
    monkeypatch.setattr(module, "_SHARD_PROMPTS", 4)
    counts = {"positive": 10, "negative": 3}
    return RepresentationStore.create(tmp_path / "r", counts, (1, 3, 4), 5)  # type: ignore[arg-type]


def vectors(side: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(side))
    return torch.randn({"positive": 10, "negative": 3}[side], 3, 5, generator=generator)


def fill(store: RepresentationStore) -> None:
    for shard in store.missing():
        store.write(shard, vectors(shard.side)[shard.start : shard.stop])


def test_what_is_written_is_read(store: RepresentationStore) -> None:
    assert [(s.side, s.start, s.stop) for s in store.shards()] == [
        ("positive", 0, 4),
        ("positive", 4, 8),
        ("positive", 8, 10),
        ("negative", 0, 3),
    ]
    fill(store)
    opened = RepresentationStore.open(store.folder)
    for side in ("positive", "negative"):
        assert torch.equal(opened.at(side, 3), vectors(side)[:, 1])
        torch.testing.assert_close(opened.means(side), vectors(side).double().mean(0))
        torch.testing.assert_close(opened.mean_at(side, 4), vectors(side)[:, 2].double().mean(0))


def test_a_missing_shard_is_named(store: RepresentationStore) -> None:
    fill(store)
    store.shards()[1].path.unlink()
    with pytest.raises(InputError, match=r"positive-00001.safetensors does not exist"):
        RepresentationStore.open(store.folder)
    assert store.missing() == [store.shards()[1]]


def test_a_layer_that_was_not_kept(store: RepresentationStore) -> None:
    fill(store)
    with pytest.raises(InputError, match="layer 2 was not kept: the run has layers 1, 3, 4"):
        store.at("positive", 2)


def test_a_truncated_shard(store: RepresentationStore) -> None:
    fill(store)
    path = store.shards()[0].path
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        store.at("positive", 1)


def test_values_that_are_not_finite(store: RepresentationStore) -> None:
    fill(store)
    shard = store.shards()[3]
    bad = vectors("negative")
    bad[1, 2, 0] = torch.nan
    store.write(shard, bad)
    with pytest.raises(InputError, match="at layer 4 hold NaN"):
        store.means("negative")


def test_shards_are_small_whatever_the_model(tmp_path: Path) -> None:
    counts = {"positive": 10_000, "negative": 10_000}
    large = RepresentationStore(tmp_path, counts, tuple(range(80)), 8192)  # type: ignore[arg-type]
    rows = {shard.stop - shard.start for shard in large.shards()}
    assert max(rows) * 80 * 8192 * 4 <= module._SHARD_BYTES
