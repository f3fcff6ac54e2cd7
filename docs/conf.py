"""How the documentation is built: ``sphinx-build -W -b html docs docs/_build``.

The pages on commands are written by :mod:`docs.write_commands` at each build, and the notebook is executed, so that
neither can go stale.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE.parent), str(_HERE)]
# The notebook's kernel is a process of its own, and imports the same cosma.
os.environ["PYTHONPATH"] = os.pathsep.join([str(_HERE.parent), os.environ.get("PYTHONPATH", "")])

from cosma.version import __version__  # noqa: E402  # beside the documentation, or installed

project = "cosma"
author = "The cosma developers"
copyright = "the cosma developers"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
exclude_patterns = ["_build", "jupyter_execute"]
# Commands are no Python.
highlight_language = "none"
html_theme = "furo"
html_title = "cosma"
html_static_path = ["static"]
html_css_files = ["notebook.css"]
html_extra_path = ["plan.schema.json"]
html_math_renderer = "mathml"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "__new__, __init__"}
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def _mathml(display: str) -> Any:
    """Write formulas as MathML, which browsers draw by themselves: pages need no network."""

    def visit(translator: Any, node: Any) -> None:
        from docutils.nodes import SkipNode
        from latex2mathml.converter import convert

        source = node.astext()
        # An alignment of several lines is a table to MathML.
        if display == "block" and ("\\\\" in source or "&" in source) and "\\begin" not in source:
            source = f"\\begin{{aligned}}{source}\\end{{aligned}}"
        formula = convert(source, display=display)
        translator.body.append(f'<div class="math">{formula}</div>' if display == "block" else formula)
        raise SkipNode

    return visit


def _write_commands(_: Sphinx) -> None:
    from write_commands import write_pages

    write_pages(_HERE / "commands")


def setup(app: Sphinx) -> None:
    """Add formulas that need no network, and the pages on commands."""
    app.add_html_math_renderer("mathml", (_mathml("inline"), None), (_mathml("block"), None))
    app.connect("builder-inited", _write_commands)
