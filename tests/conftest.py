"""Settings and helpers of all tests."""
import copy
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

import mmpd  # noqa: F401  before mmagic, whose import needs mmcv's compiled ops or their stand-ins

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 2)))
init_default_scope('mmagic')  # as a config's default_scope does


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Every test draws the same numbers, alone and after any others."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def one_process(monkeypatch):
    """The converters without worker processes, which take time and hide their lines."""
    from raw_images import Inline

    from mmpd.datasets.preparation import engine
    monkeypatch.setattr(engine, 'ProcessPoolExecutor', Inline)


def load_script(path):
    """A script of the repository as a module, by its path from the root."""
    path = ROOT / path
    spec = importlib.util.spec_from_file_location(f'script_{path.stem}', path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # workers look it up
    spec.loader.exec_module(module)
    return module


def write_gt(folder, count):
    """Smooth pictures of 64 px, ``GT/0.png`` and so on, to train and test on."""
    (folder / 'GT').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.BICUBIC).save(folder / f'GT/{index}.png')


TINY = dict(
    type='GLEANNet', in_size=8, out_size=32, style_channels=16, num_mlps=1, rrdb_channels=8,
    num_rrdbs=1, growth_channels=4, channels={4: 8, 8: 8, 16: 8, 32: 8})
PREPROCESSOR = dict(type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3)


def tiny_model(type='PDGLEAN', generator=None, **kwargs):
    from mmagic.registry import MODELS
    torch.manual_seed(0)
    cfg = dict(type=type, generator=copy.deepcopy(generator or TINY),
               pixel_loss=dict(type='L1Loss'), train_cfg=dict(), test_cfg=dict(),
               data_preprocessor=PREPROCESSOR)
    cfg.update(kwargs)
    return MODELS.build(cfg)


def lr_batch(n=2, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator).float()


def predict(model, lr):
    """What val_step does, for a batch of LR images in 0..255."""
    from mmagic.structures import DataSample
    samples = [DataSample(gt_img=torch.zeros(3, 4, 4)) for _ in lr]
    with torch.no_grad():
        data = model.data_preprocessor(dict(inputs=list(lr), data_samples=samples))
        return model.eval()(data['inputs'], data['data_samples'], mode='predict')


def gan_parts():
    return dict(
        discriminator=dict(type='UNetDiscriminatorWithSpectralNorm', in_channels=3, mid_channels=4),
        gan_loss=dict(type='GANLoss', gan_type='vanilla', loss_weight=1e-2))


def pdn(**kwargs):
    generator = dict(TINY, type='PDNNet')
    return tiny_model('PDN', generator, pixel_loss=None, **gan_parts(), **kwargs)


def train_steps(model, steps=2):
    from mmagic.structures import DataSample
    from mmengine.optim import OptimWrapper, OptimWrapperDict
    wrappers = {name: OptimWrapper(torch.optim.SGD(getattr(model, name).parameters(), lr=1e-3))
                for name in ('generator', 'discriminator')}
    logs = []
    for step in range(steps):
        samples = [DataSample(gt_img=image) for image in lr_batch(2, 32, seed=step)]
        data = dict(inputs=list(lr_batch(2, 8, seed=step)), data_samples=samples)
        logs.append(model.train().train_step(data, OptimWrapperDict(**wrappers)))
    return logs
