"""Makes a Chromium to be run out of the npm package @sparticuz/chromium, for machines where none can be installed.

python tests/page/unpack_chromium.py PACKAGE.tgz FOLDER      leaves FOLDER/chromium, which brings its own libraries
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import brotli

_START = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$here/lib:$LD_LIBRARY_PATH" exec "$here/headless_shell" "$@"
"""


def unpack(package: Path, folder: Path) -> Path:
    """Unpack the browser and its libraries; the command that starts it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(package) as outer:
        for member in outer:
            opened = outer.extractfile(member)
            if opened is None or not member.name.endswith(".br"):
                continue
            data = brotli.decompress(opened.read())
            if member.name.endswith(".tar.br"):
                with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                    inner.extractall(folder, filter="data")
            else:
                _write(folder / "headless_shell", data)
    return _write(folder / "chromium", _START.encode())


def _write(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    file.chmod(0o755)
    return file


if __name__ == "__main__":
    sys.stdout.write(f"{unpack(Path(sys.argv[1]), Path(sys.argv[2]))}\n")
