"""What several workers, or several replicas in one process, share: data, messages and answers.

Every worker runs the same recipe. With one worker, nothing here computes anything, and with one
replica, a data set stays as it is.
"""

import hashlib
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tfxfer.distribute import parcel
from tfxfer.errors import DistributeError
from tfxfer.process.pipelines import without_autotuning

Strategy: TypeAlias = Any  # tf.distribute.Strategy, which has no types
T = TypeVar("T")
# What `predict_rows` has traced, which takes seconds; a training asks after every epoch.
STEPS: weakref.WeakKeyDictionary[keras.Model, Callable[..., Any]] = weakref.WeakKeyDictionary()


def place(strategy: Strategy) -> tuple[int, int]:
    """(number of this worker, number of workers); the main worker, called chief, is number 0."""
    extended = strategy.extended
    count = (
        getattr(extended, "_num_workers", 1)
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        else 1
    )
    return (int(extended._id_in_cluster), int(count)) if count > 1 else (0, 1)


def local(strategy: Strategy) -> int:
    """Number of replicas of this worker."""
    return strategy.num_replicas_in_sync // place(strategy)[1]


# --- messages ---


def gather_from_workers(strategy: Strategy, numbers: np.ndarray) -> np.ndarray:
    """Collect the numbers of all workers: int [n] of each becomes int64 [workers, n]."""
    index, count = place(strategy)
    mine = np.zeros((count, len(numbers)), np.int64)
    mine[index] = numbers
    return mine if count == 1 else make_sum(strategy)(tf.constant(mine)).numpy()


@lru_cache
def make_sum(strategy: Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function that adds up the tensors of all workers."""
    each = local(strategy)

    def add(value):
        replica = tf.distribute.get_replica_context()
        first = tf.equal(replica.replica_id_in_sync_group % each, 0)
        return replica.all_reduce(
            tf.distribute.ReduceOp.SUM, tf.where(first, value, tf.zeros_like(value))
        )

    return tf.function(
        lambda value: strategy.experimental_local_results(strategy.run(add, (value,)))[0],
        autograph=False,
    )


def barrier(strategy: Strategy) -> None:
    """Wait until all workers have come here."""
    gather_from_workers(strategy, np.zeros(1, np.int64))


def broadcast_from_chief(
    strategy: Strategy, make: Callable[[], T], known: Sequence[type] = ()
) -> T:
    """Return on every worker what `make` returns on the main worker (the chief).

    What depends on clocks, disks or the last bits of a sum must be the same for all workers.

    Args:
        make: returns a value that `parcel.pack` can pack.
        known: the dataclasses that may be in it.

    Raises:
        DistributeError: a worker was sent something that it can't read; raised on that worker.
    """
    index, count = place(strategy)
    if count == 1:
        return make()
    made = parcel.pack(make(), known) if not index else b""
    size = -(-int(gather_from_workers(strategy, np.array([len(made)]))[0, 0]) // 4) * 4
    mine = np.frombuffer(made.ljust(size, b"\0"), np.int32)
    sent = make_sum(strategy)(tf.constant(mine)).numpy().tobytes()
    try:
        return parcel.unpack(sent, known)
    except ValueError as error:
        raise DistributeError(
            f"worker 0 sent what worker {index} can't read: {error}. Start all of them with the "
            "same version of tfxfer, where only they reach their ports."
        ) from error


def agree(strategy: Strategy, **facts: str) -> None:
    """Check that all workers have the same facts.

    Raises:
        DistributeError: a worker has others; raised on every worker.
    """
    hashes = np.stack(
        [
            np.frombuffer(hashlib.sha256(fact.encode()).digest()[:8], np.int64)
            for fact in facts.values()
        ]
    ).ravel()
    digests = gather_from_workers(strategy, hashes)
    apart = [
        f"worker {i} has other {name.replace('_', ' ')}"
        for i in range(len(digests))
        for j, name in enumerate(facts)
        if digests[i, j] != digests[0, j]
    ]
    if apart:
        raise DistributeError(
            f"the workers don't fit together: {', '.join(apart)} than worker 0. "
            "Start all of them with the same code, options and files."
        )


# --- data ---


def order(rows: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """The rows in the order of an epoch.

    Only the epoch and the seed decide it, so that it is the same for every worker, and a training
    can be continued in the middle of an epoch.
    """
    return np.random.default_rng([seed, epoch]).permutation(rows)


def deal_rows(
    rows: np.ndarray, size: int, replicas: int, first: int, count: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows of `count` replicas from number `first` on.

    Each batch of `size` rows is divided among all `replicas`.

    Returns:
        rows: batch after batch, and in each batch replica after replica; the rows of each replica
            are filled up to the same number with rows that don't count.
        counts: bool, which rows count.
        chunk: that number.
    """
    chunk, parts, counts = -(-size // replicas), [], []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        for part in np.array_split(batch, replicas)[first : first + count]:
            parts += [part, np.repeat(batch[:1], chunk - len(part))]
            counts += [np.ones(len(part), bool), np.zeros(chunk - len(part), bool)]
    return np.concatenate(parts), np.concatenate(counts), chunk


def make_batches(
    strategy: Strategy,
    rows: np.ndarray,
    size: int,
    examples: Callable[[np.ndarray], tf.data.Dataset],
    then: Callable[..., Any],
) -> Any:
    """Make a data set of batches of `size` rows for `fit`, with each row on one replica.

    Args:
        examples: makes a data set of single examples from rows.
        then: maps a batch of these examples.

    Returns:
        with one replica, a data set of whole batches, else a distributed one of each replica's
        part. Under a TPU, whose shapes are static, a last batch that isn't full is left out.
    """
    if strategy.num_replicas_in_sync == 1:
        return without_autotuning(examples(rows).batch(size).map(then).prefetch(2))

    def mine(part: np.ndarray, counts: np.ndarray, chunk: int) -> tf.data.Dataset:
        if needs_static_shapes(strategy):
            return examples(part).batch(chunk, drop_remainder=True).map(then).prefetch(2)
        both = tf.data.Dataset.zip(
            (examples(part), tf.data.Dataset.from_tensor_slices(counts))
        ).batch(chunk)
        return both.map(
            lambda values, real: then(
                *tf.nest.map_structure(lambda value: tf.boolean_mask(value, real), as_tuple(values))
            )
        ).prefetch(2)

    return distribute_batches(strategy, rows, size, make=mine)


def distribute_batches(
    strategy: Strategy,
    rows: np.ndarray,
    size: int,
    make: Callable[[np.ndarray, np.ndarray, int], tf.data.Dataset],
) -> Any:
    """A distributed data set of what `make` makes from each worker's rows.

    Under a TPU, a last batch that isn't full is left out.

    Args:
        make: takes what `deal_rows` returns, and makes this worker's data set.
    """
    replicas = strategy.num_replicas_in_sync
    rows = rows[: len(rows) // size * size] if needs_static_shapes(strategy) else rows

    def mine(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = replicas // context.num_input_pipelines
        part = deal_rows(rows, size, replicas, first=context.input_pipeline_id * count, count=count)
        return without_autotuning(make(*part))

    return strategy.distribute_datasets_from_function(mine)


def explain_unshareable(batch: int, replicas: int) -> str:
    """Why a batch with fewer examples than there are replicas is refused."""
    return (
        f"a batch of {batch} can't be shared out among {replicas} replicas. "
        f"Use --global-batch {replicas} or more, or fewer replicas."
    )


def steps_option(strategy: Strategy, steps: int) -> dict[str, int]:
    """Options of `fit` for a data set of `make_batches`.

    Without the number of steps, Keras 3 ends a distributed epoch with one more step, on no
    examples, in which the momentum still moves the weights.
    """
    return {"steps_per_epoch": steps} if strategy.num_replicas_in_sync > 1 else {}


def needs_static_shapes(strategy: Strategy) -> bool:
    """Whether all shapes must be known in advance, as on a TPU."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def as_tuple(values: Any) -> tuple:
    return values if isinstance(values, tuple) else (values,)


def predict_rows(
    strategy: Strategy,
    model: keras.Model,
    rows: np.ndarray,
    size: int,
    examples: Callable[[np.ndarray], tf.data.Dataset],
    then: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> np.ndarray:
    """The model's answers on `rows` in their order, float32 [n, C].

    Each worker computes its part, and all workers get all answers.
    """
    if strategy.num_replicas_in_sync == 1:
        batches = without_autotuning(examples(rows).batch(size).map(then).prefetch(2))
        return model.predict(batches, verbose=0)

    def placed(places: np.ndarray) -> tf.data.Dataset:
        return tf.data.Dataset.zip(
            (tf.data.Dataset.from_tensor_slices(places), examples(rows[places]))
        )

    count, step = len(rows), make_step(strategy, model)
    # If a last batch that isn't full would be left out, it is filled up.
    places = (
        np.arange(-(-count // size) * size) % count
        if needs_static_shapes(strategy)
        else np.arange(count)
    )
    pairs = [
        step(batch)
        for batch in make_batches(
            strategy, places, size, examples=placed, then=lambda at, x: (at, then(x))
        )
    ]
    out = np.zeros((count, *pairs[0][1].shape[1:]), np.float32)
    for at, answers in pairs:
        out[at.numpy()] = answers.numpy()
    return out


def make_step(strategy: Strategy, model: keras.Model) -> Callable[..., Any]:
    """A function from a distributed batch of (place, example) to all places and all answers.

    After a change of what the model computes, other than of its weights, call `forget_step`.
    """
    if model not in STEPS:
        known: Callable[[], Any] = weakref.ref(model)  # an entry must not keep its own key alive

        def answer(at: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return at, known()(x, training=False)

        @tf.function(autograph=False, reduce_retracing=True)
        def step(batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
            at, answers = strategy.run(answer, batch)
            return strategy.gather(at, 0), strategy.gather(answers, 0)

        STEPS[model] = step
    return STEPS[model]


def forget_step(model: keras.Model) -> None:
    """Let `predict_rows` trace a model anew."""
    model.make_predict_function(force=True)
    STEPS.pop(model, None)
