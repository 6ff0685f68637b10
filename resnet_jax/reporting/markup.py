"""HTML that cannot be broken by a name: text is escaped unless it is already markup."""

import html
from collections.abc import Iterable
from typing import Any

VOID = frozenset({"meta", "link", "br", "img"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: Any) -> Markup:
    """`value` as HTML text; markup passes unchanged."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(parts: Iterable[Any], separator: str = "") -> Markup:
    return Markup(escape(separator).join(escape(part) for part in parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element. Attributes may end in "_" (`class_`) and write "-" as "_"; None leaves one out.

    >>> tag("td", "a < b", class_="name")
    '<td class="name">a &lt; b</td>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")
