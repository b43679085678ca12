import contextlib
import errno
import gzip
import hashlib
import io
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hub_server import pack, serving

from tfxfer.errors import ArchiveError, HandleError
from tfxfer.handles import aside, checksum, folder, lite, resolve, tfhub
from tfxfer.handles.download import Pace, redirected
from tfxfer.limits import FREE_UNPACKED, MOST_HEADER, MOST_MEMBERS


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A real TF2 SavedModel with two variables and an asset."""
    place = tmp_path_factory.mktemp("saved")
    vocabulary = place / "words.txt"
    vocabulary.write_text("one\ntwo\n")
    root = tf.train.Checkpoint()
    root.kernel = tf.Variable(tf.random.stateless_normal((8 * 8 * 3, 64), (1, 2)), name="kernel")
    root.bias = tf.Variable(tf.zeros(64), name="bias")
    root.words = tf.saved_model.Asset(str(vocabulary))

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)])
    def call(images):
        return tf.reshape(images, (-1, 8 * 8 * 3)) @ root.kernel + root.bias

    root.__call__ = call
    tf.saved_model.save(root, str(place / "model"))
    return place / "model"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own; no settings of tensorflow_hub."""
    monkeypatch.setenv("TFXFER_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("TFHUB_CACHE_DIR", "TFHUB_MODEL_LOAD_FORMAT", "TFHUB_DOWNLOAD_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def server(saved):
    with serving(saved) as running:
        yield running


def works(path):
    return tf.saved_model.load(str(path))(tf.zeros((2, 8, 8, 3))).shape == (2, 64)


def message(handle, error=HandleError):
    with pytest.raises(error) as caught:
        resolve(handle)
    return str(caught.value)


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_is_used_where_it_lies(saved):
    source = resolve(str(saved))
    assert (source.path, source.handle, source.entry) == (saved, str(saved), None)


def test_a_path_object_is_a_path_even_where_its_name_is_in_the_catalog(
    saved, tmp_path, monkeypatch
):
    shutil.copytree(saved, tmp_path / "efficientnet-lite0")
    monkeypatch.chdir(tmp_path)
    assert resolve(Path("efficientnet-lite0")).entry is None


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    assert "gone/model does not exist; expected a SavedModel folder" in message(
        str(tmp_path / "gone/model")
    )


def test_a_folder_without_a_model_names_the_one_below_that_has_it(saved, tmp_path):
    assert "holds no saved_model.pb" in message(tmp_path)
    shutil.copytree(saved, tmp_path / "below")
    assert f"{tmp_path / 'below'} does: use that." in message(tmp_path)


def test_an_old_keras_file_is_told_from_a_savedmodel(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"\x89HDF")
    assert "old format; expected a .keras file" in message(str(tmp_path / "model.h5"))


def test_another_file_is_told_from_a_savedmodel(tmp_path):
    (tmp_path / "model.txt").write_text("hello")
    assert "is a file; expected a SavedModel folder" in message(str(tmp_path / "model.txt"))


def test_a_tf1_hub_module_is_refused(tmp_path):
    place = tmp_path / "module"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("v", (3,))
        session.run(tf.compat.v1.global_variables_initializer())
        builder = tf.compat.v1.saved_model.Builder(str(place))
        builder.add_meta_graph_and_variables(session, [])
        builder.save()
    (place / "tfhub_module.pb").write_bytes(b"\x08\x03")
    assert "TF1 Hub format (tfhub_module.pb), which can't be fine-tuned" in message(place)


def test_a_tf2_model_that_carries_a_tf1_marker_is_not_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "both")
    (tmp_path / "both/tfhub_module.pb").write_bytes(b"\x08\x03")
    assert resolve(tmp_path / "both").path == tmp_path / "both"


def damage(place, how):
    data = next((place / "variables").glob("variables.data*"))
    if how == "graph gone":
        (place / "saved_model.pb").unlink()
    elif how == "graph cut":
        (place / "saved_model.pb").write_bytes((place / "saved_model.pb").read_bytes()[:-100])
    elif how == "variables gone":
        shutil.rmtree(place / "variables")
    elif how == "index gone":
        (place / "variables/variables.index").unlink()
    elif how == "data gone":
        data.unlink()
    elif how == "data cut":
        data.write_bytes(data.read_bytes()[:-1000])
    elif how == "data flipped":
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif how == "asset gone":
        shutil.rmtree(place / "assets")
    return place


DAMAGES = {
    "graph cut": "saved_model.pb is cut off",
    "variables gone": "variables/variables.index is missing",
    "index gone": "variables/variables.index is missing",
    "data gone": "the values in variables/ can't be read (it holds variables.index",
    "data cut": "the values in variables/ can't be read",
    "data flipped": "Checksum does not match",
    "asset gone": "assets/words.txt is missing",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_folder_is_refused_with_what_is_wrong(saved, tmp_path, how):
    place = damage(shutil.copytree(saved, tmp_path / "model"), how)
    text = message(place)
    assert "is a damaged SavedModel" in text and DAMAGES[how] in text


# --- names ----------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest_names():
    text = message("eficientnet-lite0")
    assert (
        "'eficientnet-lite0' is neither a name in the catalog nor a folder here. "
        "The nearest names: efficientnet-lite0" in text
    )


def test_a_name_like_none_gets_the_command_that_lists_them():
    assert "nearest" not in message("qqqq") and "`tfxfer backbones` lists the names" in message(
        "qqqq"
    )


# --- archives -------------------------------------------------------------------------------------


def archived(place, *members, mode="w:gz"):
    """An archive of (name, content) and ready TarInfo members."""
    with tarfile.open(place, mode) as made:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                made.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                made.addfile(info, io.BytesIO(member[1]))
    return place


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_an_archive_is_unpacked_once_by_its_content(saved, tmp_path, cache):
    (tmp_path / "a.tar.gz").write_bytes(pack(saved))
    shutil.copy(tmp_path / "a.tar.gz", tmp_path / "b.tgz")
    first, second = resolve(tmp_path / "a.tar.gz"), resolve(str(tmp_path / "b.tgz"))
    assert (
        works(first.path) and first.path == second.path and first.path.parent == cache / "archives"
    )
    assert [p.name for p in (cache / "archives").iterdir()] == [first.path.name]


def test_an_archive_of_a_folder_leads_into_it(saved, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as made:
        made.add(saved, "my/model")
    assert works(resolve(tmp_path / "a.tar").path)


def test_a_damaged_unpacked_archive_is_unpacked_again(saved, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(pack(saved))
    path = resolve(tmp_path / "a.tar.gz").path
    for how in ("data cut", "graph gone"):
        damage(path, how)
        assert works(resolve(tmp_path / "a.tar.gz").path)


ATTACKS = {
    "climbs": (("../evil.txt", b"x"), "would leave the folder"),
    "climbs inside": (("a/../../evil.txt", b"x"), "would leave the folder"),
    "absolute": (("/evil.txt", b"x"), "would leave the folder"),
    "windows": (("..\\evil.txt", b"x"), "would leave the folder"),
    "symbolic link": (special("link", tarfile.SYMTYPE, "/etc"), "holds the link 'link' -> '/etc'"),
    "hard link": (
        special("link", tarfile.LNKTYPE, "/etc/passwd"),
        "holds the link 'link' -> '/etc/passwd'",
    ),
    "device": (special("null", tarfile.CHRTYPE), "neither a plain file nor a folder"),
    "pipe": (special("pipe", tarfile.FIFOTYPE), "neither a plain file nor a folder"),
    "no model": (
        ("readme.txt", b"x"),
        "it holds 0 folders with a saved_model.pb (none), expected one",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_that_reaches_out_is_refused_and_leaves_nothing(tmp_path, cache, attack):
    member, text = ATTACKS[attack]
    place = archived(tmp_path / "a.tar.gz", ("good.txt", b"x"), member)
    assert text in message(place, ArchiveError)
    assert not list((cache / "archives").iterdir()) and not list(tmp_path.rglob("evil*"))


def test_an_archive_that_holds_a_name_twice_is_refused(tmp_path):
    assert "twice" in message(
        archived(tmp_path / "a.tar.gz", ("a", b"x"), ("a", b"y")), ArchiveError
    )


def test_an_archive_that_swells_is_refused(tmp_path, cache):
    place = archived(tmp_path / "a.tar.gz", ("zeros", bytes(FREE_UNPACKED + 1)))
    assert "unpacks to more than 64 MiB" in message(place, ArchiveError)
    assert not list((cache / "archives").iterdir())


def test_an_archive_whose_headers_swell_is_refused(tmp_path):
    place = archived(tmp_path / "a.tar.gz", ("a" * (MOST_HEADER + 1), b""))
    assert f"{MOST_HEADER:,}" in message(place, ArchiveError)


@pytest.mark.long
def test_an_archive_of_too_many_files_is_refused(tmp_path, cache):
    folders = [special("d", tarfile.DIRTYPE)] * (MOST_MEMBERS + 1)
    place = archived(tmp_path / "a.tar.gz", *folders)
    assert f"more than {MOST_MEMBERS:,} files" in message(place, ArchiveError)
    assert not list((cache / "archives").iterdir())


def test_an_archive_that_was_cut_off_is_refused(saved, tmp_path, cache):
    content = pack(saved)
    for until in (len(content) // 2, len(content) - 4):
        (tmp_path / "a.tar.gz").write_bytes(content[:until])
        assert "is damaged or cut off" in message(tmp_path / "a.tar.gz", ArchiveError)
    assert not list((cache / "archives").iterdir())


def test_an_archive_of_half_a_model_is_refused(saved, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(pack(saved, leave_out="variables.data"))
    assert "is no archive of a whole SavedModel: the values in variables/ can't be read" in message(
        tmp_path / "a.tar.gz", ArchiveError
    )


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"hello" * 1000)
    assert "is damaged or cut off" in message(tmp_path / "a.tar.gz", ArchiveError)
    assert "does not exist; expected a .tar.gz" in message(str(tmp_path / "b.tar.gz"), ArchiveError)


def test_a_full_disk_is_said_and_leaves_nothing(saved, tmp_path, cache):
    (tmp_path / "a.tar.gz").write_bytes(pack(saved))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        text = message(tmp_path / "a.tar.gz", ArchiveError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "can't be unpacked into" in text and os.strerror(errno.EFBIG) in text
    assert not list((cache / "archives").iterdir())


def test_a_cache_below_a_regular_file_is_said(saved, tmp_path, monkeypatch):
    (tmp_path / "a.tar.gz").write_bytes(pack(saved))
    monkeypatch.setenv("TFXFER_CACHE_DIR", str(tmp_path / "a.tar.gz"))
    assert "Choose another folder for the cache with TFXFER_CACHE_DIR" in message(
        tmp_path / "a.tar.gz"
    )


def test_two_that_publish_at_once_leave_one_whole_folder(saved, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(saved, tmp_path / name)
        aside.publish(tmp_path / name, tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"] and works(tmp_path / "model")


def test_a_whole_folder_that_another_process_put_there_is_not_removed(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "model")
    folder.set_aside(tmp_path / "model", "what was wrong a moment ago")
    assert works(tmp_path / "model") and len(list(tmp_path.iterdir())) == 1


HEX = "0123456789ab"


@pytest.mark.parametrize(
    "name, marked, old, goes",
    [
        (f"{'a' * 32}.{HEX}.tmp", True, True, True),
        (f"{'a' * 40}.{HEX}.tmp", True, True, True),
        (f"{'a' * 40}.{'b' * 32}.tmp", True, True, True),
        (f"efficientnet-lite0-2-{'a' * 16}.{HEX}.tmp", True, True, True),
        (f"{'a' * 32}.{HEX}.tmp", True, False, False),
        (f"{'a' * 32}.{HEX}.tmp", False, True, False),
        ("thesis.tmp", False, True, False),
        ("thesis.tmp", True, True, False),
        (f"thesis.{HEX}.tmp", True, True, False),
    ],
)
def test_what_killed_processes_left_is_swept_after_a_day_and_nothing_else(
    tmp_path, name, marked, old, goes
):
    (tmp_path / name).mkdir()
    (tmp_path / name / (aside.MARK if marked else "chapter1")).touch()
    if old:
        os.utime(tmp_path / name, (0, 0))
    with aside.beside(tmp_path / "model"):
        assert (tmp_path / name).exists() is not goes
    assert len(list(tmp_path.iterdir())) == (0 if goes else 1)


def test_a_link_with_the_name_of_an_unfinished_folder_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / aside.MARK).touch()
    os.utime(tmp_path / "mine", (0, 0))
    link = tmp_path / "cache" / f"{'a' * 32}.{HEX}.tmp"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "mine")
    os.utime(link, (0, 0), follow_symlinks=False)
    with aside.beside(link.parent / "model"):
        pass
    assert (tmp_path / "mine" / aside.MARK).exists()


# --- the web --------------------------------------------------------------------------------------


def module_dir(where, handle):
    """Where tensorflow_hub keeps a handle."""
    return where / hashlib.sha1(handle.encode()).hexdigest()


@pytest.mark.long
@pytest.mark.parametrize(
    "path", ["model", "model.tar.gz", "redirect", "half-once", "without-weights-once"]
)
def test_a_url_is_fetched_into_the_cache_once(server, cache, path):
    server.requests.clear()
    handle = f"{server.url}/{path}"
    source = resolve(handle)
    asked = server.requests.total()
    assert works(source.path) and source.path == module_dir(cache / "tfhub", handle)
    assert resolve(handle).path == source.path and server.requests.total() == asked


def test_the_cache_folder_of_tensorflow_hub_is_honoured(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "chosen"))
    assert resolve(f"{server.url}/model").path.parent == tmp_path / "chosen"
    assert os.environ["TFHUB_CACHE_DIR"] == str(tmp_path / "chosen")


def test_no_setting_is_left_behind(server):
    resolve(f"{server.url}/model")
    assert "TFHUB_CACHE_DIR" not in os.environ and socket.getdefaulttimeout() is None


def test_the_download_progress_of_tensorflow_hub_is_honoured(server, monkeypatch, capsys):
    monkeypatch.setenv("TFHUB_DOWNLOAD_PROGRESS", "1")
    resolve(f"{server.url}/model")
    assert "Total size" in capsys.readouterr().out


def test_the_load_format_of_tensorflow_hub_is_honoured(server, monkeypatch):
    monkeypatch.setenv("TFHUB_MODEL_LOAD_FORMAT", "UNCOMPRESSED")
    assert "answers 200; expected 303" in message(f"{server.url}/model")


@pytest.mark.long
@pytest.mark.parametrize("how", ["graph gone", *DAMAGES])
def test_a_cache_folder_that_is_not_whole_is_healed(server, cache, how):
    path = resolve(f"{server.url}/model").path
    damage(path, how)
    assert works(resolve(f"{server.url}/model").path)
    assert sorted(p.name for p in (cache / "tfhub").iterdir()) == [
        path.name,
        f"{path.name}.descriptor.txt",
    ]


def test_a_download_that_never_arrives_whole_is_given_up_after_two(server, cache):
    server.requests.clear()
    assert (
        "was fetched twice and did not arrive whole: the values in variables/ can't be read"
        in message(f"{server.url}/without-weights")
    )
    assert server.requests["without-weights"] == 2
    assert not list((cache / "tfhub").iterdir())


@pytest.mark.parametrize("path", ["half", "hang-up"])
def test_a_server_that_dies_half_way_is_said(server, cache, path):
    assert "did not arrive whole: the connection broke off" in message(f"{server.url}/{path}")
    assert not list((cache / "tfhub").iterdir())


def test_an_answer_of_404_is_said(server):
    text = message(f"{server.url}/google/none/1")
    assert "the server answers 404 (Not Found). Check the name and the version at its end" in text


def test_an_answer_of_403_is_said(server):
    assert "the server answers 403 (Forbidden). The model may need an account" in message(
        f"{server.url}/forbidden"
    )


def test_a_web_page_is_told_from_a_model(server):
    assert "something other than an archive of a SavedModel, perhaps a web page" in message(
        f"{server.url}/page"
    )


HASTY = Pace(silence=0.5, rate=1024, window=0.3, whole=0.8, size=20 * 1024**2)


@pytest.mark.long
@pytest.mark.parametrize(
    "path",
    [
        "drip",
        "drip-header",
        "silent",
        "endless",
        "endless-continue",
        "endless-redirect",
        "large",
        "round",
        "to-file",
        "to-ftp",
        "to-gs",
        "to-nowhere",
    ],
)
def test_a_server_that_would_never_end_or_leads_elsewhere_is_given_up(server, cache, path):
    handle = f"{server.url}/{path}"
    began = time.monotonic()
    with pytest.raises(HandleError, match=re.escape(handle)):
        tfhub.fetch(handle, pace=HASTY)
    assert time.monotonic() - began < 5
    assert not list((cache / "tfhub").iterdir())


def test_a_redirect_from_https_to_http_is_refused():
    with pytest.raises(HandleError, match="http://b/y"):
        redirected("https://a/x", "https://a/x", "http://b/y")
    assert redirected("http://a/x", "http://a/x", "https://b/y") == "https://b/y"
    assert redirected("https://a/x", "https://a/x", "/y") == "https://a/y"


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_from_the_web_is_refused_as_one_from_disk(server, tmp_path, cache, attack):
    member, text = ATTACKS[attack]
    place = archived(tmp_path / "a.tar.gz", ("good.txt", b"x"), member)
    server.archives["attack"] = place.read_bytes()
    assert text in message(f"{server.url}/attack")
    assert not list((cache / "tfhub").iterdir()) and not list(tmp_path.rglob("evil*"))


BOMBS = {
    "zeros": lambda: [("zeros", bytes(FREE_UNPACKED + 1))],
    "long name": lambda: [("a" * (MOST_HEADER + 1), b"")],
    "members": lambda: [special("d", tarfile.DIRTYPE)] * (MOST_MEMBERS + 1),
    "holes": lambda: [special("holes", tarfile.GNUTYPE_SPARSE)],
    "newer holes": lambda: [with_holes()],
}


def with_holes():
    """A file that claims a size of 1 TB, by the headers that GNU tar writes today."""
    info = tarfile.TarInfo("GNUSparseFile.0/zeros")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "zeros",
        "GNU.sparse.realsize": str(10**12),
    }
    return info


@pytest.mark.long
@pytest.mark.parametrize("way", ["disk", "web"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_from_disk_and_from_the_web(server, tmp_path, cache, bomb, way):
    place = archived(tmp_path / "a.tar.gz", *BOMBS[bomb](), mode="w:gz")
    server.archives["bomb"] = place.read_bytes()
    message(place if way == "disk" else f"{server.url}/bomb", ArchiveError)
    assert not [path for path in cache.rglob("*") if path.parent != cache]


def mutated(content: bytes, seed: int) -> bytes:
    """Return an archive with a few bytes changed, a part taken out, or its end cut off.

    With an odd seed, the archive is unpacked, changed and packed again.
    """
    rng = np.random.default_rng(seed)
    raw = bytearray(gzip.decompress(content) if seed % 2 else content)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(raw)))
        how = rng.integers(4)
        if how == 0:
            raw[start] = rng.integers(256)
        elif how == 1:
            del raw[start : start + int(rng.integers(1, 600))]
        elif how == 2:
            header = start // 512 * 512
            raw[header : header + 157] = rng.bytes(157)
        else:
            raw = raw[: start + 1]
    return gzip.compress(bytes(raw), 1) if seed % 2 else bytes(raw)


@pytest.mark.parametrize("way", ["disk", "web"])
@pytest.mark.parametrize("seed", range(8))
def test_a_mutated_archive_is_a_model_or_a_handle_error(server, saved, tmp_path, cache, seed, way):
    server.archives["mutated"] = mutated(server.whole, seed)
    (tmp_path / "a.tar.gz").write_bytes(server.archives["mutated"])
    handle = str(tmp_path / "a.tar.gz") if way == "disk" else f"{server.url}/mutated"
    with contextlib.suppress(HandleError):
        resolve(handle)
    assert {path.name for path in tmp_path.iterdir()} <= {"a.tar.gz", "cache"}
    assert not list(cache.rglob("*.tmp"))


# --- hashes ---------------------------------------------------------------------------------------


@pytest.fixture
def handles(server, saved, tmp_path):
    """Kind of handle -> a handle, and its SHA-256 by `sha256sum`."""
    (tmp_path / "a.tar.gz").write_bytes(server.whole)
    archive_hash = hashlib.sha256(server.whole).hexdigest()
    listed = subprocess.run(
        (
            "find saved_model.pb assets variables -type f -print0 2>/dev/null | LC_ALL=C sort -z | "
            "xargs -0 sha256sum | sha256sum"
        ),
        shell=True,
        cwd=saved,
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "url": (f"{server.url}/model", archive_hash),
        "archive": (str(tmp_path / "a.tar.gz"), archive_hash),
        "folder": (str(saved), listed.stdout.split()[0]),
        "name": ("efficientnet-lite0", lite.WEIGHTS["lite0"]),
    }


KINDS = pytest.mark.parametrize("kind", ["url", "archive", "folder", "name"])


@pytest.mark.parametrize("kind", ["url", "archive", "folder"])
def test_a_handle_with_its_hash_is_the_handle_without(handles, kind):
    handle, digest = handles[kind]
    source = resolve(f"{handle}#sha256={digest}")
    assert source.sha256 == digest == resolve(handle).sha256
    assert source.path == resolve(handle).path


@KINDS
def test_a_handle_with_another_hash_is_refused_and_nothing_stays(handles, cache, kind):
    handle, digest = handles[kind]
    text = message(f"{handle}#sha256={'0' * 64}")
    assert digest in text and "0" * 64 in text
    assert not [path for path in cache.rglob("*") if path.is_file()]


@KINDS
@pytest.mark.parametrize("fragment", ["", "sha256", "sha256=", "sha256=12", "sha1=" + "0" * 64])
def test_a_fragment_that_is_none_is_refused(handles, kind, fragment):
    handle, _ = handles[kind]
    assert f"#{fragment}" in message(f"{handle}#{fragment}")


def test_a_folder_with_a_hash_sign_in_its_name_is_a_folder(saved, tmp_path):
    place = shutil.copytree(saved, tmp_path / "my#1")
    assert resolve(str(place)).path == place
    assert resolve(f"{place}#sha256={checksum.of_folder(saved)}").path == place


def test_a_folder_that_was_in_the_cache_without_its_hash_is_fetched_to_compare(server, cache):
    handle = f"{server.url}/model"
    path = resolve(handle).path
    tfhub.descriptor(path).unlink()
    assert resolve(handle).sha256 is None
    digest = hashlib.sha256(server.whole).hexdigest()
    assert resolve(f"{handle}#sha256={digest}").sha256 == digest == resolve(handle).sha256


def test_a_url_that_leads_to_another_content_later_is_refused(server, saved, tmp_path, cache):
    server.archives["changing"] = server.whole
    handle = f"{server.url}/changing"
    first = resolve(handle)
    other = shutil.copytree(saved, tmp_path / "other")
    (other / "more.txt").write_text("more")
    server.archives["changing"] = pack(other)
    assert resolve(handle).sha256 == first.sha256
    shutil.rmtree(first.path)
    text = message(handle)
    digest = hashlib.sha256(server.archives["changing"]).hexdigest()
    assert first.sha256 in text and f"#sha256={digest}" in text
    assert not first.path.exists()
    assert resolve(f"{handle}#sha256={digest}").sha256 == digest
    assert resolve(handle).sha256 == digest


def test_another_content_is_taken_where_its_hash_is_asked_for(server, saved, tmp_path, cache):
    server.archives["renewed"] = server.whole
    handle = f"{server.url}/renewed"
    path = resolve(handle).path
    other = shutil.copytree(saved, tmp_path / "other")
    (other / "more.txt").write_text("more")
    server.archives["renewed"] = pack(other)
    digest = hashlib.sha256(server.archives["renewed"]).hexdigest()
    assert resolve(f"{handle}#sha256={digest}").path == path
    assert (path / "more.txt").exists()


@pytest.mark.parametrize(
    "url, told",
    [
        ("http://example.org/model", True),
        ("http://127.0.0.1:1/model", False),
        ("http://localhost/model", False),
        ("http://[::1]/model", False),
        ("https://example.org/model", False),
    ],
)
def test_a_handle_without_encryption_is_said_in_one_line(said, url, told):
    tfhub.warn_of_http(url, "")
    tfhub.warn_of_http(url, "0" * 64)
    assert len(said) == told
    assert all(url in line for line in said)


# --- odd paths ------------------------------------------------------------------------------------

ODD = ["kx[1]", "a*", "what?", "back\\slash", os.fsdecode(b"caf\xe9"), "{a}", "#", "a b"]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_folder_with_an_odd_name_is_read(saved, tmp_path, name):
    place = shutil.copytree(saved, tmp_path / name / name)
    assert resolve(str(place)).path == place
    assert works(folder.plain_path(place))


@pytest.mark.long
@pytest.mark.parametrize("name", ODD, ids=ascii)
@pytest.mark.parametrize("kind", ["url", "archive"])
def test_a_cache_with_an_odd_name_works(handles, tmp_path, monkeypatch, name, kind):
    monkeypatch.setenv("TFXFER_CACHE_DIR", str(tmp_path / name))
    path = resolve(handles[kind][0]).path
    assert tmp_path / name in path.parents
    assert works(folder.plain_path(path))


def test_a_plain_path_is_left_as_it_is(tmp_path):
    assert folder.plain_path(tmp_path) == tmp_path


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.index", "assets/words.txt"]
)
def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(saved, tmp_path, name):
    place = shutil.copytree(saved, tmp_path / "model")
    (place / name).unlink()
    os.mkfifo(place / name)
    assert str(place) in message(place)


def test_no_network_is_said():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = message(f"http://127.0.0.1:{port}/model")
    assert (
        "no connection to the server" in text
        and "Is this computer online? `efficientnet-lite0` needs no connection." in text
    )


NUMBER = "c" * 32


def dead_process() -> int:
    """The number of a process that has ended."""
    dead = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    dead.wait()
    return dead.pid


def test_the_lock_of_a_dead_download_is_not_waited_for(server, cache):
    handle = f"{server.url}/model"
    where = module_dir(cache / "tfhub", handle)
    where.parent.mkdir(parents=True)
    Path(f"{where}.lock").write_text(f"{socket.gethostname()}.{dead_process()}.{NUMBER}")
    Path(f"{where}.{NUMBER}.tmp").mkdir()
    assert works(resolve(handle).path)
    assert sorted(p.name for p in where.parent.iterdir()) == [
        where.name,
        f"{where.name}.descriptor.txt",
    ]


def test_the_lock_of_a_living_download_is_left_alone(tmp_path):
    lock = tmp_path / "model.lock"
    lock.write_text(f"{socket.gethostname()}.{os.getpid()}.{NUMBER}")
    tfhub.forget_dead_download(tmp_path / "model")
    assert lock.exists()


@pytest.mark.parametrize("number", ["abc", "../../thesis", ""])
def test_a_lock_that_is_none_of_ours_removes_nothing(tmp_path, number):
    (tmp_path / "model.lock").write_text(f"{socket.gethostname()}.{dead_process()}.{number}")
    (tmp_path / f"model.{Path(number).name}.tmp").mkdir()
    tfhub.forget_dead_download(tmp_path / "model")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_downloader_that_is_killed_while_others_wait_is_noticed(server, cache):
    handle = f"{server.url}/model"
    where = module_dir(cache / "tfhub", handle)
    where.parent.mkdir(parents=True)
    holder = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    Path(f"{where}.lock").write_text(f"{socket.gethostname()}.{holder.pid}.{NUMBER}")
    threading.Timer(0.3, lambda: (holder.kill(), holder.wait())).start()
    began = time.monotonic()
    assert works(resolve(handle).path)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("text", [f"elsewhere.1.{NUMBER}", ""])
def test_a_download_that_stands_still_is_taken_over(server, cache, text):
    handle = f"{server.url}/model"
    where = module_dir(cache / "tfhub", handle)
    where.parent.mkdir(parents=True)
    Path(f"{where}.lock").write_text(text)
    assert works(tfhub.fetch(handle, pace=Pace(standstill=0.2))[0])


def test_waiting_for_another_download_ends(server, cache):
    handle = f"{server.url}/model"
    where = module_dir(cache / "tfhub", handle)
    where.parent.mkdir(parents=True)
    lock = Path(f"{where}.lock")
    lock.write_text(f"elsewhere.1.{NUMBER}")
    with pytest.raises(HandleError, match=re.escape(str(lock))):
        tfhub.fetch(handle, pace=Pace(whole=0.2))
    assert lock.exists()


def test_a_remote_folder_is_copied_once_and_healed(saved, cache):
    path, digest = tfhub.copy(str(saved))
    assert works(path) and path.parent == cache / "copies"
    assert digest == checksum.of_folder(saved)
    damage(path, "data gone")
    assert works(tfhub.copy(f"{saved}/")[0])


def test_a_remote_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(
        HandleError, match="can't be copied into the cache: Could not find directory"
    ):
        tfhub.copy(str(tmp_path / "gone"))


@pytest.mark.long
def test_a_remote_folder_of_too_many_files_is_not_copied(tmp_path, cache):
    for number in range(MOST_MEMBERS + 1):
        (tmp_path / "many" / f"{number // 1000}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "many" / f"{number // 1000}" / f"{number}").touch()
    with pytest.raises(HandleError, match=f"{MOST_MEMBERS:,}"):
        tfhub.copy(str(tmp_path / "many"))
    assert not (cache / "copies").exists()
