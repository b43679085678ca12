"""The key by which a user's own folders are told from a stranger's."""

import os
import stat

import pytest

from tfxfer.safety import ours


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "tfxfer" / "key"


def test_a_signature_holds_for_the_same_values_and_no_others(home):
    signature = ours.sign({"a": [1, 2.5, None], 3: "caf\udce9"})
    assert ours.is_signed({"3": "caf\udce9", "a": [1, 2.5, None]}, signature)
    assert not ours.is_signed({"3": "caf\udce9", "a": [1, 2.5]}, signature)
    for odd in (None, "", "é", 3, [signature]):
        assert not ours.is_signed({"a": 1}, odd)


def test_the_key_is_its_owners_alone(home):
    ours.sign(1)
    assert stat.S_IMODE(home.stat().st_mode) == 0o600 and home.stat().st_size == 32
    assert [path.name for path in home.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("fault", ["open to others", "cut short", "too long", "a link"])
def test_a_key_that_others_may_know_is_replaced(home, fault):
    signature = ours.sign(1)
    if fault == "open to others":
        home.chmod(0o644)
    elif fault == "a link":
        home.rename(home.with_name("elsewhere"))
        home.symlink_to(home.with_name("elsewhere"))
    else:
        home.write_bytes(b"x" * (31 if fault == "cut short" else 33))
    assert not ours.is_signed(1, signature)
    assert ours.is_signed(1, ours.sign(1))
    assert not ours.is_signed(1, signature)
    assert stat.S_IMODE(os.lstat(home).st_mode) == 0o600


def test_without_a_place_for_the_key_nothing_is_signed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert ours.sign(1) is None and not ours.is_signed(1, "0" * 64)


def test_another_user_has_another_key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "one"))
    signature = ours.sign(1)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "two"))
    assert not ours.is_signed(1, signature) and ours.sign(1) != signature
