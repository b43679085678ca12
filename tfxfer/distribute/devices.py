"""Turn options into a `tf.distribute` strategy: which devices there are, and what fits them.

No device is looked for before a function is called. Call `strategy` before anything else of
TensorFlow, since devices are set up once for each process. With one device, the strategy is
TensorFlow's default one, under which every program behaves as without a strategy.
"""

import ctypes
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from tfxfer.distribute.loopback import is_private
from tfxfer.errors import DistributeError
from tfxfer.process.cores import cores

LOG = logging.getLogger(__name__)
Device = Literal["auto", "cpu", "gpu", "tpu"]
Name = Literal["auto", "one", "mirrored", "multiworker", "tpu"]
WAIT = 300  # seconds in which all workers must connect
BFLOAT16 = (8, 0)  # lowest compute capability of a GPU with units for bfloat16
CHIPS = ("/dev/accel0", "/dev/vfio/0")  # devices of a TPU VM: v2 to v4, v5 and later


@dataclass(frozen=True)
class Choice:
    """The device and the strategy that would be used, and why, in half a sentence."""

    device: Literal["cpu", "gpu", "tpu"]
    name: Literal["one", "mirrored", "multiworker", "tpu"]
    replicas: int | None
    why: str

    def __str__(self) -> str:
        if self.name == "one":
            return f"{self.device}, {self.why}"
        count = f" of {self.replicas}" if self.name == "mirrored" else ""
        return f"{self.device}, {self.name}{count}: {self.why}"


def choose(name: Name = "auto", device: Device = "auto", replicas: int | None = None) -> Choice:
    """Choose the device and strategy that fit the options and this machine; sets nothing up.

    Raises:
        DistributeError: what was asked for isn't here, or the options contradict each other.
    """
    if device == "tpu" or name == "tpu" or (device == name == "auto" and tpu_name()):
        if {device, name} - {"auto", "tpu"}:
            raise DistributeError(
                f"--device {device} and --strategy {name} contradict each other: a TPU needs "
                "--strategy tpu."
            )
        if not tpu_name():
            raise DistributeError(
                f"there is no TPU here: TPU_NAME is not set, and there is no {' or '.join(CHIPS)}. "
                "A Cloud TPU VM needs a TensorFlow that is built for it; for a remote TPU set "
                "TPU_NAME. Otherwise leave out --device tpu and --strategy tpu."
            )
        return Choice(device="tpu", name="tpu", replicas=None, why=f"TPU {tpu_name()}")
    gpus = len(tf.config.list_physical_devices("GPU"))
    if device == "gpu" and not gpus:
        raise DistributeError(
            f"there is no GPU that TensorFlow can use: {why_no_gpu()}. Or use --device cpu."
        )
    kind: Literal["cpu", "gpu"] = "gpu" if gpus and device != "cpu" else "cpu"
    about = (
        f"{gpus} GPU{'s' if gpus > 1 else ''}"
        if kind == "gpu"
        else "--device cpu"
        if device == "cpu"
        else f"no GPU ({why_no_gpu()})"
    )
    index, count = find_place()
    if name == "multiworker" or (name == "auto" and count > 1):
        if count < 2:
            raise DistributeError(
                "--strategy multiworker needs several workers. Start them with tfxfer launch "
                "--workers 2 -- run ..., or set TF_CONFIG."
            )
        if replicas is not None:
            raise DistributeError(
                "--replicas is for --strategy mirrored. With several workers, each device is one "
                "replica; leave --replicas out."
            )
        return Choice(
            device=kind,
            name="multiworker",
            replicas=None,
            why=f"worker {index} of {count}, {about}",
        )
    if name == "mirrored" or (
        name == "auto" and (replicas or gpus if kind == "gpu" else replicas or 1) > 1
    ):
        there = gpus if kind == "gpu" else cores()
        wanted = replicas or there
        if kind == "gpu" and wanted > gpus:
            raise DistributeError(f"--replicas {wanted} is more than the {gpus} GPUs there are.")
        return Choice(
            device=kind,
            name="mirrored",
            replicas=wanted,
            why=about if kind == "gpu" else f"{about}, {wanted} logical CPUs on {there} cores",
        )
    if replicas not in (None, 1):
        raise DistributeError(
            f"--replicas {replicas} and --strategy one contradict each other: "
            "use --strategy mirrored."
        )
    return Choice(device=kind, name="one", replicas=1, why=about)


def strategy(
    name: Name = "auto",
    *,
    device: Device = "auto",
    replicas: int | None = None,
    wait: float = WAIT,
) -> tf.distribute.Strategy:
    """Set up devices, and return the strategy that fits the options and this machine.

    Args:
        name: "one" for one device; "mirrored" for all GPUs, or for logical CPUs where there is no
            GPU; "multiworker" for the workers that `cluster` finds; "tpu".
        device: the kind of device that computes; "cpu" hides the GPUs.
        replicas: for "mirrored", the number of GPUs or logical CPUs; by default all GPUs, or one
            logical CPU for each core.
        wait: seconds after which the process ends if not all workers have connected.

    Raises:
        DistributeError: what was asked for isn't here, a port is in use, or the devices were set up
            differently before.

    Example:
        with tfxfer.distribute.strategy("mirrored").scope():
            model = keras.Sequential([...])
    """
    choice = choose(name, device, replicas)
    LOG.info("device: %s", choice)
    if choice.name == "multiworker" and not is_private():
        LOG.warning(open_port())
    if choice.name == "tpu":
        return tpu_strategy()
    gpus = tf.config.list_physical_devices("GPU")
    try:
        if choice.device == "cpu" and gpus:
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus if choice.device == "gpu" else []:
            # Without this, TensorFlow takes all of the memory, and no other process gets any.
            tf.config.experimental.set_memory_growth(gpu, True)
        if choice.name == "mirrored":
            return tf.distribute.MirroredStrategy(logical_devices(choice))
        return multiworker(wait) if choice.name == "multiworker" else tf.distribute.get_strategy()
    except RuntimeError as error:
        raise DistributeError(
            f"the devices are in use already: {error}. Call tfxfer.distribute.strategy before "
            "anything else of TensorFlow."
        ) from error


def require_mixed(device: str) -> None:
    """Refuse mixed precision where it is slower than float32.

    Raises:
        DistributeError: the device is a CPU, or a GPU without units for bfloat16.
    """
    if device == "cpu":
        raise DistributeError(
            "--precision mixed needs a GPU or a TPU: on a CPU a step in bfloat16 takes longer than "
            "one in float32 (measured by benchmarks/precision.py). Leave it out."
        )
    for gpu in tf.config.list_physical_devices("GPU") if device == "gpu" else []:
        details = tf.config.experimental.get_device_details(gpu)
        if (capability := details.get("compute_capability", BFLOAT16)) < BFLOAT16:
            raise DistributeError(
                "--precision mixed needs a GPU with units for bfloat16, of compute capability "
                f"{'.'.join(map(str, BFLOAT16))} or more; {details.get('device_name', gpu.name)} "
                f"has {'.'.join(map(str, capability))}. Leave it out."
            )


def logical_devices(choice: Choice) -> list[str]:
    """Return the devices of a mirrored strategy; the CPU is divided into logical CPUs."""
    count = choice.replicas or 1
    if choice.device == "cpu":
        cpu = tf.config.list_physical_devices("CPU")[0]
        if len(tf.config.get_logical_device_configuration(cpu) or [None]) < count:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
    return [device.name for device in tf.config.list_logical_devices(choice.device.upper())[:count]]


def multiworker(wait: float) -> tf.distribute.Strategy:
    """Connect to the other workers, and return the strategy.

    TensorFlow waits for the others for ever, and no other Python code runs meanwhile. So a second
    process ends this one if they have not connected after `wait` seconds.
    """
    resolver = cluster()
    assert resolver is not None  # `choose` has counted its workers
    addresses = addresses_of(resolver)
    words = [
        sys.executable,
        "-m",
        "tfxfer.distribute.rendezvous",
        str(os.getpid()),
        str(wait),
        *addresses,
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as watch:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
        except tf.errors.OpError as error:
            index, _ = find_place()
            raise DistributeError(
                f"worker {index} can't listen on {addresses[index]}: {error.message or error}. Is "
                "the port in use? Choose another one."
            ) from error
        finally:
            watch.communicate(b"all there\n")


def tpu_strategy() -> tf.distribute.Strategy:
    """Return the strategy for a TPU of Google Cloud: this VM's own, or the one of TPU_NAME."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu_name())
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, RuntimeError, ValueError, OSError) as error:
        raise DistributeError(
            f"TPU {tpu_name()} can't be used: {error}. Is this TensorFlow built for TPUs, and the "
            "TPU's name right?"
        ) from error


def is_loss(error: BaseException) -> bool:
    """Whether TensorFlow says that another worker is gone."""
    kinds = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    )
    return isinstance(error, kinds) or (
        isinstance(error, tf.errors.OpError) and "Collective ops is aborted" in str(error)
    )


# --- what there is ---


def tpu_name() -> str:
    """Return the name by which TensorFlow finds the TPU; "" where there is none."""
    return os.environ.get("TPU_NAME", "") or (
        "local" if any(os.path.exists(chip) for chip in CHIPS) else ""
    )


def why_no_gpu() -> str:
    """Say why TensorFlow sees no GPU, and what to do."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}, which hides all"
    if sys.platform == "darwin":
        return "on a Mac TensorFlow needs tensorflow-metal"
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return "no NVIDIA device in /dev"
    if not loads("libcuda.so.1"):
        return "there is an NVIDIA device, but no driver (libcuda.so.1): install NVIDIA's driver"
    return 'the driver is there, but not CUDA\'s libraries: pip install "tensorflow[and-cuda]"'


def loads(library: str) -> bool:
    """Whether a shared library can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def cluster() -> tf.distribute.cluster_resolver.ClusterResolver | None:
    """Find the workers with TensorFlow's own resolvers; None where there is one process.

    The workers are those of TF_CONFIG, or of Slurm where a step has several tasks.

    Raises:
        DistributeError: TF_CONFIG is not what TensorFlow expects, or has no address for this
            worker.
    """
    resolvers = tf.distribute.cluster_resolver
    if "TF_CONFIG" in os.environ:
        return checked(resolvers.TFConfigClusterResolver())
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        slurm = resolvers.SlurmClusterResolver()
        spec = slurm.cluster_spec()
        job, index = slurm.get_task_info()
        return resolvers.SimpleClusterResolver(spec, task_type=job, task_id=index, rpc_layer="grpc")
    return None


def checked(resolver: Any) -> Any:
    """Return the resolver, after a check that TF_CONFIG has all that is needed."""
    text = os.environ["TF_CONFIG"]
    expected = (
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        parts = json.loads(text)
        addresses = {
            job: list(parts["cluster"][job])
            for job in ("chief", "worker")
            if job in parts["cluster"]
        }
        job, index = parts["task"]["type"], int(parts["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DistributeError(
            f"TF_CONFIG can't be read ({why}): {text!r}. Expected something like {expected}."
        ) from error
    if job not in addresses or not 0 <= index < len(addresses[job]):
        listed = "; ".join(f"{name}: {', '.join(hosts)}" for name, hosts in addresses.items())
        raise DistributeError(
            f"TF_CONFIG says that this is {job} {index}, and has no address for it ({listed}). "
            "Give each worker an address of its own."
        )
    return resolver


def open_port() -> str:
    """Return a warning about the worker's port, which TensorFlow opens to every network."""
    resolver = cluster()
    port = addresses_of(resolver)[find_place()[0]].rpartition(":")[2] if resolver else "none"
    return (
        f"warning: port {port} is open to every network of this machine, and anybody who reaches "
        "it can run code as you; use a private network or a firewall (docs/distribute.md, Security)"
    )


def addresses_of(resolver: Any) -> list[str]:
    """Return host:port of all workers, the chief first."""
    spec = resolver.cluster_spec().as_dict()
    return [*spec.get("chief", []), *spec.get("worker", [])]


def find_place() -> tuple[int, int]:
    """Return (number of this worker, number of workers), without connecting to any.

    The chief has number 0. Where there is one process, the answer is (0, 1).
    """
    resolver = cluster()
    if resolver is None:
        return 0, 1
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", []))
    index = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return index, len(addresses_of(resolver))


def devices() -> list[tuple[str, str]]:
    """List the hardware for `tfxfer devices`: (name, description) for each row."""
    gpus = tf.config.list_physical_devices("GPU")
    rows = [("cpu", f"{cores()} cores")]
    for i, gpu in enumerate(gpus):
        details = tf.config.experimental.get_device_details(gpu)
        rows.append((f"gpu {i}", str(details.get("device_name", gpu.name))))
    rows += [] if gpus else [("gpu", f"none: {why_no_gpu()}")]
    rows.append(("tpu", tpu_name() or "none: TPU_NAME is not set, and this is not a TPU VM"))
    index, count = find_place()
    return [
        *rows,
        (
            "workers",
            f"{count}, this is {index}"
            if count > 1
            else "one: neither TF_CONFIG nor a Slurm step with several tasks",
        ),
    ]
