"""Words and letters of texts, weighted by how rare they are: what a model without a network reads.

The weights are tf-idf (Salton and Buckley 1988): log(1 + count) of a word in the text, times the
logarithm of the share of texts that have it.
"""

from collections.abc import Sequence

import numpy as np
from scipy import linalg, sparse
from sklearn.feature_extraction.text import TfidfVectorizer

LETTERS = 16 * 1024  # of a text that are read
SPANNING = 2000  # training texts whose space is used
# A word, or a sign that is none. With signs, no text that says something is without words.
WORD = r"(?u)\w+|[^\w\s]"
SMALL = 1e-7  # share of the largest eigenvalue; what is below is rounding


def weigh_words(texts: Sequence[str], train: int, seed: int) -> np.ndarray:
    """Return a row for each text, float32 [n, d], d <= 2,000.

    The columns are not the words themselves, but directions in the space of the training texts: up
    to 2,000 texts, every model with a penalty on its squared weights is the same in both. With more
    of them, it is the space that 2,000 texts span.

    Args:
        train: how many texts, from the first, are for training. The words and their weights are
            learnt from these.
        seed: seed of the choice of 2,000.
    """
    short = [text[:LETTERS] for text in texts]
    words = TfidfVectorizer(token_pattern=WORD, ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    parts = [one.fit(short[:train]).transform(short) for one in (words, letters)]
    x = sparse.hstack(parts).tocsr().astype(np.float32) * np.float32(np.sqrt(0.5))
    chosen = np.arange(train)
    if train > SPANNING:
        chosen = np.sort(np.random.default_rng(seed).choice(train, SPANNING, replace=False))
    basis = x[chosen]
    sizes, vectors = linalg.eigh((basis @ basis.T).toarray().astype(np.float64))
    kept = sizes > SMALL * sizes[-1]
    turned = (vectors[:, kept] / np.sqrt(sizes[kept])).astype(np.float32)
    return np.asarray((x @ basis.T) @ turned, np.float32)
