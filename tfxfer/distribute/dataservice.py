"""Training batches that a tf.data service computes, on machines of its own.

They are the same batches in the same order as without the service. The service distributes the
batches among its workers (dynamic sharding), and they come back in any order. This module puts them
in order again, so that training can be repeated, and can be resumed in the middle.
"""

from collections.abc import Callable, Iterator
from queue import Empty, Queue
from threading import Thread
from typing import Any

import numpy as np
import tensorflow as tf

from tfxfer.distribute.rendezvous import call
from tfxfer.distribute.workers import Strategy, deal_rows, distribute_batches
from tfxfer.errors import DistributeError
from tfxfer.process.pipelines import without_autotuning

PATIENCE = 120.0  # seconds to wait for a batch
SILENT = (
    "the tf.data service has sent no batch for two minutes: one of its workers is gone, or too "
    "slow. Start the service again, and the run with --resume."
)


def batched(
    strategy: Strategy, rows: np.ndarray, size: int, address: str, load: Callable[[tf.Tensor], Any]
) -> Any:
    """Like `workers.make_batches`, but the batches are computed by a tf.data service.

    Args:
        address: host:port of the service's dispatcher.
        load: maps rows, int64 [b], to a batch; it runs in the service.

    Raises:
        DistributeError: nobody answers at the address.
    """
    answer(address)

    def mine(part: np.ndarray, counts: np.ndarray, chunk: int) -> tf.data.Dataset:
        steps = len(part) // chunk
        batches = in_order(
            served(part.reshape(steps, chunk), counts.reshape(steps, chunk), address, load=load)
        )
        # Keras warns where a data set ends whose number of batches is unknown.
        counted = batches.apply(tf.data.experimental.assert_cardinality(steps))
        return without_autotuning(counted.prefetch(2))

    return (
        mine(*deal_rows(rows, size, 1, first=0, count=1))
        if strategy.num_replicas_in_sync == 1
        else distribute_batches(strategy, rows, size, make=mine)
    )


def served(
    rows: np.ndarray, counts: np.ndarray, address: str, load: Callable[[tf.Tensor], Any]
) -> tf.data.Dataset:
    """Return a data set of (number, batch), in any order."""
    table, real = tf.constant(rows, tf.int64), tf.constant(counts)
    numbers = tf.data.Dataset.range(len(rows))
    batches = numbers.map(
        lambda step: (step, load(tf.boolean_mask(table[step], real[step]))),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    service = tf.data.experimental.service
    return batches.apply(service.distribute(service.ShardingPolicy.DYNAMIC, f"grpc://{address}"))


def in_order(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return the batches alone, ordered by number; those that come early wait in memory."""

    def each() -> Iterator[Any]:
        waiting: dict[int, Any] = {}
        following = 0
        for number, batch in patiently(batches):
            waiting[int(number)] = batch
            while following in waiting:
                yield waiting.pop(following)
                following += 1

    return tf.data.Dataset.from_generator(each, output_signature=batches.element_spec[1])


def patiently(batches: tf.data.Dataset) -> Iterator[Any]:
    """Yield the elements, and raise an error where none comes for `PATIENCE` seconds.

    The client of the service would wait for ever for a worker that died.

    Raises:
        DistributeError: no element came in time.
    """
    came: Queue = Queue(2)

    def fetch() -> None:
        for element in batches:
            came.put(element)
        came.put(None)

    Thread(target=fetch, daemon=True).start()
    while True:
        try:
            element = came.get(timeout=PATIENCE)
        except Empty as error:
            raise DistributeError(SILENT) from error
        if element is None:
            return
        yield element


def answer(address: str) -> None:
    """Raise a DistributeError for an address where nobody answers.

    The client of the service would try for ever.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise DistributeError(
            f"--data-service {address}: expected host:port of the dispatcher of a tf.data service."
        )
    try:
        call(address)
    except OSError as error:
        why = error.strerror or error
        raise DistributeError(
            f"no tf.data service answers at {address}: {why}. Start its dispatcher, or leave out "
            "--data-service."
        ) from error
