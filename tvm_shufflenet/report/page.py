"""A report as one self-contained HTML page, readable from a file:// address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from ..errors import BadInput
from ..support.files import write_output
from .sections import Section

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """``headline`` is the figure that somebody came for, ``facts`` what it depends on, ``plan`` what was compiled."""

    title: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    plan: str
    sections: Sequence[Section]

    def html(self, stem: str) -> str:
        """The page; ``stem`` begins the names of the CSV files that it offers."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, autoescape=True,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        style, script = (Markup((TEMPLATES / name).read_text()) for name in ("report.css", "report.js"))
        return environment.get_template("report.html.j2").render(
            page=self, stem=stem, style=style, script=script, safe=Markup
        )

    def write(self, path: Path) -> list[Path]:
        """The page at ``path``, and beside it a CSV for each table. Raises BadInput where it cannot be written."""
        tables = [section for section in self.sections if section.table]
        files = {path.with_name(csv_name(path.stem, section)): section.table.csv() for section in tables}
        files[path] = self.html(path.stem)
        try:
            for file, text in files.items():
                write_output(file, text.encode())
        except OSError as exc:
            raise BadInput(f"cannot write {path}", str(exc), "name another --html file") from exc
        return list(files)


def csv_name(stem: str, section: Section) -> str:
    return f"{stem}-{section.name}.csv"
