"""The figures of the results folder as parts of the page: fewer colours, the same picture, a third of the bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from suite.errors import InputError, Problem
from suite.report.descriptions import DESCRIPTION

# Lines, letters and their soft edges; the colour scale of a heat map still looks even.
_COLOURS = 128


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure: ``data`` is a data URI, empty where the page had no room for it; ``text`` says what is seen."""

    file: str
    text: str
    width: int
    height: int
    data: Markup


def load_pictures(folder: Path, room: int) -> list[Picture]:
    """The PNG files of a folder by name, embedded as long as they fit into ``room`` bytes together.

    Raises:
        InputError: a file is no picture.
    """
    found = []
    for path in sorted(folder.glob("[!.]*.png")):
        picture = _load(path)
        if len(picture.data) > room:
            picture = Picture(picture.file, picture.text, picture.width, picture.height, Markup())
        room -= len(picture.data)
        found.append(picture)
    return found


def _load(path: Path) -> Picture:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            text = str(image.info.get(DESCRIPTION) or f"The figure {path.stem}, drawn without a description.")
            buffer = io.BytesIO()
            image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG")
            size = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        reason = "is no PNG picture, or a damaged one; remove it, or draw it again with `suite report --figures`"
        raise InputError(Problem(reason, str(path))) from None
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(path.name, text, *size, Markup("data:image/png;base64,") + data)
