"""How the documentation is built: ``sphinx-build -W -b html docs docs/_build``."""

from __future__ import annotations

import re
from pathlib import Path

_HERE = Path(__file__).parent
_FOUND = re.search(r'__version__ = "(.*)"', (_HERE.parent / "cosma" / "version.py").read_text(encoding="utf-8"))

project = "cosma"
author = "The cosma developers"
copyright = "the cosma developers"
version = release = _FOUND[1] if _FOUND else ""

extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "cosma"
html_extra_path = ["plan.schema.json"]
