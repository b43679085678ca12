"""Flags to strategies; workers that don't come or don't fit together; calls for a TPU."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest
import tensorflow as tf
from loaded import python

from tfxfer.distribute import devices, launch, loopback, workers
from tfxfer.errors import DistributeError


def own_network() -> loopback.Loopback | None:
    """Return a network for workers alone.

    It is None where this system allows none, as in many containers.
    """
    try:
        return loopback.make_loopback()
    except OSError:
        return None


NETWORK = own_network()
PORTS = [] if NETWORK else ["--open-ports"]
needs_network = pytest.mark.skipif(NETWORK is None, reason="no network namespaces here")


def started(code: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of a fresh process: devices are set up once a process."""
    words = [python(), "-c", f"import tensorflow as tf, tfxfer\n{code}"]
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200
    )
    return done.returncode, done.stdout + done.stderr


def test_one_device_is_the_default_strategy(said):
    assert devices.strategy() is tf.distribute.get_strategy()
    assert said == [f"device: cpu, no GPU ({devices.why_no_gpu()})"]


def test_mirrored_without_gpus_is_over_logical_cpus():
    found = devices.strategy("mirrored", replicas=2)
    assert isinstance(found, tf.distribute.MirroredStrategy) and found.num_replicas_in_sync == 2


def test_mirrored_has_a_replica_a_core_by_default():
    assert devices.choose("mirrored").replicas == devices.cores()


def test_auto_takes_several_replicas_where_they_are_asked_for():
    assert devices.choose(replicas=3).name == "mirrored"


def test_devices_that_are_in_use_already_are_named():
    tf.config.list_logical_devices()  # TensorFlow starts them
    with pytest.raises(
        DistributeError,
        match=(
            "the devices are in use already.* Call tfxfer.distribute.strategy before anything else"
        ),
    ):
        devices.strategy("mirrored", replicas=7)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"device": "gpu"},
            (
                "no GPU that TensorFlow can use: CUDA_VISIBLE_DEVICES is '', "
                "which hides all.* use --device cpu"
            ),
        ),
        (
            {"name": "tpu"},
            (
                "no TPU here: TPU_NAME is not set, and there is no /dev/accel0 or /dev/vfio/0.* "
                "leave out --device tpu"
            ),
        ),
        ({"device": "tpu"}, r"no TPU here"),
        (
            {"device": "cpu", "name": "tpu"},
            r"--device cpu and --strategy tpu contradict each other",
        ),
        (
            {"name": "multiworker"},
            r"needs several workers. Start them with tfxfer launch --workers 2",
        ),
        (
            {"name": "one", "replicas": 2},
            r"--replicas 2 and --strategy one contradict each other: use --strategy mirrored",
        ),
    ],
)
def test_what_is_not_here_is_said(options, message):
    with pytest.raises(DistributeError, match=message):
        devices.choose(**options)


def test_a_tpu_is_asked_for_by_its_name(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "mine")
    assert str(devices.choose()) == "tpu, tpu: TPU mine"


@pytest.mark.long
def test_a_tpu_that_cannot_be_used_is_named():
    code, said = started("tfxfer.distribute.strategy('tpu')", TPU_NAME="local")
    assert (
        code == 1
        and "TPU local can't be used" in said
        and "Is this TensorFlow built for TPUs" in said
    )


def test_a_tpu_is_given_static_shapes(monkeypatch):
    monkeypatch.setattr(workers, "needs_static_shapes", lambda strategy: True)
    strategy = devices.strategy("mirrored", replicas=2)
    data = workers.make_batches(
        strategy,
        tf.range(21).numpy(),
        8,
        examples=tf.data.Dataset.from_tensor_slices,
        then=lambda x: x,
    )
    assert data.element_spec._component_specs[0].shape == (4,)
    assert len(list(data)) == 2


TRACED = """
import keras, numpy as np
from tfxfer.distribute import devices, workers

traced, counts = [], []

class Double(keras.layers.Layer):
    def call(self, x):
        traced.append(x.shape)
        return 2 * x

strategy = devices.strategy("mirrored", replicas=2)
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), Double()])
x = np.random.default_rng(0).uniform(size=(23, 3)).astype(np.float32)
examples = lambda rows: tf.data.Dataset.from_tensor_slices(x[rows])
for rows in (np.arange(23), np.arange(22, -1, -1), np.arange(23)):
    answers = workers.predict_rows(strategy, model, rows, 8, examples=examples)
    np.testing.assert_array_equal(answers, 2 * x[rows])
    counts.append(len(traced))
assert counts[0] == counts[1] == counts[2], counts
workers.forget_step(model)
workers.predict_rows(strategy, model, rows, 8, examples=examples)
assert len(traced) > counts[2]
"""


@pytest.mark.long
def test_a_model_is_traced_once_however_often_its_answers_are_asked_for():
    code, said = started(TRACED)
    assert code == 0, said


def test_workers_know_their_place(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", launch.config(["a:1", "b:2", "c:3"], 1))
    assert devices.find_place() == (1, 3) and devices.choose().name == "multiworker"
    monkeypatch.setenv(
        "TF_CONFIG",
        (
            '{"cluster": {"chief": ["a:1"], "worker": ["b:2"]}, '
            '"task": {"type": "worker", "index": 0}}'
        ),
    )
    assert devices.find_place() == (1, 2)


def test_slurm_tells_the_workers_too(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in {
        "STEP_NUM_TASKS": "3",
        "PROCID": "2",
        "STEP_NODELIST": "n[1-3]",
        "STEP_TASKS_PER_NODE": "1(x3)",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert devices.find_place() == (2, 3)
    assert devices.addresses_of(devices.cluster()) == ["n1:8888", "n2:8888", "n3:8888"]


def test_more_workers_than_addresses_are_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", launch.config(["a:1", "b:2"], 2))
    with pytest.raises(
        DistributeError,
        match=(
            r"this is worker 2, and has no address for it \(worker: a:1, b:2\). "
            "Give each worker an address of its own"
        ),
    ):
        devices.find_place()


def test_a_cluster_that_cannot_be_read_shows_how_one_looks(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{'worker'}")
    with pytest.raises(
        DistributeError, match=r"TF_CONFIG can't be read .* Expected something like \{\"cluster\""
    ):
        devices.find_place()


@pytest.mark.long
def test_mixed_precision_is_refused_on_a_cpu(tmp_path):
    options = f"{str(tmp_path / 'run')!r}, recipe='full', device='cpu', precision='mixed'"
    code, said = started(f"import tfxfer; tfxfer.Run({options}).start()")
    assert (
        code == 1
        and (
            "--precision mixed needs a GPU or a TPU: on a CPU a step in bfloat16 takes longer "
            "than one in float32"
        )
        in said
    )


@pytest.mark.long
def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = started(
            "tfxfer.distribute.strategy('multiworker')",
            TF_CONFIG=launch.config([f"localhost:{port}", "localhost:1"], 0),
        )
    assert [line for line in said.splitlines() if line.startswith(f"warning: port {port} is open")]
    assert (
        code == 1
        and f"worker 0 can't listen on localhost:{port}" in said
        and "Choose another one" in said
    )


@pytest.mark.long
@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_never_comes_is_named_and_nobody_waits_for_ever(index):
    addresses = launch.free_addresses(2)
    code, said = started(
        "tfxfer.distribute.strategy('multiworker', wait=3)",
        TF_CONFIG=launch.config(addresses, index),
    )
    assert (
        code == -9
        and f"worker {1 - index} ({addresses[1 - index]}) did not come within 3 s" in said
    )


def run(words: list[str], program: str = sys.executable) -> subprocess.Popen:
    return subprocess.Popen(
        [program, "-m", "tfxfer", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.long
def test_workers_with_different_data_refuse_to_start_together(photos, tmp_path, tiny_savedmodel):
    other = tmp_path / "elsewhere" / "photos"
    other.parent.mkdir()
    subprocess.run(["cp", "-r", str(photos), str(other)], check=True)
    next(other.rglob("*.jpg")).unlink()
    addresses = launch.free_addresses(2)
    words = [
        "run",
        "frozen",
        "--data",
        "photos",
        "--backbone",
        tiny_savedmodel,
        "--cache",
        str(tmp_path / "cache"),
        "--out",
        str(tmp_path / "run"),
    ]
    started = []
    for index, folder in enumerate((photos.parent, other.parent)):
        env = {**os.environ, "TF_CONFIG": launch.config(addresses, index)}
        # The same words, in folders that hold other photos: two machines whose disks differ.
        link = tmp_path / f"at{index}"
        link.mkdir()
        (link / "photos").symlink_to(photos if folder == photos.parent else other)
        started.append(
            subprocess.Popen(
                [python(), "-m", "tfxfer", *words],
                env=env,
                cwd=link,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in started:
        said, _ = process.communicate(timeout=200)
        assert (
            process.returncode == 1 and "worker 1 has other data fingerprint than worker 0" in said
        ), said


@pytest.mark.long
def test_a_batch_smaller_than_the_replicas_is_refused(photos, tmp_path, tiny_savedmodel):
    words = [
        "run",
        "partial",
        "--data",
        str(photos),
        "--backbone",
        tiny_savedmodel,
        "--unfreeze",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    words += ["--strategy", "mirrored", "--replicas", "3", "--global-batch", "2"]
    said, _ = run(words, python()).communicate(timeout=200)
    assert (
        "a batch of 2 can't be shared out among 3 replicas. Use --global-batch 3 or more, "
        "or fewer replicas"
        in said
        and "features" not in said
    )


@pytest.mark.long
def test_devices_are_shown():
    said, _ = run(["devices"], python()).communicate(timeout=100)
    assert (
        "cpu " in said
        and "gpu      none: CUDA_VISIBLE_DEVICES is ''" in said
        and "A run would use cpu, no GPU" in said
    )


LISTEN = """
import os, socket
from tfxfer.distribute import loopback
with socket.create_server(("", 0)) as server:
    port = server.getsockname()[1]
    socket.create_connection(("127.0.0.1", port)).close()
    print(port, loopback.is_private(), os.geteuid(), flush=True)
    input()
"""


@needs_network
def test_what_listens_in_a_network_of_its_own_is_reached_from_inside_only():
    words = [sys.executable, "-c", LISTEN]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, preexec_fn=NETWORK.enter, **pipes) as process:
        port, private, user = process.stdout.readline().split()
        assert (private, int(user)) == ("True", os.geteuid())
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", int(port)), timeout=1)
        process.communicate("")
    assert loopback.is_private() is not any(
        name != "lo" and stats.isup for name, stats in psutil.net_if_stats().items()
    )


def test_a_system_without_such_networks_is_refused_with_the_option(monkeypatch):
    def refuse():
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(launch, "make_loopback", refuse)
    with pytest.raises(DistributeError, match="Operation not permitted.*--open-ports"):
        launch.launch(["run", "frozen"], 2)


def training_losses(said: str) -> list[float]:
    """The loss of each epoch that a run has printed."""
    lines = re.findall(r"^epoch .* training loss (\d+\.\d+)", said, re.M)
    return [float(loss) for loss in lines]


@pytest.mark.long
def test_two_workers_leave_the_run_of_one_process(photos, tmp_path, tiny_savedmodel):
    common = [
        "partial",
        "--data",
        str(photos),
        "--backbone",
        tiny_savedmodel,
        "--unfreeze",
        "1",
        "--epochs",
        "3",
        "--learning-rate",
        "0.003",
    ]
    common += ["--head", "gaussian", "--global-batch", "7", "--views", "0"]
    one, two = tmp_path / "one", tmp_path / "two"
    alone = ["run", *common, "--cache", str(tmp_path / "c1"), "--out", str(one)]
    said, _ = run(alone, python()).communicate(timeout=600)
    assert (one / "manifest.json").exists(), said
    both, _ = run(
        [
            "launch",
            "--workers",
            "2",
            *PORTS,
            "--",
            "run",
            *common,
            "--cache",
            str(tmp_path / "c2"),
            "--out",
            str(two),
        ]
    ).communicate(timeout=600)
    assert (two / "manifest.json").exists(), both
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    names = figures[0]["candidates"]
    assert names.keys() == figures[1]["candidates"].keys()
    pairs = [(figures[0]["test"], figures[1]["test"])]
    pairs += [(figures[0]["candidates"][name], figures[1]["candidates"][name]) for name in names]
    for own, shared in pairs:  # one example between two classes may fall to the other side
        assert own["n"] == shared["n"]
        assert shared["accuracy"] == pytest.approx(own["accuracy"], abs=1.01 / own["n"])
    losses = [training_losses(text) for text in (said, both)]
    assert len(losses[0]) >= 9 and losses[1] == pytest.approx(losses[0], abs=2e-4)


def worker(launcher: int, index: int) -> int:
    """The process of one of a launcher's workers."""
    return next(
        child.pid
        for child in psutil.Process(launcher).children()
        if f'"index": {index}' in child.environ().get("TF_CONFIG", "")
    )


def read_until(process: subprocess.Popen, start: str, part: str = "") -> list[str]:
    """Return what the process prints, up to a line that begins so and has that part."""
    said = []
    while process.stdout is not None and (line := process.stdout.readline()):
        said.append(line)
        if line.startswith(start) and part in line:
            break
    return said


# The others notice within ten seconds that a worker is gone. Here nobody waits for that.
IMPATIENT = """
import sys
from tfxfer.cli import main
from tfxfer.distribute import launch
launch.SEE = launch.END = 0.5
main(sys.argv[1:])
"""


@pytest.mark.long
def test_launch_says_who_died_and_how_to_go_on(photos, tmp_path, tiny_savedmodel):
    words = [
        "launch",
        "--workers",
        "2",
        *PORTS,
        "--",
        "run",
        "frozen",
        "--data",
        str(photos),
        "--backbone",
        tiny_savedmodel,
        "--out",
        str(tmp_path / "run"),
    ]
    words += ["--cache", str(tmp_path / "cache")]
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    before = read_until(process, "device:")
    number = worker(process.pid, 1)
    if NETWORK:
        assert os.readlink(f"/proc/{number}/ns/net") != os.readlink("/proc/self/ns/net")
        assert any("--open-ports" in line for line in before)
    os.kill(number, signal.SIGKILL)
    said, _ = process.communicate(timeout=600)
    assert "is open to every network" not in said or not NETWORK
    assert process.returncode == 137 and "worker 1 was killed by SIGKILL" in said
    assert f"tfxfer {' '.join(words)}" in said and said.rstrip().endswith("--resume")


@pytest.mark.long
def test_a_preempted_worker_lets_the_chief_save_first_and_the_run_goes_on(
    photos, tmp_path, tiny_savedmodel
):
    out = tmp_path / "run"
    words = [
        "launch",
        "--workers",
        "2",
        *PORTS,
        "--",
        "run",
        "partial",
        "--unfreeze",
        "1",
        "--views",
        "0",
        "--data",
        str(photos),
        "--backbone",
        tiny_savedmodel,
        "--out",
        str(out),
    ]
    words += [
        "--head",
        "gaussian",
        "--learning-rate",
        "0.001",
        "--global-batch",
        "7",
        "--epochs",
        "16",
        "--cache",
        str(tmp_path / "cache"),
    ]
    process = run(words)
    read_until(process, "epoch  1/16")
    os.kill(worker(process.pid, 1), signal.SIGTERM)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 143 and "stopped, since another worker got a SIGTERM." in said, (
        said
    )
    assert (
        "worker 1 was stopped. Stopping the others." in said
        or "worker 0 was stopped. Stopping the others." in said
    )
    assert (
        f"-m tfxfer {' '.join(words)}" in said and "Error" not in said and "tfxfer run" not in said
    )
    assert list((out / "checkpoints" / "tuning").rglob("state-*.npz"))
    process = run([*words, "--resume"])
    first = read_until(process, "epoch ", "training loss")[-1]
    for child in psutil.Process(process.pid).children():
        child.kill()
    process.communicate(timeout=600)
    assert "training loss" in first and not first.startswith("epoch  1/16")


@pytest.mark.long
def test_a_run_that_is_preempted_saves_first(photos, tmp_path, tiny_savedmodel):
    words = [
        "run",
        "partial",
        "--unfreeze",
        "1",
        "--views",
        "0",
        "--data",
        str(photos),
        "--backbone",
        tiny_savedmodel,
        "--out",
        str(tmp_path / "run"),
        "--head",
        "gaussian",
        "--epochs",
        "50",
    ]
    process = run([*words, "--learning-rate", "0.001", "--batch-size", "2"])
    read_until(process, "epoch  1/50")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 143 and "stopped by SIGTERM." in said
    assert "-m tfxfer run partial" in said
    assert list((tmp_path / "run" / "checkpoints" / "tuning").rglob("state-*.npz"))
