"""Run folders that were changed at random, with hashes that fit and the signature of nobody.

One command is then run on each: it answers, or it ends with an error of tfxfer's own. Some of the
changes try to write a file, by a graph or by a pickle, which must never appear.
"""

import io
import json
import pickle
import random
import shutil
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import h5py
import numpy as np
from click.testing import CliRunner
from savedmodels import save_reusable, tiny_network
from tensorflow.core.framework.graph_pb2 import GraphDef

from attacks.kills import write_photos
from attacks.models import fill_constant, spoil
from tfxfer.cli import main
from tfxfer.distribute import parcel
from tfxfer.run import as_text, listed
from tfxfer.savedmodel import GRAPHS
from tfxfer.savedmodel.kept import digest_of

ODD = [None, True, -1, 0, 10**30, 1e308, "", "x", "../../canary/x", "/dev/zero", [], {}, [[]]]


def prepare(folder: Path) -> Path:
    """Photos, two finished runs of a small network, and the folder that nobody may touch."""
    (folder / "canary").mkdir()
    save_reusable(tiny_network(32), folder / "network")
    write_photos(folder)
    shutil.copytree(folder / "photos", folder / "few", ignore=shutil.ignore_patterns("1*", "2*"))
    tfxfer("run", "frozen", *common(folder), "--out", str(folder / "frozen"))
    tfxfer("run", "partial", *common(folder), "--epochs", "1", "--out", str(folder / "partial"))
    return folder


def common(folder: Path) -> list[str]:
    return ["--data", str(folder / "photos"), "--backbone", str(folder / "network")]


def tfxfer(*words: str) -> None:
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    if done.exit_code:
        raise RuntimeError(done.output)


def attack(folder: Path, number: int, seed: int) -> str:
    """Change one run and use it; returns what went wrong, or nothing."""
    draw = random.Random(f"{seed} {number}")
    changed = folder / "changed"
    for old in (changed, folder / "export"):
        shutil.rmtree(old, ignore_errors=True)
    recipe = draw.choice(["frozen", "partial"])
    shutil.copytree(folder / recipe, changed)
    canary = folder / "canary" / f"{number}"
    command, sought = draw.choice(COMMANDS)
    for _ in range(draw.choice([1, 1, 2])):
        change(changed, draw.choice(sought), canary, draw)
    make_fit(changed, unsigned=draw.random() < 0.9, finished="--resume" not in command)
    places = {"RUN": changed, "FEW": folder / "few", "PHOTOS": folder / "photos"}
    places |= {"OTHER": folder / recipe, "EXPORT": folder / "export"}
    words = [str(places.get(word, word)) for word in command]
    if words[0] == "run":
        words[1:1] = [recipe, *common(folder)]
    done = CliRunner().invoke(main, words)
    written = sorted(path.name for path in (folder / "canary").iterdir())
    if written:
        return f"{words[0]} wrote {written}"
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"{' '.join(words)}: {type(done.exception).__name__}: {done.exception}"
    return ""


# What is run, and the files of a run that it reads, the more telling ones more often.
MODEL = [*["model.keras"] * 8, "labels.txt", "settings.json", "settings.json", "doubt.npz"]
RESULTS = ["metrics.json", "settings.json", "predictions.csv", "review.json", "label_errors.csv"]
RESULTS += ["probabilities.npz", "labels.txt", "history.csv", "thumbnails.zip", "manifest.json"]
COMMANDS = [
    (["predict", "RUN", "FEW", "--top-k", "2"], MODEL),
    (["predict", "RUN", "FEW", "--unknown"], ["doubt.npz", *MODEL]),
    (["evaluate", "RUN", "--data", "PHOTOS"], MODEL),
    (["export", "RUN", "EXPORT"], MODEL),
    (["report", "RUN"], RESULTS),
    (["compare", "RUN", "OTHER"], RESULTS),
    (["run", "--out", "RUN", "--resume"], ["settings.json", "settings.json", *RESULTS]),
]


def make_fit(run: Path, unsigned: bool, finished: bool) -> None:
    """Write hashes that fit the changed files, as the sender of a folder would write them.

    A run that isn't finished loses its manifest.
    """
    if unsigned:
        try:
            settings = json.loads((run / "settings.json").read_text())
            settings.pop("signature", None)
            (run / "settings.json").write_text(as_text(settings))
        except (ValueError, AttributeError, TypeError):
            pass  # they are no settings any more
    if not finished:
        (run / "manifest.json").unlink()
        return
    try:
        manifest = json.loads((run / "manifest.json").read_text())
        fitting = {name: listed(run / name) for name in manifest if (run / name).is_file()}
        (run / "manifest.json").write_text(as_text(fitting))
    except (ValueError, AttributeError, TypeError):
        pass


# --- changes ---


def change(run: Path, name: str, canary: Path, draw: random.Random) -> None:
    """Change one file: by its kind most of the time, else some of its bytes."""
    path = run / name
    if not path.is_file():
        return
    by_kind = {
        ".json": change_json,
        ".npz": change_arrays,
        ".keras": change_model,
        ".csv": change_text,
        ".txt": change_text,
    }
    if draw.random() < 0.2 or path.suffix not in by_kind:
        spoil(path, draw)
        return
    try:
        by_kind[path.suffix](path, canary, draw)
    except (ValueError, KeyError, IndexError, OSError, RuntimeError, zipfile.BadZipFile):
        spoil(path, draw)  # an earlier change has left nothing that can be read


def change_json(path: Path, canary: Path, draw: random.Random) -> None:
    path.write_text(json.dumps(changed_value(json.loads(path.read_text()), draw)))


def changed_value(value: Any, draw: random.Random) -> Any:
    """Return the value with one odd value in it, with one value less, or nested very deeply."""
    place: Any = value
    while isinstance(place, dict | list) and place:
        key = draw.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or draw.random() < 0.2:
            kind = draw.choice(["odd", "odd", "odd", "other", "less", "deep"])
            if kind == "less":
                del place[key]
            elif kind == "other":
                place[key] = 7 if not isinstance(place[key], int) else 2 * place[key] + 1
            else:
                place[key] = draw.choice(ODD) if kind == "odd" else nested(900)
            return value
        place = place[key]
    return draw.choice(ODD)


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return open, (self.path, "w")


def change_arrays(path: Path, canary: Path, draw: random.Random) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    name = draw.choice(sorted(arrays))
    kind = draw.choice(["less", "shape", "type", "nan", "pickle", "large"])
    if kind == "less":
        del arrays[name]
    elif kind == "shape":
        arrays[name] = arrays[name][..., None][:-1]
    elif kind == "type":
        other = draw.choice(["S4", "c8", "U8", "?", "i1"])
        arrays[name] = np.zeros(arrays[name].shape, other)
    elif kind == "nan":
        arrays[name] = np.full(arrays[name].shape, np.nan)
    np.savez(path, **arrays)
    if kind == "pickle":
        replace_member(path, f"{name}.npy", npy(pickle.dumps(Bomb(canary)), "'|O'", (1,)))
    elif kind == "large":
        replace_member(path, f"{name}.npy", npy(bytes(64), "'<f4'", (10**6, 10**6)))


def npy(content: bytes, kind: str, shape: tuple[int, ...]) -> bytes:
    """Return an .npy file whose header need not fit its array."""
    buffer = io.BytesIO()
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    buffer.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    buffer.write(content)
    return buffer.getvalue()


def replace_member(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()} | {name: content}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, data in members.items():
            archive.writestr(each, data)


def change_model(path: Path, canary: Path, draw: random.Random) -> None:
    """Another configuration, graph or weights in the file of the model."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    kind = draw.choice(["config", "config", "layer", "graph", "graph", "weights"])
    if kind == "config":
        config = changed_value(config, draw)
    elif kind == "layer":
        hostile_layer(config, canary, draw)
    elif kind == "graph":
        weights = change_graphs(config, weights, canary, draw)
    else:
        aside = path.with_suffix(".h5")
        aside.write_bytes(weights)
        spoil(aside, draw)
        weights = aside.read_bytes()
        aside.unlink()
    replace_member(path, "config.json", json.dumps(config).encode())
    replace_member(path, "model.weights.h5", weights)


def hostile_layer(config: dict[str, Any], canary: Path, draw: random.Random) -> None:
    """A layer of another class, which reads or runs something as it is made."""
    layer = draw.choice(config["config"]["layers"])
    name = draw.choice(
        ["TFSMLayer", "Lambda", "Download", "StringLookup", "TextVectorization", "Dense"]
    )
    download = {
        "module": "keras.applications.imagenet_utils",
        "class_name": "function",
        "config": "decode_predictions",
        "registered_name": "decode_predictions",
    }
    own = {
        "TFSMLayer": {"filepath": str(canary.parent.parent / "network")},
        "Lambda": {"function": {"class_name": "__lambda__", "config": {"code": "4wA="}}},
        "Download": {"function": download},
        "StringLookup": {"vocabulary": "/etc/passwd"},
        "TextVectorization": {"vocabulary": "/etc/passwd"},
        "Dense": {"units": 10**9},
    }
    kind = "Lambda" if name == "Download" else name
    layer |= {"class_name": kind, "module": "keras.layers", "registered_name": None}
    layer["config"] = {"name": layer["config"].get("name", "x"), **own[name]}


def change_graphs(
    config: dict[str, Any], weights: bytes, canary: Path, draw: random.Random
) -> bytes:
    """Let the graph beside the weights write a file, or spoil it or what stands beside it.

    The digest in the configuration fits.
    """
    buffer = io.BytesIO(weights)
    with h5py.File(buffer, "r+") as file:
        places: list[str] = []
        file.visit(lambda name: places.append(name) if name.endswith(GRAPHS) else None)
        for place in places:
            values = parcel.unpack(zlib.decompress(file[place][()].tobytes()))
            if draw.random() < 0.3:
                changed_value(values, draw)
            else:
                graph = values["inference"]["graph"].tobytes()
                values["inference"]["graph"] = other_graph(graph, canary, draw)
            content = parcel.pack(values)
            del file[place]
            file[place] = np.frombuffer(zlib.compress(content), np.uint8)
            for layer in digested_in(config):
                layer["digest"] = digest_of(content)
    return buffer.getvalue()


def digested_in(value: Any) -> list[dict[str, Any]]:
    """Every part of a configuration that names the digest of a graph."""
    if isinstance(value, dict):
        own = [value] if "digest" in value else []
        return own + [found for each in value.values() for found in digested_in(each)]
    if isinstance(value, list):
        return [found for each in value for found in digested_in(each)]
    return []


def other_graph(content: bytes, canary: Path, draw: random.Random) -> np.ndarray:
    graph = GraphDef.FromString(content)
    node = draw.choice(graph.node)
    kind = draw.choice(["write", "write", "less", "operation", "bytes"])
    if kind == "write":
        fill_constant(graph.node.add(name="attack_name", op="Const"), str(canary))
        fill_constant(graph.node.add(name="attack_text", op="Const"), "x")
        graph.node.add(name="attack", op="WriteFile", input=["attack_name", "attack_text"])
        node.input.append("^attack")
    elif kind == "less" and node.input:
        del node.input[0]
    elif kind == "operation":
        node.op = draw.choice(["Relu", "ReadFile", "Identity", "Conv2D", "MatMul", "Mean"])
    data = np.frombuffer(graph.SerializeToString(), np.uint8).copy()
    if kind == "bytes":
        data[draw.randrange(len(data))] ^= 1
    return data


def change_text(path: Path, canary: Path, draw: random.Random) -> None:
    """A line less, twice, or with an odd cell."""
    lines = path.read_text().split("\n")
    at = draw.randrange(len(lines))
    kind = draw.choice(["less", "twice", "cell", "cell"])
    if kind == "less":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
    else:
        cells = lines[at].split(",")
        cells[draw.randrange(len(cells))] = draw.choice(
            ["", "nan", "1e999", "=1+1", "\x1b[31m", "../x", '"', "9" * 5000]
        )
        lines[at] = ",".join(cells)
    path.write_text("\n".join(lines))
