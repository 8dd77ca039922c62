"""Operators, 8-bit rounding and LR synthesis need torch and NumPy, and nothing of OpenMMLab's."""
import subprocess
import sys

SCRIPT = """
import sys
# as if they were not installed: importing them raises, and find_spec finds nothing
sys.modules.update(dict.fromkeys(('mmagic', 'mmengine', 'mmcv', 'cv2', 'PIL', 'scipy')))
import numpy as np
import torch
before = {name.partition('.')[0] for name in sys.modules}

from mmpd.datasets.resampling import downsample
from mmpd.operators import AveragePooling, SeparableResize, consistent_uint8

for operator in (AveragePooling(4), SeparableResize(4)):
    generator = torch.Generator().manual_seed(0)
    truth, raw = torch.rand(2, 1, 3, 16, 16, generator=generator) * 255
    y = operator.A(truth).clamp(0, 255)
    result = operator.project(raw, y)
    torch.testing.assert_close(operator.A(result), y, rtol=0, atol=1e-3)
lr = y.round()
for cfg in (dict(type='AveragePooling'), AveragePooling(4)):
    saved, unmatched = consistent_uint8(raw, lr, cfg, return_unmatched=True)
    assert saved.dtype == torch.uint8 and unmatched == 0
    pooled = downsample(saved[0].permute(1, 2, 0).numpy(), 4, 'average_pooling')
    np.testing.assert_array_equal(pooled, lr[0].permute(1, 2, 0).numpy())
downsample(pooled, 2, 'bicubic')

here = {name.partition('.')[0] for name in sys.modules if sys.modules[name] is not None}
of_torch = {'sympy', 'mpmath', 'networkx', 'jinja2', 'fsspec', 'filelock', 'opt_einsum', 'triton',
            'typing_extensions'}
new = {name for name in here - before - of_torch - set(sys.stdlib_module_names)
       if not name.startswith('_sysconfigdata')}
assert new == {'mmpd'}, new
"""


def test_without_openmmlab():
    run = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert (run.stdout, run.stderr) == ('', '')


def test_importing_operators_is_silent_where_mmagic_is_installed():
    run = subprocess.run([sys.executable, '-c', 'import mmpd.operators'], capture_output=True,
                         text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, '', '')
