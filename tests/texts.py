"""A small network for texts, with random weights, and texts of two kinds."""

import csv
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfxfer.handles import minilm, wordpiece

LENGTH, WIDTH, WIDE, LAYERS = 16, 24, 32, 2
KINDS = {
    "garden": "rose tulip soil water sun leaf seed".split(),
    "kitchen": "bread salt oven knife soup plate sugar".split(),
}
FILLING = "the a and of my is in with good new".split()
SPECIAL = [wordpiece.PADDING, wordpiece.UNKNOWN, wordpiece.BEGIN, wordpiece.END]
VOCABULARY = [*SPECIAL, *FILLING, *KINDS["garden"], *KINDS["kitchen"], ".", ",", "##s", "!"]


def tensors(seed: int = 0, layers: int = LAYERS) -> dict[str, np.ndarray]:
    """Random weights, by the names that they have in the file of MiniLM."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.05) -> np.ndarray:
        return rng.normal(0, scale, shape).astype(np.float32)

    values = {
        "embeddings.word_embeddings.weight": normal(len(VOCABULARY), WIDTH, scale=1.0),
        "embeddings.position_embeddings.weight": normal(LENGTH, WIDTH),
        "embeddings.token_type_embeddings.weight": normal(2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    dense = {}
    for number in range(layers):
        key = f"encoder.layer.{number}"
        norms += [f"{key}.attention.output.LayerNorm", f"{key}.output.LayerNorm"]
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            dense[f"{key}.attention.{part}"] = (WIDTH, WIDTH)
        dense[f"{key}.intermediate.dense"] = (WIDE, WIDTH)
        dense[f"{key}.output.dense"] = (WIDTH, WIDE)
    for name in norms:
        values |= {f"{name}.weight": 1 + normal(WIDTH), f"{name}.bias": normal(WIDTH)}
    for name, shape in dense.items():
        values |= {f"{name}.weight": normal(*shape), f"{name}.bias": normal(shape[0])}
    return values


def save_network(folder: Path, layers: int = LAYERS) -> str:
    """Write the network as a SavedModel, and return its folder."""
    network = minilm.Network(tensors(layers=layers), VOCABULARY, LENGTH, layers)
    tf.saved_model.save(network, str(folder), signatures={"serving_default": network.serving})
    return str(folder)


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts with the kind of each."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        kind = list(KINDS)[i % 2]
        words = [str(word) for word in rng.choice(FILLING, 5)]
        words += [str(word) for word in rng.choice(KINDS[kind], 3)]
        found.append((" ".join(rng.permutation(words)).capitalize() + ".", kind))
    return found


def write_table(path: Path, count: int = 80, seed: int = 0) -> Path:
    """Write a table with the columns text, label and split."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("text", "label", "split"))
        for i, (text, kind) in enumerate(sentences(count, seed)):
            table.writerow((text, kind, "test" if i % 4 > 1 else "train"))
    return path
