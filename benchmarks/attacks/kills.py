"""SIGKILL at random moments: in a run, an export, a prediction and the clearing of a cache.

Each try kills one command four times and then lets it end. What is there afterwards must be what an
unbroken command leaves, byte for byte, and the files of a person that lie beside it must all be
there.
"""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from PIL import Image
from savedmodels import save_reusable, tiny_network
from sklearn.datasets import load_sample_image

from tfxfer.cache import Cache

KILLS = 4
COMMANDS = ("frozen", "partial", "export", "predict", "clear")
SAME = ("labels.txt", "metrics.json", "predictions.csv", "probabilities.npz", "history.csv")
MINE = ("notes.txt", "data.csv", "model.npy", "old.tmp")


def prepare(folder: Path) -> Path:
    """Make photos, a network, and what each command leaves when nobody kills it.

    The seconds that each command takes are kept, too.
    """
    save_reusable(tiny_network(32), folder / "network")
    write_photos(folder)
    (folder / "seconds").mkdir()
    for command in COMMANDS:
        began = time.monotonic()
        subprocess.run(words(folder, command, folder / "whole"), check=True, capture_output=True)
        (folder / "seconds" / command).write_text(str(time.monotonic() - began))
    return folder


def write_photos(folder: Path) -> None:
    """24 photos of each of two classes, in photos/."""
    for name in ("china", "flower"):
        picture = Image.fromarray(load_sample_image(f"{name}.jpg"))
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(24):
            box = (10 * i, 8 * i, 10 * i + 90, 8 * i + 70)
            picture.crop(box).save(folder / "photos" / name / f"{i}.jpg")


def words(folder: Path, command: str, to: Path) -> list[str]:
    """The command line of one of the commands, with all that it writes below `to`."""
    tfxfer = [sys.executable, "-m", "tfxfer"]
    run = ["--data", str(folder / "photos"), "--backbone", str(folder / "network")]
    run += ["--cache", str(to / "cache"), "--resume", "--out", str(to / command)]
    if command == "frozen":
        return [*tfxfer, "run", "frozen", *run]
    if command == "partial":
        return [*tfxfer, "run", "partial", *run, "--epochs", "2"]
    finished = str(folder / "whole" / "frozen")
    if command == "export":
        return [*tfxfer, "export", finished, str(to / "export")]
    if command == "predict":
        photos = str(folder / "photos")
        return [*tfxfer, "predict", finished, photos, "--to", str(to / "predictions.csv")]
    return [*tfxfer, "cache", "--clear", "--cache", str(to / "cleared")]


def attack(folder: Path, number: int, seed: int) -> str:
    """Kill one command some times, let it end, and compare; returns what went wrong, or nothing."""
    draw = random.Random(f"{seed} {number}")
    command = COMMANDS[number % len(COMMANDS)]
    to = folder / "killed"
    shutil.rmtree(to, ignore_errors=True)
    mine = leave_files(to, command)
    if command == "clear":
        shutil.copytree(folder / "whole" / "cache", to / "cleared", dirs_exist_ok=True)
    seconds = float((folder / "seconds" / command).read_text())
    for _ in range(KILLS):
        kill(words(folder, command, to), draw.uniform(0.05, 1.0) * seconds)
        wrong = missing(mine) or half_written(folder, to, command)
        if wrong:
            return f"{command}, killed: {wrong}"
    done = subprocess.run(words(folder, command, to), capture_output=True, text=True)
    if done.returncode:
        return f"{command}: {done.stderr[-500:]}"
    return missing(mine) or different(folder, to, command)


def kill(command: list[str], after: float) -> None:
    """Start a command, and kill it after so many seconds if it lives."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def leave_files(to: Path, command: str) -> list[Path]:
    """Put a person's own files into every folder that the command writes into.

    One of these is a cache that is in use.
    """
    Cache(to / "cache")
    folders = [
        to / "cache",
        to / "cache" / "shards",
        to / "export",
        to / "cleared",
        to / "cleared" / "shards",
    ]
    left = []
    for place in folders:
        place.mkdir(parents=True, exist_ok=True)
        for name in MINE:
            (place / name).write_text(f"mine: {name}\n")
            left.append(place / name)
    (to / "predictions.csv").write_text("mine\n")
    return left


def missing(mine: list[Path]) -> str:
    """A person's files that are gone or changed."""
    gone = [
        path for path in mine if not path.is_file() or path.read_text() != f"mine: {path.name}\n"
    ]
    return f"a person's files are gone: {gone}" if gone else ""


def half_written(folder: Path, to: Path, command: str) -> str:
    """Return what a killed command left half-written where somebody else would read it."""
    if command == "predict":
        text = (to / "predictions.csv").read_bytes()
        if text not in (b"mine\n", (folder / "whole" / "predictions.csv").read_bytes()):
            return f"predictions.csv has {len(text)} bytes of neither the old nor the new file"
    if command == "export":
        expected = names_below(folder / "whole" / "export" / "1")
        for version in (path for path in (to / "export").iterdir() if path.name.isdigit()):
            if names_below(version) != expected:
                return f"{version} is not whole"
    if command in ("frozen", "partial") and (to / command / "manifest.json").is_file():
        return different(folder, to, command)
    return ""


def different(folder: Path, to: Path, command: str) -> str:
    """What an ended command left that an unbroken one does not leave."""
    whole = folder / "whole"
    if command in ("frozen", "partial"):
        names = [f"{command}/{name}" for name in SAME]
    elif command == "predict":
        names = ["predictions.csv"]
    elif command == "export":
        return "" if any(path.name.isdigit() for path in (to / "export").iterdir()) else "no export"
    else:
        kept = [path.name for path in (to / "cleared" / "shards").iterdir()]
        return f"not cleared: {kept}" if set(kept) != set(MINE) else ""
    apart = [name for name in names if (to / name).read_bytes() != (whole / name).read_bytes()]
    return f"other bytes: {apart}" if apart else ""


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
