import errno
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

import pytest
import tensorflow as tf
from hub_server import pack, serving

from tfxfer.errors import ArchiveError, HandleError
from tfxfer.handles import checksum, folder, resolve, tfhub
from tfxfer.handles.download import Pace
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


# --- folders ----------------------------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_a_keras_file_is_told_from_a_savedmodel(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x89HDF")
    assert "is a Keras model file; expected a SavedModel folder" in message(str(tmp_path / name))
    assert "model.export" in message(tmp_path)


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


# --- names ------------------------------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest_names():
    text = message("eficientnet-lite0")
    assert (
        "'eficientnet-lite0' is neither a name in the catalog nor a folder here. The nearest names: efficientnet-lite0"
        in text
    )


def test_a_name_like_none_gets_the_command_that_lists_them():
    assert "nearest" not in message("qqqq") and "`tfxfer backbones` lists the names" in message(
        "qqqq"
    )


# --- archives ---------------------------------------------------------------------------------------------------------------------------------


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


def test_an_archive_of_too_many_files_is_refused(tmp_path, cache):
    folders = (special(f"d{i}", tarfile.DIRTYPE) for i in range(MOST_MEMBERS + 1))
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
        folder.publish(tmp_path / name, tmp_path / "model")
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
    (tmp_path / name / (folder.MARK if marked else "chapter1")).touch()
    if old:
        os.utime(tmp_path / name, (0, 0))
    with folder.beside(tmp_path / "model"):
        assert (tmp_path / name).exists() is not goes
    assert len(list(tmp_path.iterdir())) == (0 if goes else 1)


def test_a_link_with_the_name_of_an_unfinished_folder_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / folder.MARK).touch()
    os.utime(tmp_path / "mine", (0, 0))
    link = tmp_path / "cache" / f"{'a' * 32}.{HEX}.tmp"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "mine")
    os.utime(link, (0, 0), follow_symlinks=False)
    with folder.beside(link.parent / "model"):
        pass
    assert (tmp_path / "mine" / folder.MARK).exists()


# --- the web ----------------------------------------------------------------------------------------------------------------------------------


def module_dir(where, handle):
    """Where tensorflow_hub keeps a handle."""
    return where / hashlib.sha1(handle.encode()).hexdigest()


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


def test_no_network_is_said():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = message(f"http://127.0.0.1:{port}/model")
    assert (
        "no connection to the server" in text
        and "Is there a network? `efficientnet-lite0` needs none." in text
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


def test_a_remote_folder_of_too_many_files_is_not_copied(tmp_path, cache):
    for number in range(MOST_MEMBERS + 1):
        (tmp_path / "many" / f"{number // 1000}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "many" / f"{number // 1000}" / f"{number}").touch()
    with pytest.raises(HandleError, match=f"{MOST_MEMBERS:,}"):
        tfhub.copy(str(tmp_path / "many"))
    assert not (cache / "copies").exists()
