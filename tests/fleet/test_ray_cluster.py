"""What is said of clusters that cannot be joined or have too little, without Ray."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from somatlas import InputError
from somatlas.fleet import ray_cluster
from somatlas.fleet.ray_cluster import LOCAL, Cluster, joined


class FakeRay:
    """What `joined` uses of Ray: nodes with so many GPUs, which it takes `init` to join."""

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, *gpus: float, init: Callable[[], None] = lambda: None) -> None:
        self.gpus, self._init, self.told = gpus, init, dict[str, Any]()

    def is_initialized(self) -> bool:
        return False

    def init(self, **how: Any) -> None:
        self.told = how
        self._init()

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": n}} for n in self.gpus]


@pytest.fixture
def with_ray(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRay]:
    for name in ("RAY_NUM_REDIS_GET_RETRIES", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "5")  # `joined` sets what is not, for Ray to read

    def given(*gpus: float, **how: Any) -> FakeRay:
        fake = FakeRay(*gpus, **how)
        monkeypatch.setattr(ray_cluster, "installed", lambda: fake)
        return fake

    return given


@pytest.mark.parametrize(
    ("gpus", "workers", "each", "expected"),
    [
        ((0,), None, None, (1, 0.0)),
        ((0, 0, 0), None, None, (3, 0.0)),  # one a node
        ((0,), 4, None, (4, 0.0)),
        ((2, 4), None, None, (6, 1.0)),
        ((2, 4), 3, None, (3, 1.0)),
        ((2, 4), None, 0.5, (12, 0.5)),
        ((2, 5), None, 2.0, (3, 2.0)),  # none is parted between nodes
        ((2, 4), 5, 0.0, (5, 0.0)),
    ],
)
def test_there_are_as_many_workers_as_there_is_room_for(
    with_ray: Callable[..., FakeRay],
    gpus: Sequence[float],
    workers: int | None,
    each: float | None,
    expected: tuple[int, float],
) -> None:
    fake = with_ray(*gpus)
    assert joined(LOCAL, workers, each) == Cluster(LOCAL, len(gpus), *expected)
    assert (fake.told["num_cpus"], fake.told["include_dashboard"]) == (workers or 1, False)


@pytest.mark.parametrize(
    ("gpus", "workers", "each", "room"), [((2, 5), 4, 2.0, 3), ((1,), 2, None, 1), ((4,), 1, 8, 0)]
)
def test_fewer_gpus_than_are_asked_for(
    with_ray: Callable[..., FakeRay], gpus: Sequence[float], workers: int, each: float, room: int
) -> None:
    with_ray(*gpus)
    with pytest.raises(InputError, match=f"room for {room} workers .* lower --workers or"):
        joined(LOCAL, workers, each)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Version mismatch: The cluster\n has Ray 2.44"), "has other versions of Ray"),
        (RuntimeError("it is broken"), r"no Ray cluster can be joined at auto \(it is broken\)"),
        (ConnectionError("nobody there"), "no Ray cluster can be joined at auto"),
        (FakeRay.exceptions.RayError("wrong token"), "no Ray cluster can be joined at auto"),
    ],
)
def test_clusters_that_do_not_let_one_in(
    with_ray: Callable[..., FakeRay], error: Exception, message: str
) -> None:
    def refuse() -> None:
        raise error

    with_ray(0, init=refuse)
    with pytest.raises(InputError, match=message):
        joined("auto", None, None)


@pytest.mark.parametrize("address", ["head", "http://host:1", "host:", "host:x"])
def test_what_is_no_address(with_ray: Callable[..., FakeRay], address: str) -> None:
    with_ray(0)
    with pytest.raises(InputError, match="give local, auto, or HOST:PORT"):
        joined(address, None, None)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_what_listens_at_an_address_and_is_no_head(
    with_ray: Callable[..., FakeRay], answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself would wait for it for minutes. None : it says nothing at all."""
    monkeypatch.setattr(ray_cluster, "_REACH_S", 0.2)
    fake = with_ray(0)
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            there, _ = server.accept()
            there.recv(100)
            if answer is None:
                time.sleep(0.4)
            else:
                there.sendall(answer)
            there.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(InputError, match=f"no Ray cluster can be joined at {address}"):
            joined(address, None, None)
        thread.join()
    with pytest.raises(InputError, match="refused"):  # now that nobody listens
        joined(address, None, None)
    assert not fake.told
    assert time.monotonic() - start < 15


def test_without_ray_one_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"need Ray.*pip install 'somatlas\[ray\]'"):
        joined(LOCAL, 2, None)
