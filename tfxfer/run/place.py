"""Where a run computes: its devices, and which of several workers it is.

The modules that need TensorFlow are imported only where a run starts, because a run can be opened
and read without it.
"""

import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfxfer.errors import DistributeError

HERE = ("device", "strategy", "replicas")  # options of this machine; a resumed run may change them
CLUSTERS = ("TF_CONFIG", "SLURM_STEP_NUM_TASKS")  # what `distribute.devices.cluster` looks at
PACKAGES = ("tfxfer", "tensorflow", "keras", "tensorflow-hub", "numpy", "scikit-learn")


def load_module(name: str) -> Any:
    """Import a module that needs TensorFlow; a run can be opened and read without it."""
    return importlib.import_module(f"tfxfer.{name}")


def place_of(strategy: str) -> tuple[int, int]:
    """Return (number of this worker, number of workers)."""
    if strategy in ("auto", "multiworker") and any(name in os.environ for name in CLUSTERS):
        return load_module("distribute.devices").find_place()
    return 0, 1


def make_strategy(settings: Mapping[str, dict[str, Any]]) -> Any:
    """Make the `tf.distribute` strategy of --device, --strategy and --replicas.

    Raises:
        DistributeError: there is no such device, or it does not fit other options.
    """
    device, name, replicas = (settings[option]["value"] for option in HERE)
    devices = load_module("distribute.devices")
    if settings["precision"]["value"] == "mixed":
        devices.require_mixed(devices.choose(name, device, replicas).device)
    strategy = devices.strategy(name, device=device, replicas=replicas)
    batch, count = settings["global_batch"]["value"], strategy.num_replicas_in_sync
    if batch is not None and batch < count:
        raise DistributeError(load_module("distribute.workers").explain_unshareable(batch, count))
    return strategy


def agree(strategy: Any, settings: Mapping[str, dict[str, Any]], *, resumed: bool) -> None:
    """Check that all workers run the same code with the same options.

    Args:
        resumed: whether the run is resumed. It then keeps its options, and only trust is compared.

    Raises:
        DistributeError: they don't.
    """
    workers = load_module("distribute.workers")
    own = {
        name: setting["value"]
        for name, setting in settings.items()
        if setting["origin"] != "derived" and name not in {*HERE, "cache"}
    }
    recipe = json.dumps([settings["recipe"]["value"], sorted(own)])
    workers.agree(strategy, code=code(), recipe=recipe)
    if resumed:
        own = {"trust": settings["trust"]["value"]}
    options = {f"--{name.replace('_', '-')}": json.dumps(value) for name, value in own.items()}
    workers.agree(strategy, **options)


def agree_on_facts(strategy: Any, facts: Mapping[str, Any]) -> None:
    """Check that all workers have the same values, such as the fingerprint of the data."""
    load_module("distribute.workers").agree(strategy, **facts)


def broadcast(strategy: Any, make: Callable[[], Any]) -> Any:
    """Return to every worker what `make` returns to the main one."""
    return load_module("distribute.workers").broadcast_from_chief(strategy, make)


def wait_for_all(strategy: Any) -> None:
    """Wait for the other workers."""
    load_module("distribute.workers").barrier(strategy)


def code() -> str:
    """Return a hash of tfxfer's own files and of the versions of the packages that it uses."""
    digest = hashlib.sha256(
        json.dumps(
            {name: version for name, version in versions().items() if name != "system"},
            sort_keys=True,
        ).encode()
    )
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    software = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            software[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return software
