"""Show an object by a title and a few facts, in a terminal and in a notebook."""

from textwrap import shorten

from geopeft_nb.pictures.show import escaped, visible


class Facts:
    """What `facts` says becomes text of a few lines, and a table in a notebook."""

    def facts(self) -> tuple[str, dict[str, object]]:
        """Return a title, and at most ten facts by name; empty ones are left out."""
        raise NotImplementedError

    def _rows(self) -> tuple[str, dict[str, str]]:
        title, facts = self.facts()
        return visible(title), {
            visible(name): shorten(visible(x), 160, placeholder=" …")
            for name, x in facts.items()
            if x
        }

    def __repr__(self) -> str:
        title, rows = self._rows()
        return "\n".join([title, *(f"  {name}: {words}" for name, words in rows.items())])

    def _repr_html_(self) -> str:
        """Return the facts as a table."""
        title, rows = self._rows()
        cells = "".join(
            f'<tr><th style="text-align:left">{escaped(name)}</th>'
            f'<td style="text-align:left">{escaped(words)}</td></tr>'
            for name, words in rows.items()
        )
        return f"<b>{escaped(title)}</b><table>{cells}</table>"
