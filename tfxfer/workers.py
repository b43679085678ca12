"""What several workers, or several replicas in one process, share: their part of the data, one word, one answer.

Every worker runs the same recipe. With one worker nothing here computes anything, and with one replica a data set stays as it is.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tfxfer import parcel
from tfxfer.errors import DistributeError

Strategy: TypeAlias = Any  # tf.distribute.Strategy, which has no types
T = TypeVar("T")


def place(strategy: Strategy) -> tuple[int, int]:
    """(this worker's number, how many there are); the chief is 0."""
    extended = strategy.extended
    count = (
        getattr(extended, "_num_workers", 1)
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        else 1
    )
    return (int(extended._id_in_cluster), int(count)) if count > 1 else (0, 1)


def local(strategy: Strategy) -> int:
    """Replicas of this worker."""
    return strategy.num_replicas_in_sync // place(strategy)[1]


# --- words ---


def everyones(strategy: Strategy, numbers: np.ndarray) -> np.ndarray:
    """int64 [workers, n]: what each worker gave as its int [n]."""
    index, count = place(strategy)
    mine = np.zeros((count, len(numbers)), np.int64)
    mine[index] = numbers
    return mine if count == 1 else summed(strategy)(tf.constant(mine)).numpy()


@lru_cache
def summed(strategy: Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Adds up the tensors of all workers."""
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
    """Go on when all workers have come here."""
    everyones(strategy, np.zeros(1, np.int64))


def chiefs(strategy: Strategy, make: Callable[[], T], known: Sequence[type] = ()) -> T:
    """What `make` returns to the chief, for every worker: what depends on clocks, disks or the last bits of a sum must be the same for all.

    Args:
        make: returns what `parcel.pack` can pack.
        known: the dataclasses that may be in it.

    Raises:
        DistributeError: on a worker that was sent something else.
    """
    index, count = place(strategy)
    if count == 1:
        return make()
    made = parcel.pack(make(), known) if not index else b""
    size = -(-int(everyones(strategy, np.array([len(made)]))[0, 0]) // 4) * 4
    mine = np.frombuffer(made.ljust(size, b"\0"), np.int32)
    sent = summed(strategy)(tf.constant(mine)).numpy().tobytes()
    try:
        return parcel.unpack(sent, known)
    except ValueError as error:
        raise DistributeError(
            f"worker 0 sent what worker {index} can't read: {error}. Start all of them with the "
            "same version of tfxfer, where only they reach their ports."
        ) from error


def agree(strategy: Strategy, **facts: str) -> None:
    """Go on where every worker has the same facts.

    Raises:
        DistributeError: some worker has others; on every worker.
    """
    hashes = np.stack(
        [
            np.frombuffer(hashlib.sha256(fact.encode()).digest()[:8], np.int64)
            for fact in facts.values()
        ]
    ).ravel()
    found = everyones(strategy, hashes)
    apart = [
        f"worker {i} has other {name.replace('_', ' ')}"
        for i in range(len(found))
        for j, name in enumerate(facts)
        if found[i, j] != found[0, j]
    ]
    if apart:
        raise DistributeError(
            f"the workers don't fit together: {', '.join(apart)} than worker 0. Start all of them with the same code, options and files."
        )


# --- data ---


def order(rows: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """The rows in the order of that epoch: nothing else decides it, so that it is the same for every worker, and a training can go on in the middle."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def dealt(
    rows: np.ndarray, size: int, replicas: int, first: int, count: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows of `count` replicas from `first` on, of batches of `size` rows that are dealt out among `replicas`.

    Returns:
        rows: batch after batch, and in each replica after replica, each filled up to the same number with rows that don't count.
        counts: bool, which ones count.
        chunk: that number.
    """
    chunk, found, counts = -(-size // replicas), [], []
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        for part in np.array_split(batch, replicas)[first : first + count]:
            found += [part, np.repeat(batch[:1], chunk - len(part))]
            counts += [np.ones(len(part), bool), np.zeros(chunk - len(part), bool)]
    return np.concatenate(found), np.concatenate(counts), chunk


def batched(
    strategy: Strategy,
    rows: np.ndarray,
    size: int,
    examples: Callable[[np.ndarray], tf.data.Dataset],
    then: Callable[..., Any],
) -> Any:
    """Batches of `size` rows, each row on one replica: `examples(rows)` is a data set of single examples, `then` maps a batch of them.

    Returns:
        a data set for `fit`: of whole batches where there is one replica, else a distributed one, of each replica's part. Under a TPU, whose shapes are
        static, a last batch that isn't full is left out.
    """
    if strategy.num_replicas_in_sync == 1:
        return examples(rows).batch(size).map(then).prefetch(2)

    def mine(found: np.ndarray, counts: np.ndarray, chunk: int) -> tf.data.Dataset:
        if static(strategy):
            return examples(found).batch(chunk, drop_remainder=True).map(then).prefetch(2)
        both = tf.data.Dataset.zip(
            (examples(found), tf.data.Dataset.from_tensor_slices(counts))
        ).batch(chunk)
        return both.map(
            lambda values, real: then(
                *tf.nest.map_structure(lambda value: tf.boolean_mask(value, real), as_tuple(values))
            )
        ).prefetch(2)

    return shared_out(strategy, rows, size, mine)


def shared_out(
    strategy: Strategy,
    rows: np.ndarray,
    size: int,
    make: Callable[[np.ndarray, np.ndarray, int], tf.data.Dataset],
) -> Any:
    """A distributed data set of what `make` makes of each worker's rows, see `dealt`; under a TPU a last batch that isn't full is left out."""
    replicas = strategy.num_replicas_in_sync
    rows = rows[: len(rows) // size * size] if static(strategy) else rows

    def mine(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = replicas // context.num_input_pipelines
        return make(*dealt(rows, size, replicas, context.input_pipeline_id * count, count))

    return strategy.distribute_datasets_from_function(mine)


def unshareable(batch: int, replicas: int) -> str:
    """Why a batch that is smaller than the replicas is refused."""
    return f"a batch of {batch} can't be shared out among {replicas} replicas. Use --global-batch {replicas} or more, or fewer replicas."


def exactly(strategy: Strategy, steps: int) -> dict[str, int]:
    """Options of `fit` for `batched`: without its length, Keras 3 ends a distributed epoch with one more step, on nothing, in which momentum moves on."""
    return {"steps_per_epoch": steps} if strategy.num_replicas_in_sync > 1 else {}


def static(strategy: Strategy) -> bool:
    """Whether all shapes must be known beforehand."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def as_tuple(values: Any) -> tuple:
    return values if isinstance(values, tuple) else (values,)


def predicted(
    strategy: Strategy,
    model: keras.Model,
    rows: np.ndarray,
    size: int,
    examples: Callable[[np.ndarray], tf.data.Dataset],
    then: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> np.ndarray:
    """The model's answers on `rows` in their order, float32 [n, C]: each worker computes its part, and all get all."""
    if strategy.num_replicas_in_sync == 1:
        return model.predict(examples(rows).batch(size).map(then).prefetch(2), verbose=0)

    def placed(places: np.ndarray) -> tf.data.Dataset:
        return tf.data.Dataset.zip(
            (tf.data.Dataset.from_tensor_slices(places), examples(rows[places]))
        )

    @tf.function(autograph=False)
    def step(batch):
        at, answers = strategy.run(lambda at, x: (at, model(x, training=False)), batch)
        return strategy.gather(at, 0), strategy.gather(answers, 0)

    count = len(rows)
    # Where a last batch that isn't full would be left out, it is filled up.
    places = np.arange(-(-count // size) * size) % count if static(strategy) else np.arange(count)
    found = [
        step(batch)
        for batch in batched(strategy, places, size, placed, lambda at, x: (at, then(x)))
    ]
    out = np.zeros((count, *found[0][1].shape[1:]), np.float32)
    for at, answers in found:
        out[at.numpy()] = answers.numpy()
    return out
