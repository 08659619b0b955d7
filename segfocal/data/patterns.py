r"""Path patterns with named groups, such as ``{city}/images/{tile:\d+}.tif``.

A pattern is a relative path with ``/`` between its parts. ``{name}`` is a group: any text
within one part, or what the regular expression after a colon matches; a group that stands
twice has the same text in both places. ``*`` is any text within one part, ``**`` as a part is
any number of folders.

Filling in a pattern gives a path; looking for it in a folder gives all files that match, each
with the text of its groups. Names that start with a dot are not looked at: they are what file
managers and macOS leave behind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from segfocal.errors import SpecError

__all__ = [
    "fill_in",
    "find_files",
    "group_names",
    "match_text",
    "parse_pattern",
    "with_expressions",
]

_GROUP = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::((?:[^{}]|\{[0-9,]+\})+))?\}")
_WILD = re.compile(r"\*\*?")


def parse_pattern(pattern: str) -> None:
    """Check a pattern.

    Raises:
        ValueError: It names no file, a brace is not closed, or an expression is not a regular
            expression.
    """
    if not pattern.strip("./"):
        raise ValueError(
            f"pattern {pattern!r} names no file; expected a path, such as images/{{id}}.tif"
        )
    rest = _GROUP.sub("", pattern)
    if "{" in rest or "}" in rest:
        raise ValueError(
            f"pattern {pattern!r} has a brace that is no group; expected {{name}} or "
            "{name:expression}"
        )
    for name, expression in _GROUP.findall(pattern):
        try:
            compiled = re.compile(expression)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(
                f"pattern {pattern!r}: {expression!r} is no regular expression ({error})"
            ) from None
        if "/" in expression:
            raise ValueError(
                f"pattern {pattern!r}: {expression!r} has a /; expected a group within one part"
            )
        if compiled.groups:
            raise ValueError(
                f"pattern {pattern!r}: group {name!r} has a group inside; expected (?:...)"
            )


def group_names(pattern: str) -> tuple[str, ...]:
    """Return the names of a pattern's groups, each once, in order."""
    return tuple(dict.fromkeys(name for name, _ in _GROUP.findall(pattern)))


def with_expressions(pattern: str, others: Iterable[str]) -> str:
    """Return a pattern whose groups have the expressions that they have in other patterns."""
    known = {name: text for other in others for name, text in _GROUP.findall(other) if text}

    def spelled(found: re.Match[str]) -> str:
        expression = found[2] or known.get(found[1])
        return f"{{{found[1]}:{expression}}}" if expression else found[0]

    return _GROUP.sub(spelled, pattern)


def fill_in(pattern: str, groups: Mapping[str, str]) -> str | None:
    """Return the text that a pattern stands for, or None when something in it stays open."""
    if not set(group_names(pattern)) <= set(groups):
        return None
    text = _GROUP.sub(lambda found: groups[found[1]], pattern)
    return None if _WILD.search(_GROUP.sub("", pattern)) else text


def match_text(pattern: str, text: str) -> dict[str, str] | None:
    """Return the groups of a text that a pattern matches as a whole, or None."""
    found = re.fullmatch(_expression(pattern, {}), text)
    return found.groupdict() if found else None


def find_files(pattern: str, folder: Path) -> list[tuple[str, dict[str, str]]]:
    """Return the files below a folder that a pattern matches, with the text of their groups.

    Returns:
        Paths relative to ``folder`` (absolute for an absolute pattern), with ``/`` between their
        parts, in alphabetical order.

    Raises:
        SpecError: A folder cannot be read.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if not parts:
        return []
    start = "/" if pattern.startswith("/") else ""
    try:
        return sorted(_descend(folder, start, parts, {}), key=lambda found: found[0])
    except OSError as error:
        raise SpecError(f"{folder}: cannot be searched for {pattern!r}: {error}") from error


def _descend(
    folder: Path, below: str, parts: list[str], groups: dict[str, str]
) -> Iterator[tuple[str, dict[str, str]]]:
    first, *rest = parts
    here = folder / below
    if first == "**":
        if rest:
            yield from _descend(folder, below, rest, groups)
        for name, is_folder in _entries(here):
            if is_folder:
                yield from _descend(folder, _join(below, name), parts, groups)
            elif not rest:
                yield _join(below, name), groups
        return
    known = fill_in(first, groups)
    if known is not None:  # nothing to look for: large folders need not be listed
        place = folder / below / known
        if rest and place.is_dir():
            yield from _descend(folder, _join(below, known), rest, groups)
        elif not rest and place.is_file():
            yield _join(below, known), groups
        return
    expression = re.compile(_expression(first, groups))
    for name, is_folder in _entries(here):
        found = expression.fullmatch(name)
        if not found or is_folder != bool(rest):
            continue
        more = {**groups, **found.groupdict()}
        if rest:
            yield from _descend(folder, _join(below, name), rest, more)
        else:
            yield _join(below, name), more


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Return names in a folder and which are folders; links to folders are not followed round."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def _join(below: str, name: str) -> str:
    return f"{below.rstrip('/')}/{name}" if below else name


def _expression(pattern: str, known: Mapping[str, str]) -> str:
    """Return the regular expression of a pattern; groups that are known are plain text."""
    text, place = "", 0
    seen: set[str] = set()
    for found in _GROUP.finditer(pattern):
        text += _wild(pattern[place : found.start()])
        name, expression = found[1], found[2]
        if name in known:
            text += re.escape(known[name])
        elif name in seen:
            text += f"(?P={name})"
        else:
            text += f"(?P<{name}>{expression or '[^/]+?'})"
            seen.add(name)
        place = found.end()
    return text + _wild(pattern[place:])


def _wild(text: str) -> str:
    return "[^/]*".join(re.escape(piece) for piece in _WILD.split(text))
