"""docs/tutorial.ipynb runs from top to bottom, its assertions hold, and it carries no outputs."""
import ast
import json

import pytest
from conftest import ROOT
from PIL import Image

pytest.importorskip('skimage', reason='scikit-image has the picture')
NOTEBOOK = ROOT / 'docs' / 'tutorial.ipynb'
CELLS = json.loads(NOTEBOOK.read_text())['cells']


def run(source, scope):
    """Do what a kernel does with a cell; the value of its last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), 'exec'), scope)
    if last is not None:
        return eval(compile(ast.Expression(last.value), str(NOTEBOOK), 'eval'), scope)


def test_it_has_no_outputs_and_begins_with_what_colab_needs():
    codes = [cell for cell in CELLS if cell['cell_type'] == 'code']
    assert all(not cell['outputs'] and cell['execution_count'] is None for cell in codes)
    header = ''.join(codes[0]['source'])
    assert "find_spec('mmpd') is None" in header and "'pip', 'install'" in header
    assert len({cell['id'] for cell in CELLS}) == len(CELLS)


def test_links_lead_to_pages():
    import re
    text = ''.join(''.join(cell['source']) for cell in CELLS if cell['cell_type'] == 'markdown')
    pages = re.findall(r'\]\(([^)]+)\)', text)
    assert pages and all((NOTEBOOK.parent / page).is_file() for page in pages)


def test_every_cell_runs(capsys):
    scope, shown = {'__name__': '__main__'}, []
    for cell in CELLS:
        if cell['cell_type'] == 'code':
            shown.append(run(''.join(cell['source']), scope))
    assert sum(isinstance(value, Image.Image) for value in shown) == 4
    printed = capsys.readouterr().out
    assert 'with PD:                               0.0' in printed
    assert 'LR values not given back: 0 of 3072' in printed


def test_in_jupyter_itself():
    nbclient = pytest.importorskip('nbclient', reason='nbclient is not installed (make test-web)')
    import nbformat
    pytest.importorskip('ipykernel')
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=280, kernel_name='python3',
                            resources=dict(metadata=dict(path=str(NOTEBOOK.parent)))).execute()
    images = [output for cell in notebook.cells if cell.cell_type == 'code'
              for output in cell.outputs if 'image/png' in output.get('data', {})]
    assert len(images) == 4
