"""Classes and examples that are added to a finished run: the head is that of a run on all."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import crops, jpeg
from PIL import Image, ImageOps
from savedmodels import save_reusable, tiny_network

import tfxfer
from tfxfer import heads, report, serving
from tfxfer.cli import main
from tfxfer.data.union import add_examples, load_more
from tfxfer.errors import DataError, RunError
from tfxfer.heads import growable
from tfxfer.heads.statistics import add, gather, gaussian_of, ridge_of, widen
from tfxfer.recipe import find
from tfxfer.run import listed, open_run
from tfxfer.safety.arrays import read_arrays

WIDTHS = (6, 10, 24)


# --- statistics ---


def examples(n: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 40] that are correlated and never negative, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    hidden = rng.normal(0, 1, (classes, 5))[labels] + 0.8 * rng.normal(0, 1, (n, 5))
    x = hidden @ rng.normal(0, 1, (5, sum(WIDTHS))) + rng.normal(0, 1, (n, sum(WIDTHS))) + 1
    return np.maximum(x, 0).astype(np.float32), labels


def assert_same_logits(fitted, expected, x) -> None:
    """The same within 1e-5, on the scale of calibrated logits: the largest is 10."""
    theirs = expected.logits(x)
    unit = np.abs(theirs).max() / 10
    np.testing.assert_allclose(fitted.logits(x) / unit, theirs / unit, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(6, 8), (10, 60), (60, 10), (60, 60)])
def test_statistics_that_are_added_give_the_head_of_all_examples(old, new):
    x, _ = examples(old + new, classes=4)
    place = np.arange(len(x))
    labels = np.where(place < old, place % 2, place % 4)  # two classes are new
    first = gather(x[:old], labels[:old], 2, WIDTHS)
    both = add(widen(first, 4), gather(x[old:], labels[old:], 4, WIDTHS))
    assert_same_logits(gaussian_of(both), heads.gaussian(x, labels, 4, WIDTHS), x)
    fitted = heads.ridge(x, labels, 4, WIDTHS, strength=0.3)
    assert_same_logits(ridge_of(both, 0.3), fitted, x)
    assert both.counts.tolist() == np.bincount(labels).tolist()


def test_the_order_of_additions_does_not_matter():
    x, labels = examples(90)
    parts = [gather(x[i::3], labels[i::3], 4, WIDTHS) for i in range(3)]
    forwards = add(add(parts[0], parts[1]), parts[2])
    backwards = add(parts[2], add(parts[1], parts[0]))
    assert_same_logits(gaussian_of(forwards), gaussian_of(backwards), x)


def test_few_examples_are_kept_as_they_are_and_many_as_sums():
    x, labels = examples(60)
    few, many = gather(x[:20], labels[:20], 4, WIDTHS), gather(x, labels, 4, WIDTHS)
    assert few.features.shape == (20, 40) and few.sums is None
    assert many.features is None and many.sums.count == 60


def test_a_class_without_examples_is_never_named():
    x, labels = examples(60)
    fitted = gaussian_of(widen(gather(x, labels, 4, WIDTHS), 5))
    assert fitted.logits(x)[:, 4].max() < fitted.logits(x)[:, :4].min()


def test_statistics_of_other_taps_are_not_added():
    x, labels = examples(60)
    with pytest.raises(ValueError, match="24"):
        add(gather(x, labels, 4, WIDTHS), gather(x, labels, 4, WIDTHS[-1:]))


def kept(n: int, **options) -> growable.Growable:
    """What a run keeps of n examples."""
    x, labels = examples(n)
    facts = {"head": "gaussian", "temperature": 2.5, "prior": True, "strength": 0.0} | options
    return growable.Growable(
        statistics=gather(x, labels, 4, WIDTHS), network="0a", digests=("ab" * 32,) * n, **facts
    )


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize("head", ["gaussian", "ridge"])
def test_a_head_that_was_saved_is_the_same(n, head, tmp_path):
    before = kept(n, head=head, strength=0.5)
    before.save(str(tmp_path / "statistics.npz"))
    after = growable.load(tmp_path / "statistics.npz")
    x, _ = examples(n)
    np.testing.assert_array_equal(after.fit().logits(x), before.fit().logits(x))
    assert (after.network, after.digests) == (before.network, before.digests)


@pytest.mark.parametrize(
    ("n", "change"),
    [
        (20, {"labels": np.full(20, 4)}),
        (20, {"labels": np.zeros(20)}),
        (20, {"features": np.full((20, 40), np.nan, np.float32)}),
        (20, {"features": np.zeros((20, 39), np.float32)}),
        (20, {"widths": np.array([40, 0])}),
        (20, {"temperature": np.array(np.nan)}),
        (20, {"strength": np.array(-1.0)}),
        (20, {"head": np.array("linear")}),
        (60, {"gram": np.zeros(7)}),
        (60, {"total": np.full(40, np.inf)}),
        (60, {"products": np.zeros((40, 5))}),
        (60, {"targets": np.array([15.0, 15.0, 15.5, 14.5])}),
        (60, {"targets": np.array([30.0, 31.0, -1.0, 0.0])}),
        (60, {"count": np.array(61)}),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(n, change, tmp_path):
    path = tmp_path / "statistics.npz"
    kept(n).save(str(path))
    np.savez(path, **{**read_arrays(path), **change})
    with pytest.raises(RunError, match="statistics.npz"):
        growable.load(path)


# --- runs ---


def write_photos(root: Path, label: str, pictures: list[Image.Image]) -> None:
    """A third of the pictures into test/, the others into train/."""
    for i, picture in enumerate(pictures):
        folder = root / ("train" if i % 3 else "test") / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{label}{i:02d}.jpg").write_bytes(jpeg(picture))


def inverted(count: int, seed: int) -> list[Image.Image]:
    return [ImageOps.invert(one) for one in crops("china.jpg", count, seed)]


@pytest.fixture(scope="module")
def old_photos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("old") / "photos"
    for label, seed in (("china", 1), ("flower", 2)):
        write_photos(root, label, crops(f"{label}.jpg", 30, seed))
    return root


@pytest.fixture(scope="module")
def new_photos(tmp_path_factory) -> Path:
    """Photos of one class that is new."""
    root = tmp_path_factory.mktemp("new") / "more"
    write_photos(root, "inverse", inverted(18, 3))
    return root


@pytest.fixture(scope="module")
def make_run(tmp_path_factory, old_photos, tiny_savedmodel):
    """Make runs on copies of the old photos, each head once; returns the run and its photos."""
    made: dict[tuple, tuple[Path, Path]] = {}

    def make(head: str, recipe: str = "frozen", **options) -> tuple[Path, Path]:
        key = (head, recipe, *options.items())
        if key not in made:
            root = tmp_path_factory.mktemp("run")
            shutil.copytree(old_photos, root / "photos")
            run = tfxfer.Run(root / "run", cache=str(root / "cache"))
            function = find(recipe)
            function(run, data=str(root / "photos"), backbone=tiny_savedmodel, head=head, **options)
            made[key] = (root / "run", root / "photos")
        return made[key]

    return make


@pytest.fixture(scope="module")
def without_old(make_run, tmp_path_factory):
    """Make copies of a run whose photos and cached features are gone."""

    def make(head: str) -> Path:
        folder, _ = make_run(head, mirror="no")
        root = tmp_path_factory.mktemp("lone")
        open_run(folder).copy_to(root / "lone")
        settings = json.loads((root / "lone" / "settings.json").read_text())
        settings["data"]["value"] = str(root / "no longer there")
        settings["cache"]["value"] = str(root / "empty cache")
        put(root / "lone", "settings.json", json.dumps(settings).encode())
        return root / "lone"

    return make


@pytest.fixture(scope="module")
def grown_alone(without_old, new_photos) -> tuple[Path, Path, str]:
    """A Gaussian without its photos, the run that it grew to, and what was printed."""
    folder = without_old("gaussian")
    out = folder.parent / "grown"
    return folder, out, done("grow", folder, "--data", new_photos, "--out", out)


@pytest.fixture(scope="module")
def grown_with_old(make_run, new_photos) -> tuple[Path, Path]:
    """A Gaussian that has its photos, and the run that it grew to."""
    folder, _ = make_run("gaussian", mirror="no")
    out = folder.parent / "grown"
    assert "Grown" in done("grow", folder, new_photos, "--out", out)
    return folder, out


def done(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a finished run, in its manifest, too."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[name] = listed(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def settings_of(folder: Path) -> dict:
    return {name: one["value"] for name, one in open_run(folder).settings().items()}


def notes_of(folder: Path) -> str:
    return " ".join(json.loads((folder / "review.json").read_text())["notes"])


def features_of(folder: Path, *sources: Path) -> tuple[tfxfer.features.Features, np.ndarray]:
    """The features of the training photos of several folders, by the run's network."""
    network = serving.load_model(folder / "model.keras").layers
    (backbone,) = [layer for layer in network if isinstance(layer, tfxfer.Backbone)]
    kind = open_run(folder).kind()
    both = load_more(sources[0], kind=kind)
    for source in sources[1:]:
        both = add_examples(both, load_more(source, kind=kind))
    both = both.take(both.where("train"))
    features = tfxfer.features.extract(
        both,
        backbone.prefix(len(backbone.stages)),
        cache=tfxfer.Cache(folder.parent / "other cache"),
        progress=False,
    )
    return features, both.labels


@pytest.mark.long
def test_a_gaussian_grows_without_the_old_photos_to_that_of_a_run_on_all(
    grown_alone, make_run, new_photos
):
    folder, grown, _ = grown_alone
    assert open_run(grown).classes() == ["china", "flower", "inverse"]
    kept = growable.load(grown / "statistics.npz")
    assert kept.statistics.sums is not None
    features, labels = features_of(folder, make_run("gaussian", mirror="no")[1], new_photos)
    fitted = heads.gaussian(features, labels, 3, kept.statistics.widths)
    shares = np.log(np.bincount(labels) / len(labels)) * kept.prior
    expected = fitted.logits(features) / kept.temperature + shares - shares.mean()
    model = serving.load_model(grown / "model.keras")
    logits = model.layers[-1](features[np.arange(len(labels))][:, -sum(fitted.widths) :]).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.long
def test_the_calibration_of_sums_is_older_than_the_new_class_and_says_so(grown_alone, new_photos):
    folder, grown, output = grown_alone
    for text in (output, notes_of(grown), settings_of(grown)["calibration"]):
        assert "older than the class inverse" in text
    before, after = (growable.load(one / "statistics.npz") for one in (folder, grown))
    assert after.temperature == before.temperature
    assert settings_of(grown)["old_examples"] == "not used"
    assert set(np.load(grown / "probabilities.npz")["splits"]) == {"test"}
    with pytest.raises(tfxfer.TfxferError, match="sets"):
        list(serving.predict(grown, [new_photos], sets=0.9))


@pytest.mark.long
def test_with_the_old_photos_it_is_calibrated_on_all_and_judged_on_both_test_parts(
    grown_with_old, make_run, new_photos
):
    folder, grown = grown_with_old
    _, photos = make_run("gaussian", mirror="no")
    settings, chosen = settings_of(grown), settings_of(folder)["chosen_heads"]
    assert settings["grown_from"] == str(folder) and settings["old_examples"] == "used"
    features, labels = features_of(folder, photos, new_photos)
    expected = heads.choose(features, labels, 3, features.tap_widths, kept=chosen)
    model = serving.load_model(grown / "model.keras")
    width = sum(expected.fitted.widths)
    logits = model.layers[-1](features[np.arange(len(labels))][:, -width:]).numpy()
    np.testing.assert_allclose(logits, expected.fitted.logits(features), atol=1e-5)
    assert json.loads((grown / "metrics.json").read_text())["test"]["n"] == 20 + 6
    assert (grown / "doubt.npz").is_file()


@pytest.mark.long
def test_a_run_is_compared_with_the_one_that_it_grew_to(grown_with_old):
    folder, grown = grown_with_old
    header, first, second, common = report.compare_runs([folder, grown])
    metrics = [json.loads((one / "metrics.json").read_text()) for one in (folder, grown)]
    assert first[header.index("accuracy")] == f"{metrics[0]['test']['accuracy']:.3f}"
    assert "20 test photos" in common[0] and "inverse" in common[0]
    arrays = read_arrays(grown / "probabilities.npz")
    old = (arrays["splits"] == "test") & (arrays["labels"] < 2)
    right = (arrays["probabilities"].argmax(1) == arrays["labels"])[old]
    assert second[header.index("accuracy")] == f"{right.mean():.3f}"


@pytest.mark.long
def test_training_photos_of_a_run_that_grew_from_sums_are_recognised(grown_alone, make_run, caplog):
    _, grown, _ = grown_alone
    _, photos = make_run("gaussian", mirror="no")
    with caplog.at_level("INFO", "tfxfer"):
        serving.judge(grown, photos / "train")
    assert "trained on 40 of these 40" in caplog.text


@pytest.mark.long
@pytest.mark.parametrize("head", ["linear", "auto"])
def test_other_heads_grow_on_cached_features_where_the_photos_are_gone(
    head, make_run, new_photos, tmp_path
):
    folder, photos = make_run(head, mirror="no")
    photos.rename(tmp_path / "away")
    try:
        grown = tfxfer.grow(folder, new_photos, out=tmp_path / "grown").folder
    finally:
        (tmp_path / "away").rename(photos)
    assert settings_of(grown)["chosen_heads"] == settings_of(folder)["chosen_heads"]
    assert settings_of(grown)["old_examples"] == "used"
    assert json.loads((grown / "metrics.json").read_text())["test"]["n"] == 20 + 6


@pytest.mark.long
def test_linear_without_old_features_says_what_to_do(without_old, new_photos, tmp_path):
    with pytest.raises(RunError, match="no longer there.*--cache.*--head gaussian"):
        tfxfer.grow(without_old("linear"), new_photos, out=tmp_path / "grown")
    assert not (tmp_path / "grown").exists()


@pytest.mark.long
def test_ridge_grows_without_the_old_photos(without_old, make_run, new_photos, tmp_path):
    folder = without_old("ridge")
    grown = tfxfer.grow(folder, new_photos, out=tmp_path / "grown").folder
    kept = growable.load(grown / "statistics.npz")
    features, labels = features_of(folder, make_run("ridge", mirror="no")[1], new_photos)
    fitted = heads.ridge(features, labels, 3, kept.statistics.widths, strength=kept.strength)
    expected = fitted.logits(features) / kept.temperature
    np.testing.assert_allclose(kept.fit().logits(features), expected, atol=1e-5)


@pytest.mark.long
def test_a_grown_run_grows_again_to_what_all_at_once_give(grown_alone, new_photos, tmp_path):
    folder, one, _ = grown_alone
    write_photos(tmp_path / "third", "mirrored", [ImageOps.flip(one) for one in inverted(15, 5)])
    both = tmp_path / "both"
    for source in (new_photos, tmp_path / "third"):
        shutil.copytree(source, both, dirs_exist_ok=True)
    two = tfxfer.grow(one, tmp_path / "third", out=tmp_path / "two").folder
    once = tfxfer.grow(folder, both, out=tmp_path / "once").folder
    again, direct = (growable.load(one / "statistics.npz") for one in (two, once))
    assert open_run(two).classes() == open_run(once).classes()
    x = np.random.default_rng(0).uniform(size=(30, sum(again.statistics.widths)))
    x = x.astype(np.float32)
    np.testing.assert_allclose(again.fit().logits(x), direct.fit().logits(x), atol=1e-5)
    assert set(again.digests) == set(direct.digests)


@pytest.mark.long
def test_few_photos_are_calibrated_out_of_fold_from_the_run_alone(
    tmp_path, tiny_savedmodel, new_photos
):
    for label, seed in (("china", 1), ("flower", 2)):
        write_photos(tmp_path / "few", label, crops(f"{label}.jpg", 7, seed))
    write_photos(tmp_path / "more", "inverse", inverted(7, 3))
    run = tfxfer.Run(tmp_path / "run", cache=str(tmp_path / "cache"))
    options = {"backbone": tiny_savedmodel, "head": "gaussian", "mirror": "no"}
    find("frozen")(run, data=str(tmp_path / "few"), **options)
    (tmp_path / "few").rename(tmp_path / "away")
    grown = tfxfer.grow(
        tmp_path / "run", tmp_path / "more", out=tmp_path / "grown", cache=str(tmp_path / "empty")
    ).folder
    before, after = (growable.load(one / "statistics.npz") for one in (tmp_path / "run", grown))
    assert after.statistics.features is not None
    assert after.temperature != before.temperature and "calibration" not in settings_of(grown)
    assert set(np.load(grown / "probabilities.npz")["splits"]) == {"train", "test"}


@pytest.mark.long
def test_more_photos_of_a_class_and_copies_of_old_ones(make_run, tmp_path):
    folder, photos = make_run("gaussian", mirror="no")
    write_photos(tmp_path / "more", "china", crops("china.jpg", 9, 7))
    old = sorted((photos / "train" / "china").iterdir())[0]
    shutil.copy(old, tmp_path / "more" / "train" / "china" / "copy.jpg")
    grown = tfxfer.grow(folder, tmp_path / "more", out=tmp_path / "grown").folder
    assert open_run(grown).classes() == ["china", "flower"]
    assert "copy.jpg" in notes_of(grown)
    counts = growable.load(grown / "statistics.npz").statistics.counts
    assert counts.tolist() == [20 + 6, 20]
    assert "20 test photos" in done("compare", folder, grown)


@pytest.mark.long
def test_photos_that_the_run_knows_already_are_nothing_new(make_run, tmp_path):
    folder, photos = make_run("gaussian", mirror="no")
    with pytest.raises(DataError, match="60 of 60"):
        tfxfer.grow(folder, photos, out=tmp_path / "grown")


@pytest.mark.long
def test_features_of_another_network_are_refused_by_both_fingerprints(
    without_old, new_photos, tmp_path
):
    folder = without_old("gaussian")
    arrays = read_arrays(folder / "statistics.npz")
    other = tfxfer.Backbone(
        save_reusable(tiny_network(seed=5, activation="relu"), tmp_path / "other"), trainable=False
    )
    fingerprint = other.prefix(len(other.stages)).fingerprint
    content = io.BytesIO()
    np.savez(content, **{**arrays, "network": np.array(fingerprint)})
    put(folder, "statistics.npz", content.getvalue())
    with pytest.raises(RunError) as refused:
        tfxfer.grow(folder, new_photos, out=tmp_path / "grown")
    for one in (fingerprint, str(arrays["network"])):
        assert one[:12] in str(refused.value)


@pytest.mark.long
def test_a_model_of_another_network_is_refused(make_run, without_old, new_photos, tmp_path):
    folder = without_old("gaussian")
    settings = json.loads((folder / "settings.json").read_text())
    settings["backbone_fingerprint"]["value"] = "f" * 64
    put(folder, "settings.json", json.dumps(settings).encode())
    with pytest.raises(RunError, match="f" * 12):
        tfxfer.grow(folder, new_photos, out=tmp_path / "grown")


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "said"),
    [({"recipe": "partial"}, "partial"), ({"chosen_head": None, "chosen_heads": None}, "gaussian")],
)
def test_a_run_that_cannot_grow_is_told(change, said, without_old, new_photos, tmp_path):
    folder = without_old("gaussian")
    settings = json.loads((folder / "settings.json").read_text())
    for name, value in change.items():
        settings[name]["value"] = value
    put(folder, "settings.json", json.dumps(settings).encode())
    with pytest.raises(RunError, match=said):
        tfxfer.grow(folder, new_photos, out=tmp_path / "grown")


@pytest.mark.long
def test_mirror_images_are_used_as_the_run_used_them(make_run, new_photos, tmp_path):
    folder, photos = make_run("gaussian", mirror="yes")
    photos.rename(tmp_path / "away")
    try:
        grown = tfxfer.grow(folder, new_photos, out=tmp_path / "grown", cache=str(tmp_path / "c"))
    finally:
        (tmp_path / "away").rename(photos)
    with tfxfer.Cache(tmp_path / "c")._database() as database:
        views = {
            json.loads(row[0]).get("view")
            for row in database.execute("select description from keys")
        }
    assert {0, 1} <= views
    names = [layer.name for layer in serving.load_model(grown.path("model.keras")).layers]
    assert "mirror" in names


@pytest.mark.long
def test_every_command_works_on_a_grown_run(grown_with_old, make_run, new_photos, tmp_path):
    _, grown = grown_with_old
    _, photos = make_run("gaussian", mirror="no")
    photo = next((new_photos / "test" / "inverse").iterdir())
    assert "inverse" in done("predict", grown, photo, "--sets", 0.9)
    assert "n = 26" in done("evaluate", grown, "--data", photos)  # its own photos, old and new
    assert "n = 6" in done("evaluate", grown, "--data", new_photos)
    assert "grown" in done("report", grown)
    done("export", grown, tmp_path / "served")
    done("next", grown, new_photos, "--count", 2)
    assert "tfxfer grow" in (grown / "MODEL_CARD.md").read_text()


@pytest.mark.long
def test_the_new_photos_are_given_once_and_the_run_is_not_overwritten(make_run, new_photos):
    folder, _ = make_run("gaussian", mirror="no")
    done("grow", folder, new_photos, "--data", new_photos, code=2)
    done("grow", folder, code=2)
    output = done("grow", folder, new_photos, "--out", folder, "--overwrite", code=1)
    assert str(folder) in output and open_run(folder)


@pytest.mark.long
def test_a_head_that_is_trained_in_epochs_cannot_grow(make_run, new_photos, tmp_path):
    folder, _ = make_run("cosine", epochs=1)
    with pytest.raises(RunError, match="cosine"):
        tfxfer.grow(folder, new_photos, out=tmp_path / "grown")
