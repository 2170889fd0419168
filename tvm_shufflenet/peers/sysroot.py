"""An arm64 Python for the emulated core: Debian's own packages, unpacked into the cache folder and never installed.

Nothing but an HTTPS connection is needed, so it works on any Linux. What is unpacked has the checksum that Debian's
index of packages gives.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..devices.native.cached_build import cached_build
from ..errors import ToolMissing
from .environments import Announce, clean_environment, peers_folder

DEBIAN = "https://deb.debian.org/debian"
RELEASE = "bookworm"
PYTHON = "3.11"
PACKAGES = (
    f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libc6", "libgcc-s1",
    "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libssl3", "libuuid1",
)  # fmt: skip
# Every glibc that a wheel for the sysroot's own (2.36) may ask for.
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)] + ["manylinux2014_aarch64"]
TIMEOUT_S = 300


def arm64_python(announce: Announce) -> Path:
    """The sysroot with ``usr/bin/python3.11``, made if necessary. Raises ToolMissing where Debian cannot be reached."""

    def build(folder: Path) -> None:
        announce(f"making an arm64 Python {PYTHON} from Debian's packages (once)")
        for package, entry in _index().items():
            for name, content in _files(_verified(package, entry)):
                _write(folder, name, content)

    return cached_build(str(peers_folder() / f"arm64-python-{RELEASE}"), [DEBIAN, RELEASE, *PACKAGES], build)


def arm64_packages(name: str, pins: tuple[str, ...], finish: Callable[[Path], None], announce: Announce) -> Path:
    """A folder with the aarch64 wheels of ``pins`` unpacked, for PYTHONPATH. Raises ToolMissing.

    ``finish`` is called with the folder once, before anyone else sees it.
    """

    def build(folder: Path) -> None:
        announce(f"fetching the aarch64 wheels of {', '.join(pins)} (once)")
        folder.mkdir()
        wheels = folder / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", PYTHON, *(word for name in PLATFORMS for word in ("--platform", name))]
        command += ["--disable-pip-version-check", "--dest", str(wheels), *pins]
        done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
        if done.returncode != 0:
            last_lines = "\n".join(done.stderr.strip().splitlines()[-5:])
            what = f"the aarch64 wheels of {', '.join(pins)} could not be fetched:\n{last_lines}"
            raise ToolMissing(what, "no network, or no pip in this environment", "run this again with a network")
        for wheel in wheels.iterdir():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            wheel.unlink()
        wheels.rmdir()
        finish(folder)

    return cached_build(str(peers_folder() / f"arm64-{name}"), [PYTHON, *pins], build)


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return answer.read()
    except OSError as exc:
        what = f"{url} could not be fetched: {exc}"
        raise ToolMissing(what, "no network", "run this again with a network, or leave the emulated peers out") from exc


def _index() -> dict[str, dict[str, str]]:
    """Package -> its entry in Debian's index."""
    text = lzma.decompress(_fetch(f"{DEBIAN}/dists/{RELEASE}/main/binary-arm64/Packages.xz")).decode()
    found = {}
    for paragraph in text.split("\n\n"):
        name = paragraph.partition("\n")[0].removeprefix("Package: ")
        if name in PACKAGES:
            fields = (line.partition(": ") for line in paragraph.splitlines() if not line.startswith(" "))
            found[name] = {key: value for key, _, value in fields}
    missing = [name for name in PACKAGES if name not in found]
    if missing:
        raise ToolMissing(
            f"Debian {RELEASE} has no {', '.join(missing)}", "the release was archived", "update this tool"
        )
    return found


def _verified(package: str, entry: dict[str, str]) -> bytes:
    data = _fetch(f"{DEBIAN}/{entry['Filename']}")
    if hashlib.sha256(data).hexdigest() != entry["SHA256"]:
        raise ToolMissing(f"{package} from {DEBIAN} is damaged", "a proxy changed it", "run this again")
    return data


def _files(deb: bytes) -> Iterator[tuple[str, bytes | str]]:
    """Path and content of each file of a Debian package; for a symbolic link its target, as text."""
    with tarfile.open(fileobj=io.BytesIO(_data_archive(deb))) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile() or member.islnk():
                yield name, archive.extractfile(member).read()
            elif member.issym():
                yield name, member.linkname


def _data_archive(deb: bytes) -> bytes:
    """The data.tar of a package, which is an ar archive: after 8 bytes, members with headers of 60."""
    position = 8
    while position < len(deb):
        header = deb[position : position + 60]
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            return deb[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
    raise ToolMissing("a Debian package holds no data.tar", "an unknown package format", "update this tool")


def _write(folder: Path, name: str, content: bytes | str) -> None:
    # Packages still bring /lib and /usr/lib, which are one folder.
    path = folder / ("usr/" + name if name.startswith("lib/") else name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if isinstance(content, str):
        path.symlink_to(content)
    else:
        path.write_bytes(content)
        path.chmod(0o755)
