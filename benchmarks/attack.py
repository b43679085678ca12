"""Changes files at random and looks at what they can do to tfxfer.

    python benchmarks/attack.py [--only NAME ...] [--seed N] [--images N ...]

    images    10,000 files of all formats, changed at random: the check, the decoder and the
              exported graph agree, and what is too large is never decoded
    models    500 SavedModels, changed at random, a quarter of them with an operation that writes
              a file
    runs      500 run folders, changed at random, with hashes that fit: opened, predicted,
              reported, exported
    archives  200 archives of SavedModels, from disk and over HTTP, some of them bombs
    kills     100 SIGKILLs of frozen, partial, export, predict and cache --clear: the same bytes
              afterwards, nothing half-written, and all files of a person that lie beside them

Each attack runs in child processes on files that it makes itself, and reaches no address but
127.0.0.1. A try goes wrong where the process crashes, takes 2 GiB or hangs (ten seconds and what
the command itself needs), where an error is not one of tfxfer's own, or where a file that is not
the command's appears, changes or is gone.

Expected: no try goes wrong. Exit 1 where one does.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfxfer does, for all that is compared here
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from attacks import kills, watch

TRIES = {"images": 10_000, "models": 500, "runs": 500, "archives": 200, "kills": 100}
# Seconds beyond ten that one try may take: it starts processes, or reads a whole network.
MORE = {"images": 0.0, "models": 20.0, "runs": 60.0, "archives": 20.0, "kills": 600.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TRIES, default=list(TRIES))
    parser.add_argument("--seed", type=int, default=0)
    for name, count in TRIES.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    options = parser.parse_args()
    wrong = 0
    for name in options.only:
        count = getattr(options, name)
        tries = -(-count // kills.KILLS) if name == "kills" else count
        with tempfile.TemporaryDirectory(prefix="tfxfer-attack-") as folder:
            os.environ["TFXFER_CACHE_DIR"] = str(Path(folder) / "tfxfer-cache")
            began = time.monotonic()
            importlib.import_module(f"attacks.{name}").prepare(Path(folder))
            failures = watch.tried(name, Path(folder), tries, options.seed, MORE[name])
        for line in failures:
            print(f"  {line}")
        seconds = time.monotonic() - began
        print(f"{name}: {count:,} tries, {len(failures)} went wrong, {seconds:,.0f} s", flush=True)
        wrong += len(failures)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
