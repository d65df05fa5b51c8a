"""How the documentation is built: `make docs`, or `sphinx-build -W docs build/docs`. The pages are MyST Markdown."""

from __future__ import annotations

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "_ext")]

import fastconv  # noqa: E402  the path comes first

project = "fastconv"
author = "The fastconv developers"
copyright = "the fastconv developers, MIT licence"
version = release = fastconv.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "phrases",
    "algorithms",
    "commandline",
    "measured",
    "sources",
]
root_doc = "index"
exclude_patterns = ["_*", "phrasebook"]
nitpicky = True
nitpick_ignore = [("py:func", "numpy.pad"), ("py:func", "functools.partial")]  # outside, and no network is used
nitpick_ignore_regex = [("py:class", r".*"), ("py:exc", r".*")]  # words of "Parameters" that are prose, not names

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_param = False  # "stride, dilation : int" stays one line
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"fastconv {release}"
html_static_path = ["_static"]
html_css_files = ["fastconv.css"]
html_copy_source = False
html_show_sphinx = False
highlight_language = "text"  # of blocks that name none; docstrings show Python sessions all the same
pygments_style = "friendly"
pygments_dark_style = "github-dark"
