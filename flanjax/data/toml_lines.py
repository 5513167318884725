"""Line numbers of tables and keys in a TOML file, which `tomllib` does not keep.

    lines = TomlLines(text)
    lines.of("boolq", 3, "targets")     # the line of `targets` in the fourth template

Covers what template files use: [table], [[table.templates]], `key = value`, multi-line
strings and arrays. The text must be valid TOML.
"""

import re

_HEADER = re.compile(r"\s*\[(\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=\s*(.*)")


class TomlLines:
    """Line numbers (from 1) by group, number of the template in it, and key."""

    def __init__(self, text: str):
        self._lines: dict[tuple[str, int | None, str | None], int] = {}
        counts: dict[str, int] = {}
        group, index, closing = "", None, ""
        for number, line in enumerate(text.splitlines(), start=1):
            if closing:  # Inside a multi-line string: nothing here is a key.
                if closing in line:
                    closing = ""
            elif header := _HEADER.match(line):
                group = header[2].split(".")[0].strip("\"' ")
                index = None
                if header[1]:
                    index = counts.get(group, 0)
                    counts[group] = index + 1
                self._lines.setdefault((group, index, None), number)
                self._lines.setdefault((group, None, None), number)
            elif entry := _KEY.match(line):
                self._lines.setdefault((group, index, entry[1]), number)
                for quotes in ('"""', "'''"):
                    if entry[2].startswith(quotes) and entry[2].count(quotes) == 1:
                        closing = quotes

    def of(self, group: str, index: int | None = None, key: str | None = None) -> int:
        """Returns the line of a key; of its template or group if the key has none."""
        for place in ((group, index, key), (group, index, None), (group, None, None)):
            if place in self._lines:
                return self._lines[place]
        return 1
