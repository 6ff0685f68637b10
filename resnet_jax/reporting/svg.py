"""Makes a drawing part of a page: it takes the page's colours, fonts and width."""

import re

from resnet_jax.reporting import style
from resnet_jax.reporting.markup import Markup, tag

_ROLE_OF = {light: role for role, light in style.LIGHT.items()}


def inline(svg: str, name: str, alternative: str) -> Markup:
    """An `<svg>` element for an HTML page.

    Args:
      svg: a file as matplotlib writes it with `svg.fonttype="none"`.
      name: put before every id, so that several drawings can stand on one page.
      alternative: what the drawing shows, for readers who cannot see it.
    """
    view = re.search(r'viewBox="([^"]*)"', svg)[1]
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    # matplotlib's style sheet and metadata would apply to the whole page; the page has its own.
    body = re.sub(r"<(style|metadata)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\1{name}-", body)
    body = re.sub(r"\b(fill|stroke): (#[0-9a-f]{6})\b", _variable, body)
    body = re.sub(r"(font: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--sans)", body)
    return tag(
        "svg",
        Markup(body.strip()),
        class_="panel",
        role="img",
        aria_label=alternative,
        viewBox=view,
    )


def _variable(match: re.Match) -> str:
    property_, colour = match.groups()
    role = _ROLE_OF.get(colour)
    return f"{property_}: var(--{role})" if role else match[0]
