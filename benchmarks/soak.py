"""Killed and resumed, again and again: python benchmarks/soak.py [--kills 20] [--data FOLDER]

Runs `tfxfer run frozen` once unbroken. Then the same with an empty cache is killed by SIGKILL at random moments, `--kills` times, spread over the whole of
an unbroken run (extraction, heads, writing the folder), and resumed after each; whenever a run ends whole, a new one begins with an empty cache.
Expected: every run ends with the same bytes as the unbroken one in metrics.json, predictions.csv, labels.txt and the arrays of probabilities.npz and
model.keras, and with the same features in the cache. Exit 1 where it does not.
"""

import argparse
import io
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np

from tfxfer.cache import Cache

SAME = ("metrics.json", "predictions.csv", "labels.txt")


def words(data: str, out: Path, cache: Path) -> list[str]:
    return [sys.executable, "-m", "tfxfer", "run", "frozen", "--data", data, "--out", str(out), "--cache", str(cache), "--resume"]


def model_bytes(path: Path) -> dict[str, bytes]:
    """Config and weights of a .keras file; the archive itself, its metadata and HDF5 hold times."""
    with zipfile.ZipFile(path) as archive:
        found = {"config.json": archive.read("config.json")}
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            weights.visititems(lambda name, item: found.update({name: item[()].tobytes()} if isinstance(item, h5py.Dataset) else {}))
    return found


def rows(folder: Path) -> dict[tuple[str, str], bytes]:
    """Every cached row by key and content."""
    found = {}
    cache = Cache(folder)
    with cache._database() as database:
        for key, description in database.execute("select id, description from keys").fetchall():
            for digest, shard, row in database.execute("select digest, shard, row from rows where key = ?", (key,)).fetchall():
                (file,) = database.execute("select file from shards where id = ?", (shard,)).fetchone()
                found[description, digest] = np.load(folder / "shards" / file, mmap_mode="r")[row].tobytes()
    return found


def differences(out: Path, cache: Path, other: Path, other_cache: Path) -> list[str]:
    found = [name for name in SAME if (out / name).read_bytes() != (other / name).read_bytes()]
    with np.load(out / "probabilities.npz") as a, np.load(other / "probabilities.npz") as b:
        found += [f"probabilities.npz {name}" for name in a.files if not np.array_equal(a[name], b[name])]
    found += ["model.keras"] if model_bytes(out / "model.keras") != model_bytes(other / "model.keras") else []
    return found + (["cached features"] if rows(cache) != rows(other_cache) else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, whole_cache, out, cache = (Path(scratch) / name for name in ("whole", "whole-cache", "out", "cache"))
        began = time.monotonic()
        subprocess.run(words(options.data, whole, whole_cache), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        length = time.monotonic() - began
        print(f"unbroken: {length:.1f} s")
        kills = ended = failed = 0
        while kills < options.kills or out.exists():
            process = subprocess.Popen(words(options.data, out, cache), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            # Start-up holds nothing to lose: the moments lie behind it. The last run is left alone.
            wait = rng.uniform(0.15, 1.0) * length if kills < options.kills else None
            try:
                _, errors = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                files = sorted(p.name for p in out.iterdir()) if out.exists() else []
                print(f"kill {kills:2d} after {wait:5.1f} s, in the folder: {', '.join(files) or 'nothing'}", flush=True)
                continue
            if process.returncode:
                print(errors)
                return 1
            ended += 1
            if wrong := differences(whole, whole_cache, out, cache):
                failed = 1
            print(f"  ended whole after {kills} kills: {'different: ' + ', '.join(wrong) if wrong else 'the same bytes'}", flush=True)
            shutil.rmtree(out)
            shutil.rmtree(cache)
        print(f"{kills} kills, {ended} runs ended whole, {'some different' if failed else 'all with the same bytes'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
