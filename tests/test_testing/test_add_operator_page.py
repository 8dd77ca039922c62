"""docs/add_operator.md: its operator and its test are run as printed."""
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_works_as_printed(tmp_path):
    text = (ROOT / 'docs' / 'add_operator.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', text, re.S)
    operator = next(b for b in blocks if 'class Binning' in b)
    test = next(b for b in blocks if 'class TestBinning' in b)
    # outside the package the imports are absolute; nothing else is changed
    (tmp_path / 'binning.py').write_text(operator.replace('from .', 'from mmpd.operators.'))
    (tmp_path / 'test_binning.py').write_text(
        test.replace('from mmpd.operators import Binning', 'from binning import Binning'))
    run = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
                          '--rootdir', str(tmp_path), str(tmp_path)], capture_output=True,
                         text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert int(re.search(r'(\d+) passed', run.stdout).group(1)) > 50
    assert 'skipped' not in run.stdout
