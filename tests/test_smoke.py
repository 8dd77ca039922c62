"""What must work on every supported Python and PyTorch: import, one step, one make_consistent."""
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.optim import OptimWrapper, OptimWrapperDict

import mmpd

ROOT = Path(__file__).resolve().parents[1]
SMALL = dict(type='GLEANNet', in_size=8, out_size=32, style_channels=16, num_mlps=1,
             rrdb_channels=8, num_rrdbs=1, growth_channels=4, channels={4: 8, 8: 8, 16: 8, 32: 8})


def test_import():
    assert mmpd.__version__


def test_one_pdglean_step():
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='PDGLEAN', generator=SMALL, pixel_loss=dict(type='L1Loss'), train_cfg=dict(),
        test_cfg=dict(), data_preprocessor=dict(
            type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)))
    optimizer = torch.optim.Adam(model.generator.parameters(), 1e-3)
    before = [parameter.clone() for parameter in model.generator.parameters()]
    lr = torch.randint(0, 256, (2, 3, 8, 8)).float()
    gt = torch.nn.functional.interpolate(lr, scale_factor=4)
    data = dict(inputs=list(lr), data_samples=[DataSample(gt_img=image) for image in gt])
    log = model.train_step(data, OptimWrapperDict(generator=OptimWrapper(optimizer)))
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in log.values())
    after = list(model.generator.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_one_make_consistent(tmp_path):
    rng = np.random.default_rng(0)
    for name, size in (('lr', 8), ('sr', 32)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'x.png'), rng.integers(0, 256, (size, size, 3), np.uint8))
    subprocess.run([sys.executable, str(ROOT / 'tools/make_consistent.py'),
                    *(f'--{name}={tmp_path / name}' for name in ('lr', 'sr', 'out'))],
                   check=True, timeout=280, capture_output=True)
    lr, out = (cv2.imread(str(next((tmp_path / name).glob('*.png')))) for name in ('lr', 'out'))
    assert np.array_equal(out.reshape(8, 4, 8, 4, 3).mean((1, 3)), lr)
