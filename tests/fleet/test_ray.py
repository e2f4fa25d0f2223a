"""Workers on a real Ray cluster: lost, hanging, short of memory, on nodes that come and go."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_work import blocks, hold, name_of, troubled
from somatlas import InputError
from somatlas.fleet import deal
from somatlas.fleet.ray_cluster import LOCAL, joined
from somatlas.fleet.ray_fleet import RayFleet
from somatlas.fleet.ray_worker import Holding

pytestmark = pytest.mark.slow
MB = 2**20


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Workers find the tests' own modules, as this process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def ray(importable: None) -> Iterator[Any]:
    """A cluster of this process with little memory for objects."""
    found = pytest.importorskip("ray")
    found.init(
        address=LOCAL,
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * MB,
    )
    yield found
    found.shutdown()


def fleet_of(workers: int, job: str = "model", address: str = LOCAL, **how: float) -> RayFleet[str]:
    cluster = joined(address, workers, 0.0)
    return RayFleet(cluster, Holding(hold, name_of), job, how.get("timeout_s", 60.0))


@pytest.fixture
def fleet(ray: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayFleet[str]]:
    monkeypatch.setattr("somatlas.fleet.ray_fleet.leave", lambda: None)
    made = fleet_of(2, timeout_s=15.0)
    yield made
    made.close()


def test_what_is_killed_hangs_or_is_too_large_is_done_again_and_said(
    fleet: RayFleet[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = ["a", "kill 1", "b", "large", "note", "hang 1", "note", "kill 2", "large", "c"]
    steps: list[int] = []
    work = fleet.prepared(troubled, tmp_path)
    found = list(work.each(deal(items, 2), steps.append))
    assert found == deal([f"{item} by model" for item in items], 2)
    assert sum(steps) == len(items)
    said = capsys.readouterr().err
    assert said.count("is lost") == 2
    assert said.count("has not finished a piece in 15 s (--piece-timeout)") == 1
    assert said.count("ran out of memory: the piece is halved") == 2
    assert said.count("the reply is short") == 1  # though several workers say so
    assert len(fleet.places) <= 2


def test_a_fleet_goes_on_to_another_job_with_what_its_workers_hold(
    fleet: RayFleet[str], tmp_path: Path
) -> None:
    work = fleet.prepared(troubled, tmp_path)
    assert work.one("a") == "a by model"
    fleet.begin("other")
    first = next(fleet.prepared(troubled, tmp_path).each([["a"], ["b"]]))
    assert first in (["a by other after model"], ["a by other"])  # a worker that was not ready
    assert fleet.prepared(troubled, tmp_path).one("c").startswith("c by other")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("wrong", "the third layer is missing"),
        ("huge", "memory does not suffice for a single item"),
        ("import", "lacks the package 'no_such_package'.*--runtime-env-json"),
    ],
)
def test_what_no_other_worker_would_mend_is_said(
    fleet: RayFleet[str], tmp_path: Path, item: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fleet.prepared(troubled, tmp_path).one(item)


def test_workers_that_hold_different_things_do_not_work_together(ray: Any, tmp_path: Path) -> None:
    made = fleet_of(2, "another on each")
    with pytest.raises(InputError, match="other weights than the one on"):
        list(made.prepared(troubled, tmp_path).each([["slow"]] * 40))
    for hand in list(made._hands):
        made._end(hand)


def test_more_than_the_object_store_holds_comes_through(fleet: RayFleet[str]) -> None:
    """480 MB in a store of 100: what waits is written to disk, what was used goes."""
    total = 0
    for [block] in fleet.prepared(blocks, None).each([[i] for i in range(30)]):
        total += int(block[-1])
    assert total == sum(range(30))


def test_nodes_come_and_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three nodes; one is removed in the middle of the work, and a fourth comes instead."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    head = {"num_cpus": 0, "include_dashboard": False}
    nodes = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    others = [nodes.add_node(num_cpus=1) for _ in range(2)]
    try:
        made = fleet_of(2, address=nodes.address)
        driver = sys.modules["ray"].get_runtime_context().get_node_id()
        work = made.prepared(troubled, tmp_path).each([["slow"]] * 60)
        found = [next(work)]
        while len(made.places) < 2:
            found.append(next(work))
        gone = next(node for node in others if node.node_id != driver)
        nodes.remove_node(gone, allow_graceful=False)
        nodes.add_node(num_cpus=1)
        start = time.monotonic()
        found += work
        assert found == [["slow by model"]] * 60
        assert time.monotonic() - start < 120
        assert "is lost" in capsys.readouterr().err
        made.close()
    finally:
        sys.modules["ray"].shutdown()
        nodes.shutdown()
