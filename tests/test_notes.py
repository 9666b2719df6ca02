"""Notes on images reach the user with the input's name, from files, directories and pipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import process, smooth_image
from .image_files import saved

PAGES = [Image.fromarray(smooth_image(24, 32, seed)) for seed in range(3)]
NOTED = {
    "a.tif": (saved(PAGES[0], "TIFF", save_all=True, append_images=PAGES[1:]), "3 images, the first is taken"),
    "b.jpg": (saved(PAGES[0], "JPEG")[:-2], "the JPEG end marker is missing; all pixels are there"),
}


@pytest.mark.parametrize("name", NOTED)
@pytest.mark.parametrize("kind", ["file", "directory", "pipe"])
def test_notes_name_the_input(name: str, kind: str, tmp_path: Path) -> None:
    data, message = NOTED[name]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    path.write_bytes(data)
    if kind == "pipe":
        ran = process("compress", "-", "-o", "-", data=data)
        given = "-"
    else:
        ran = process("compress", path if kind == "file" else path.parent, "-o", tmp_path / "out")
        given = str(path)
    assert ran.returncode == 0
    assert f"dcu: {given}: note: {message}" in ran.stderr.decode().splitlines()


def test_libraries_print_no_lines_of_their_own(tmp_path: Path) -> None:
    """A damaged TIFF: one line, of dcu, where libtiff and Pillow have more to say."""
    values = np.add.outer(np.arange(96), np.arange(160)).astype(np.uint8)
    data = bytearray(saved(np.dstack([values] * 3), "TIFF", compression="tiff_lzw"))
    for at in range(50, 400, 60):
        data[at] ^= 0x55
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    ran = process("compress", path, "-o", tmp_path / "a.bin")
    assert ran.returncode == 65
    (line,) = ran.stderr.decode().splitlines()
    assert line.startswith(f"dcu: {path}: damaged TIFF image")
