"""Reaching a Ray cluster, and whether one of its nodes can train at all: Ray itself would wait in silence.

Ray is an extra (``pip install 'lsviz[ray]'``): it is imported where a cluster is reached, nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lsviz.errors import UserError
from lsviz.jobs.launching import RAY_ADDRESS
from lsviz.jobs.slots import cores, gpus
from lsviz.runs.config import RunConfig

MODE: Final = "RAY_AUTH_MODE"
TOKEN: Final = "RAY_AUTH_TOKEN"
REACH_SECONDS: Final = 3.0

Resources = Mapping[str, float]
"""What a node has: CPU, GPU and more, each a number."""


class RayError(UserError):
    """Runs can't be trained on that Ray cluster; the message says why."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one run takes of a node.

    Attributes:
        gpus: Share of one GPU, 0 to 1.
    """

    gpus: float = 0.0
    cpus: int = 1

    @classmethod
    def of(cls, config: RunConfig, share: float) -> Demand:
        """Return what a config takes: that share of a GPU where it asks for CUDA by name, else none."""
        return cls(share if config.device == "cuda" else 0.0)

    def fitting(self, node: Resources) -> int:
        """Return how many such runs a node can train at once; one GPU is never shared out over two."""
        most = int(node.get("CPU", 0.0)) // self.cpus
        if self.gpus:
            most = min(most, int(node.get("GPU", 0.0)) * int(1 / self.gpus + 1e-9))
        return most

    def __str__(self) -> str:
        return f"{self.cpus} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")


def load_ray() -> Any:
    """Return the module.

    Raises:
        RayError: It is not installed.
    """
    try:
        import ray
    except ImportError:
        raise RayError("the engine ray needs Ray, which is not installed: pip install 'lsviz[ray]'") from None
    return ray


def read_share(share: float) -> float:
    """Return a share of a GPU as it is.

    Raises:
        RayError: It is none.
    """
    if not 0 < share <= 1:
        raise RayError(f"gpus: {share:g} is no share of a GPU; give 1, or less where runs share one, as 0.25")
    return share


@contextlib.contextmanager
def connected(address: str | None, demands: Sequence[Demand]) -> Iterator[Any]:
    """Yield Ray, connected to a cluster that can meet all demands, for as long as the context lasts.

    Args:
        address: ``host:port``, or ``auto`` for the cluster that this machine is part of. None: what
            RAY_ADDRESS says, else a cluster of this machine alone, which lives as long as the context and
            asks for a token of its own.
        demands: What runs take.

    Raises:
        RayError: There is no Ray or no cluster, or no node of it can meet a demand.
    """
    address = address or os.environ.get(RAY_ADDRESS) or "local"
    settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "error"}
    if address == "local" and "ray" not in sys.modules:
        _keep_to_itself()
    ray = load_ray()
    if address == "local":
        here = {"CPU": float(cores()), "GPU": float(gpus())}
        refuse_unmet([here], demands, "this machine")  # before the seconds that starting takes
        settings |= {"num_cpus": cores(), "num_gpus": gpus(), "include_dashboard": False}
    else:
        _refuse_unreachable(address)
    if ray.is_initialized():
        refuse_unmet(alive(ray), demands)
        yield ray
        return
    try:
        ray.init(**settings)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise RayError(f"can't reach a Ray cluster at {address!r}: {told[0]}{_hint(address)}") from None
    try:
        refuse_unmet(alive(ray), demands)
        yield ray
    finally:
        ray.shutdown()


def _hint(address: str) -> str:
    """Return what to look at where something answered at an address, and Ray was none the wiser."""
    if address == "local":
        return ""
    return (
        "; something answers there: has this machine the cluster's token (~/.ray/auth_token or "
        "RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token) and its version of Ray?"
    )


def alive(ray: Any) -> list[Resources]:
    """Return what each living node of the cluster has in all, taken or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room(nodes: Sequence[Resources], demands: Sequence[Demand]) -> int:
    """Return how many runs can train at once, where all take what the most modest one takes."""
    return max(sum(demand.fitting(node) for node in nodes) for demand in demands)


def refuse_unmet(
    nodes: Sequence[Resources], demands: Sequence[Demand], where: str = "the Ray cluster"
) -> None:
    """Refuse what no node can meet, however long one waits.

    Raises:
        RayError: There is such a demand.
    """
    for demand in demands:
        if any(demand.fitting(node) for node in nodes):
            continue
        kinds = {f"{node.get('CPU', 0.0):g} CPU, {node.get('GPU', 0.0):g} GPU" for node in nodes}
        found = "; ".join(sorted(kinds)) or "no node that lives"
        advice = "add a node, or train with --device cpu" if demand.gpus else "add a node"
        raise RayError(f"no node of {where} has the {demand} that a run takes (it has {found}): {advice}")


def asks_for_token() -> bool:
    """Return whether this process, connected, shows the cluster a token."""
    return os.environ.get(MODE, "").lower() == "token"


def _keep_to_itself() -> None:
    """Have the cluster that is started here ask for a token that nobody else knows, and report to nobody.

    Ray reads that as it is imported. Its ports are open on all of the machine's addresses, and whoever
    reaches one can run any code.
    """
    os.environ[MODE] = "token"
    os.environ.setdefault(TOKEN, secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _refuse_unreachable(address: str) -> None:
    """Refuse an address where nobody answers, which Ray would try for a minute."""
    if address == "auto":
        return
    if "://" in address:
        raise RayError(
            f"address: {address!r} is none of a node: give host:port on a machine of the cluster, or auto"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise RayError(f"address: {address!r} is neither host:port, as 10.0.0.1:6379, nor auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except OSError as error:
        raise RayError(f"no Ray cluster answers at {address!r} ({error.strerror or error})") from None
