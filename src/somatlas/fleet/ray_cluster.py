"""A Ray cluster to work on: one that is there, or one of this machine's processes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somatlas.errors import InputError

LOCAL = "local"  # the address of a cluster that is started here and ends with this process
_REACH_S = 5.0  # seconds in which a cluster's address must take a connection, and answer
# A head speaks gRPC, thus HTTP/2: it answers the preface (RFC 9113, 3.4) with a frame of settings.
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_SETTINGS = 4
_TOKEN = Path.home() / ".ray" / "auth_token"  # of clusters that ask for one
_TRIES = "5"  # of Ray's own to reach a head, a second each


@dataclass(frozen=True)
class Cluster:
    """What there is of a cluster that this process has joined.

    nodes : machines that are alive. workers : how many are asked for. gpus : of each worker, which
    may be a share of one.
    """

    address: str
    nodes: int
    workers: int
    gpus: float


def joined(address: str, workers: int | None, gpus_per_worker: float | None) -> Cluster:
    """Join the cluster at an address, or start one for `local`.

    workers : as many as its GPUs have room for if not given, or one a node where it has none.
    gpus_per_worker : 1 where there are GPUs if not given.

    Raises InputError where Ray is not installed, the cluster cannot be reached, has other versions
    of Ray or Python, or fewer GPUs than are asked for.
    """
    if address != LOCAL:  # read when Ray is imported
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", _TRIES)
        if _TOKEN.exists() or "RAY_AUTH_TOKEN" in os.environ:
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` does by itself
    ray = installed()
    if not ray.is_initialized():
        _check_address(address)
        with _quiet():
            _join(ray, address, workers)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    have = [float(node["Resources"].get("GPU", 0)) for node in nodes]
    gpus = gpus_per_worker if gpus_per_worker is not None else float(max(have) > 0)
    room = sum(int(own / gpus) for own in have) if gpus else len(nodes)
    wanted = max(1, room if workers is None else workers)
    if gpus and wanted > room:
        raise InputError(
            f"the Ray cluster {address} has {sum(have):g} GPUs on {len(nodes)} nodes, room for "
            f"{room} workers with {gpus:g} each, and {wanted} are asked for: lower --workers or "
            "--gpus-per-worker"
        )
    return Cluster(address, len(nodes), wanted, gpus)


def leave() -> None:
    """Leave the cluster; one that was started here ends."""
    ray = installed()
    if ray.is_initialized():
        ray.shutdown()


def installed() -> Any:
    """The ray module; raises InputError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError(
            "several workers need Ray, which is not installed: pip install 'somatlas[ray]'"
        ) from None
    return ray


def _join(ray: Any, address: str, workers: int | None) -> None:
    how: dict[str, Any] = {"address": address}
    if address == LOCAL:
        how |= {"num_cpus": max(1, workers or 1), "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if "ersion mismatch" in reason:
            raise InputError(
                f"the Ray cluster {address} has other versions of Ray or Python than this machine "
                f"({reason}): install the same on all machines"
            ) from None
        raise _unreachable(address, reason) from None
    except (ray.exceptions.RayError, ConnectionError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        reason = reason or "it does not understand this version of Ray: is its own another?"
        raise _unreachable(address, reason) from None


def _check_address(address: str) -> None:
    """Raise InputError where no head listens at HOST:PORT; Ray itself would try for minutes."""
    if address in (LOCAL, "auto"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        raise InputError(
            f"--ray cannot be {address!r}: give local, auto, or HOST:PORT of the cluster's head, "
            "as `ray start --head` prints it"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S) as there:
            there.sendall(_HTTP2_HELLO)
            said = there.recv(9)
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from None
    if len(said) < 4 or said[3] != _HTTP2_SETTINGS:
        raise _unreachable(address, "what listens there is no Ray head")


def _unreachable(address: str, reason: str) -> InputError:
    return InputError(
        f"no Ray cluster can be joined at {address} ({reason[:300]}): start one with `ray start "
        "--head`, have this machine join it with `ray start --address=HOST:PORT` and the head's "
        "~/.ray/auth_token where it has one, or use --ray local"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's own lines are left out, and its handler of SIGTERM too.

    What it prints of a lost worker, a paragraph on stdout, no setting of its own turns off.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    worker = sys.modules.get("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        vars(worker)["print_to_stdstream"] = lambda *_args, **_how: None
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
