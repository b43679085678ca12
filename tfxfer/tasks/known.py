"""Labels of new data for a model whose outputs are known."""

from collections.abc import Collection, Sequence

import numpy as np

SHOWN = 10  # names that a sentence lists


def check_known(names: Collection[str], known: Sequence[str], what: str) -> None:
    """Refuse names that a model does not know.

    Args:
        what: what they name, such as "classes".

    Raises:
        ValueError: lists them, and those that it knows; the end of a sentence on the data.
    """
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(
            f"has {what} that the model doesn't know: {', '.join(map(repr, unknown[:SHOWN]))}. "
            f"It knows: {', '.join(map(repr, known[:SHOWN]))}"
        )


def in_order(
    targets: np.ndarray, own: Sequence[str], names: Sequence[str], what: str
) -> np.ndarray:
    """Return targets with a column for each output, float32 [n, K]; not-a-number where unknown.

    Args:
        targets: [n, k], a column for each name in `own`.
        own: the names that the data has.
        names: those of the outputs.

    Raises:
        ValueError: the data has names that are no outputs.
    """
    check_known(own, names, what)
    result = np.full((len(targets), len(names)), np.nan, np.float32)
    result[:, [names.index(name) for name in own]] = targets
    return result
