"""Sphinx's settings. `python -m sphinx -W -b html docs build/docs` builds the site.

Notebooks are executed unless they were before, unchanged; `EXECUTE_NOTEBOOKS=0` in the environment
shows them without outputs.
"""

import os
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))
os.environ["PYTHONPATH"] = str(DOCS.parent)  # of the notebooks' kernels

import resnet_jax  # noqa: E402

project = "resnet_jax"
author = copyright = "The resnet_jax authors"
version = release = resnet_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}
highlight_language = "none"
default_role = "code"  # Docstrings quote names in single backticks.

myst_heading_anchors = 3
nb_execution_mode = "off" if os.environ.get("EXECUTE_NOTEBOOKS") == "0" else "cache"
nb_execution_timeout = 3600
nb_execution_raise_on_error = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "resnet_jax"
pygments_dark_style = "one-dark"

# Files at the root of the repository that are pages of the site, too.
ROOT_PAGES = {
    "README.md": "index.md",
    "RESULTS.md": "results.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "developing.md",
}

_LINK = re.compile(
    r"(?<!!)\[(?P<label>[^\]\[]+)\]\((?!https?:|#)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]+)?\)"
)


def site_links(text: str) -> str:
    """Points links between files of the repository to the site's pages.

    What is no page, such as a folder of the repository, keeps its label alone.
    """

    def replace(match: re.Match) -> str:
        label, path = match["label"], match["path"].removeprefix("docs/")
        page = ROOT_PAGES.get(path.removeprefix("../"), path)
        return f"[{label}]({page}{match['anchor'] or ''})" if page.endswith(".md") else label

    return _LINK.sub(replace, text)


def plain_text_to_rst(text: str) -> str:
    """A docstring as reStructuredText: text outside backticks is literal, indented text is code."""
    parts = re.split(r"(`+[^`]+`+)", text)
    parts[::2] = [re.sub(r"[*|\\]|_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    text = "".join(
        re.sub(r"^(?=\w)", r"\\ ", part) if i % 2 == 0 and i else part
        for i, part in enumerate(parts)
    )
    return re.sub(r"(?m)^( *)(\S.*)\n\n(?=\1 +\S)(?!\1 *[-*] )", r"\1\2\n\n\1::\n\n", text)


def write_api_pages() -> None:
    """One page a package, with its modules' public objects where they are defined."""
    folder = DOCS / "api"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        old.unlink()
    for package in pkgutil.iter_modules(resnet_jax.__path__):
        name = f"resnet_jax.{package.name}"
        page = [name, "=" * len(name), "", f".. automodule:: {name}"]
        if package.ispkg:
            for module in pkgutil.iter_modules([f"{resnet_jax.__path__[0]}/{package.name}"]):
                page += ["", module.name, "-" * len(module.name), ""]
                page += [f".. automodule:: {name}.{module.name}", "   :members:"]
        else:
            page += ["   :members:"]
        (folder / f"{package.name}.rst").write_text("\n".join(page) + "\n", encoding="utf-8")


def setup(app: Any) -> None:
    """Connects the functions above to Sphinx's events."""

    def rewrite_links(*arguments: Any) -> None:
        arguments[-1][0] = site_links(arguments[-1][0])

    def rewrite_docstring(app, what, name, obj, options, lines: list[str]) -> None:
        lines[:] = plain_text_to_rst("\n".join(lines)).split("\n")

    def skip_foreign(app, what, name, obj, skip: bool, options) -> bool | None:
        # What was imported, and "Alias for field number 0" of named tuples.
        own = (getattr(obj, "__module__", None) or project).startswith(project)
        return None if own and type(obj).__name__ != "_tuplegetter" else True

    write_api_pages()
    app.connect("source-read", rewrite_links)
    app.connect("include-read", rewrite_links)
    app.connect("autodoc-process-docstring", rewrite_docstring, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_foreign)
