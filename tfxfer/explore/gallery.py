"""The files to label next as one page that shows each of them."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2

from tfxfer.explore.next_labels import Pick
from tfxfer.files import read_regular, replaced
from tfxfer.inputs import Kind
from tfxfer.safety.names import one_line


def write_gallery(picks: Sequence[Pick], to: str | os.PathLike[str], kind: Kind) -> None:
    """Write an HTML page that needs no other file and no network.

    Raises:
        OSError: the page can't be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    contents = [content_of(one, kind) for one in picks]
    shown = [
        {
            "file": one_line(one.file),
            "picture": picture_of(content, kind),
            "excerpt": kind.excerpt(content),
            "why": one.why,
            "answers": [
                (one_line(one.predicted), f"{100 * one.probability:.0f} %"),
                (one_line(one.second), f"{100 * one.probability_2:.0f} %"),
            ],
        }
        for one, content in zip(picks, contents, strict=True)
    ]
    text = environment.get_template("gallery.html.j2").render(picks=shown)
    with replaced(to) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def content_of(pick: Pick, kind: Kind) -> bytes:
    """Return the content of an example, from its file or from its cell of a table."""
    if pick.cell is not None:
        return pick.cell.encode()
    return kind.readable(read_regular(pick.file), pick.file)


def picture_of(content: bytes, kind: Kind) -> str | None:
    """Return a small picture as a data URL; None if the kind has none."""
    small = kind.preview(content)
    return None if small is None else "data:image/jpeg;base64," + base64.b64encode(small).decode()
