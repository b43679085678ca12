"""Training batches that a tf.data service computes, on machines of its own: the same batches in the same order as without it.

The service deals batches out among its workers (dynamic sharding), and they come back in any order; here they are put in order again, so that a training can
be repeated, and can go on in the middle.
"""

from collections.abc import Callable, Iterator
from queue import Empty, Queue
from threading import Thread
from typing import Any

import numpy as np
import tensorflow as tf

from tfxfer.errors import DistributeError
from tfxfer.rendezvous import call
from tfxfer.workers import Strategy, dealt, shared_out

PATIENCE = 120.0  # seconds for a batch
SILENT = "the tf.data service has sent no batch for two minutes: one of its workers is gone, or too slow. Start the service again, and the run with --resume."


def batched(
    strategy: Strategy, rows: np.ndarray, size: int, address: str, load: Callable[[tf.Tensor], Any]
) -> Any:
    """As `workers.batched`, but that `load`, from int64 [b] rows to a batch, runs in the service at `address`, host:port of its dispatcher.

    Raises:
        DistributeError: nobody answers there.
    """
    answer(address)

    def mine(found: np.ndarray, counts: np.ndarray, chunk: int) -> tf.data.Dataset:
        steps = len(found) // chunk
        batches = in_order(
            served(found.reshape(steps, chunk), counts.reshape(steps, chunk), address, load)
        )
        return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(
            2
        )  # Keras warns where an unknown number ends

    return (
        mine(*dealt(rows, size, 1, 0, 1))
        if strategy.num_replicas_in_sync == 1
        else shared_out(strategy, rows, size, mine)
    )


def served(
    rows: np.ndarray, counts: np.ndarray, address: str, load: Callable[[tf.Tensor], Any]
) -> tf.data.Dataset:
    """(number, batch), in any order."""
    table, real = tf.constant(rows, tf.int64), tf.constant(counts)
    numbers = tf.data.Dataset.range(len(rows))
    batches = numbers.map(
        lambda step: (step, load(tf.boolean_mask(table[step], real[step]))),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    service = tf.data.experimental.service
    return batches.apply(service.distribute(service.ShardingPolicy.DYNAMIC, f"grpc://{address}"))


def in_order(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The batches alone, by number; those that come early wait in memory."""

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
    """The elements; an error where none comes for long: for a worker of the service that died, its client would wait for ever."""
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
    """Refuse an address where nobody answers: the service's client would try for ever."""
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
            f"no tf.data service answers at {address}: {why}. Start its dispatcher, or leave out --data-service."
        ) from error
