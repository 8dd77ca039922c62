"""Sphinx: ``make docs`` builds the site in ``docs/_build``, without a network."""
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / '_ext'), str(DOCS.parent)]

import mmpd  # noqa: E402

project = 'mmpd'
release = version = mmpd.__version__
author = 'the authors of mmpd'
copyright = 'the authors of mmpd, Apache-2.0'

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode',
              'sphinx_copybutton', 'mmpd_docs']
exclude_patterns = ['_build', '_ext']

html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['mmpd.css']
html_title = f'mmpd {release}'
html_theme_options = dict(navigation_with_keys=True)
copybutton_exclude = '.linenos, .gp'

myst_enable_extensions = ['deflist', 'fieldlist']
myst_heading_anchors = 4
suppress_warnings = ['myst.header']  # the methods' pages begin with what OpenMMLab's parser reads

autodoc_default_options = {'members': True, 'show-inheritance': True,
                           'exclude-members': 'extra_repr'}
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [('Shape', 'notes_style')]
