"""An arm64 Python for the emulated core: Debian's own packages, unpacked into the cache folder and never installed.

Nothing but an HTTPS connection is needed, so it works on any Linux. What is unpacked has the SHA-256 that is written
down here.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import ToolMissing
from ..locks import locked
from ..support.cached_build import cached_build
from ..support.processes import run_installer
from .environments import Announce, clean_environment, peers_folder

# Debian's own mirrors, and the archive of what a later point release has taken off them.
MIRRORS = ("https://deb.debian.org/debian", "https://snapshot.debian.org/archive/debian/20261130T000000Z")
RELEASE = "bookworm"
PYTHON = "3.11"
# Path on a mirror -> SHA-256, of bookworm's arm64 packages: apt-cache show PACKAGE:arm64.
PACKAGES = {
    "pool/main/p/python3.11/python3.11-minimal_3.11.2-6+deb12u8_arm64.deb":
        "6a07dd571f1a15af2f855d64571766fe44b73a57cc3b5ca79502bc89156a5e12",
    "pool/main/p/python3.11/libpython3.11-minimal_3.11.2-6+deb12u8_arm64.deb":
        "c48bac178c0fc43a2bf8ace784c762b5ee83e2b981894a991dc3ccfd3ec7cd4b",
    "pool/main/p/python3.11/libpython3.11-stdlib_3.11.2-6+deb12u8_arm64.deb":
        "e79876de55c6c2dca10d044b2fa69ccd863950ea01714220c1982d16008105f9",
    "pool/main/g/glibc/libc6_2.36-9+deb12u14_arm64.deb":
        "01f4330719fd4f65580e16ea5a0527f372fca750e8f588d26deaf09f2d3b1cf4",
    "pool/main/g/gcc-12/libgcc-s1_12.2.0-14+deb12u1_arm64.deb":
        "576926b283613db80168ddf76380a3bd877602778cf0d226caa7bfbfa71eacf3",
    "pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1_arm64.deb":
        "26e138c677a985775331373828a6c286c551ff397cb735d00e2383cb273d1cb2",
    "pool/main/z/zlib/zlib1g_1.2.13.dfsg-1_arm64.deb":
        "52b8b8a145bbe1956bba82034f77022cbef0c3d0885c9e32d9817a7932fe1913",
    "pool/main/e/expat/libexpat1_2.5.0-1+deb12u2_arm64.deb":
        "8dc1976735acf825e3a922d82f171e20feec7394da2b8c616091983e38706275",
    "pool/main/libf/libffi/libffi8_3.4.4-1_arm64.deb":
        "80b5c36177dc0e29d531c7eddbed3cc7355cb490e49f8cfa5959572d161f27b3",
    "pool/main/b/bzip2/libbz2-1.0_1.0.8-5+b1_arm64.deb":
        "d3a96ece03326498b39ff093a76800dfcbcb1d4049d6ae6e9f6fa1aa7a590ad6",
    "pool/main/x/xz-utils/liblzma5_5.4.1-1+deb12u1_arm64.deb":
        "647ce9d81e41c30071ce6ac0d3324579216a33aaa1d28971d6952315f6a95a75",
    "pool/main/o/openssl/libssl3_3.0.20-1~deb12u2_arm64.deb":
        "a256e03cc3abd7243ac5c6ee91a9deb56478221ef0d3c2b0748551e13140c0bf",
    "pool/main/u/util-linux/libuuid1_2.38.1-5+deb12u3_arm64.deb":
        "3b2d19df0f3190108cf54228c4cfc822226c06d8f3615a5ab16a7dffb1f58aed",
}  # fmt: skip
PACKAGE_BYTES = 64 << 20
# Every glibc that a wheel for the sysroot's own (2.36) may ask for.
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)] + ["manylinux2014_aarch64"]
TIMEOUT_S = 300
GONE = 404


def arm64_python(announce: Announce) -> Path:
    """The sysroot with ``usr/bin/python3.11``, made if necessary. Raises ToolMissing where Debian cannot be reached."""

    def build(folder: Path) -> None:
        announce(f"making an arm64 Python {PYTHON} from Debian's packages (once)")
        for path, digest in PACKAGES.items():
            for name, content in _files(_verified(path, digest)):
                _write(folder, name, content)

    return cached_build(str(peers_folder() / f"arm64-python-{RELEASE}"), [RELEASE, *PACKAGES.values()], build)


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
        requirements = folder / "requirements.txt"
        requirements.write_text(locked("guest", pins))
        command += ["--disable-pip-version-check", "--dest", str(wheels)]
        command += ["--require-hashes", "--requirement", str(requirements)]
        failure = f"the aarch64 wheels of {', '.join(pins)} could not be fetched"
        run_installer(command, failure, "run this again with a network", env=clean_environment())
        for wheel in wheels.iterdir():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            wheel.unlink()
        wheels.rmdir()
        requirements.unlink()
        finish(folder)

    return cached_build(str(peers_folder() / f"arm64-{name}"), [PYTHON, locked("guest", pins)], build)


def _verified(path: str, digest: str) -> bytes:
    """A package of Debian's. Raises ToolMissing where it cannot be had, or is another than the one written down."""
    data = _fetch(path)
    if hashlib.sha256(data).hexdigest() != digest:
        name = path.rpartition("/")[2]
        raise ToolMissing(f"{name} is not the file that was locked", "a mirror or a proxy changed it", "run this again")
    return data


def _fetch(path: str) -> bytes:
    """From the first mirror that has it."""
    for mirror in MIRRORS:
        try:
            with urllib.request.urlopen(f"{mirror}/{path}", timeout=TIMEOUT_S) as answer:
                return answer.read(PACKAGE_BYTES)
        except urllib.error.HTTPError as exc:
            if mirror == MIRRORS[-1] or exc.code != GONE:
                raise _unreachable(f"{mirror}/{path}", exc) from exc
        except OSError as exc:
            raise _unreachable(f"{mirror}/{path}", exc) from exc
    raise AssertionError("no mirror")


def _unreachable(url: str, exc: Exception) -> ToolMissing:
    next_step = "run this again with a network, or leave the emulated peers out"
    return ToolMissing(f"{url} could not be fetched: {exc}", "no network", next_step)


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
