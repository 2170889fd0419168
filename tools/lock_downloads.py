"""Writes the locks of what is downloaded at first use: every package with its version and the SHA-256 of its files.

``python tools/lock_downloads.py`` needs a network and uv. Run it after a change of TVM's version or of the pins in
tvm_shufflenet/peers (environments.py, catalogue.py). Debian's packages are locked by hand in sysroot.py there:
``apt-cache show PACKAGE:arm64`` has their hashes.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from tvm_shufflenet.locks import FOLDER
from tvm_shufflenet.peers.catalogue import PEERS
from tvm_shufflenet.peers.environments import PINS
from tvm_shufflenet.support import toolchain

# PyTorch and what it needs come from this tool's own environment. uv does not look at a package's newest Python.
OVERRIDES = "torch ; sys_platform == 'never'\nbackports-strenum==1.2.8\n"
ELSEWHERE = re.compile(r"sys_platform == '(never|win32|emscripten)'")
OLDEST = {"litert": "3.10", "ncnn": "3.10", "runtime": "3.10"}  # else what the packages themselves take
HEADER = "# Made by tools/lock_downloads.py.\n"


def main() -> None:
    guests = sorted({pin for peer in PEERS.values() for pin in peer.guest_pins})
    runtime = (f"apache-tvm=={toolchain.TVM_VERSION}", f"apache-tvm-ffi=={toolchain.FFI_VERSION}")
    for name, pins in (*PINS.items(), ("guest", guests), ("runtime", runtime)):
        alone = name in ("guest", "runtime")
        (FOLDER / f"{name}.txt").write_text(HEADER + without_others(compiled(name, pins, alone)))


def compiled(name: str, pins: tuple[str, ...], alone: bool) -> str:
    with tempfile.TemporaryDirectory() as folder:
        wanted, override = Path(folder, "in.txt"), Path(folder, "override.txt")
        wanted.write_text("\n".join(pins))
        override.write_text(OVERRIDES)
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--no-build", "--generate-hashes", "--no-header"]
        command += ["--no-annotate", "--python-version", OLDEST.get(name, "3.11"), str(wanted)]
        command += ["--no-deps"] if alone else ["--override", str(override)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def without_others(text: str) -> str:
    """Without what no Linux installs."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)
    return "".join(each for each in entries if not ELSEWHERE.search(each.partition("\n")[0]))


if __name__ == "__main__":
    main()
