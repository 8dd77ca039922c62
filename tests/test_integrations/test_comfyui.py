"""integrations/comfyui, loaded as ComfyUI loads custom nodes, and saved as SaveImage saves."""
import importlib.util
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

import mmpd

FOLDER = ROOT / 'integrations' / 'comfyui'


@pytest.fixture(scope='module')
def nodes():
    """The package, under a name that is no identifier, as ComfyUI does it."""
    name = str(FOLDER).replace('.', '_x_')
    spec = importlib.util.spec_from_file_location(name, FOLDER / '__init__.py')
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for key in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[key]


def load_image(pixels):
    """LoadImage: float32 (1, H, W, C)."""
    return torch.from_numpy(np.array(pixels).astype(np.float32) / 255.0)[None]


def save_image(image):
    """SaveImage: times 255, clipped, truncated."""
    return np.clip(255. * image.cpu().numpy(), 0, 255).astype(np.uint8)


def pictures(size=16, scale=4, count=1, seed=0):
    """Floating point SR and the 8-bit LR that it contradicts."""
    generator = torch.Generator().manual_seed(seed)
    sr = torch.rand(count, size, size, 3, generator=generator)
    lr = torch.randint(0, 256, (count, size // scale, size // scale, 3), generator=generator)
    return sr, lr.float() / 255


@pytest.fixture
def node(nodes):
    return nodes.NODE_CLASS_MAPPINGS['MMPDConsistent']()


def run(node, sr, lr, operator='average pooling', strength=1., noise_std=0., bounds=True):
    return node.apply(sr, lr, operator, strength, noise_std, bounds)


def pooled(image, scale):
    h, w, c = image.shape
    return image.reshape(h // scale, scale, w // scale, scale, c).astype(int).sum((1, 3))


def test_it_has_what_comfyui_asks_for(nodes):
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    cls = nodes.NODE_CLASS_MAPPINGS['MMPDConsistent']
    required = cls.INPUT_TYPES()['required']
    assert list(required) == ['sr_image', 'lr_image', 'operator', 'strength', 'noise_std',
                              'bounds']
    assert required['sr_image'][0] == required['lr_image'][0] == 'IMAGE'
    assert required['operator'][0][:2] == ['auto', 'average pooling']
    assert cls.RETURN_TYPES == ('IMAGE', 'STRING') and callable(getattr(cls, cls.FUNCTION))
    for _, options in list(required.values())[2:]:
        assert options['tooltip'] and 'default' in options


def test_every_grey_level_survives_save_image(nodes):
    module = sys.modules[next(key for key in sys.modules if key.endswith('comfyui.nodes'))]
    levels = torch.arange(256).to(torch.uint8).view(1, 1, 16, 16)
    image = module.to_images(levels)
    assert image.dtype == torch.float32 and image.shape == (1, 16, 16, 1)
    assert np.array_equal(save_image(image)[0, ..., 0], levels[0, 0].numpy())
    assert torch.equal(module.to_uint8(image, 'x'), levels)


@pytest.mark.parametrize('scale', [2, 4, 8])
def test_the_saved_png_pools_to_the_lr(node, tmp_path, scale):
    sr, lr = pictures(16, scale)
    lr[0, 0, 0] = torch.tensor([0., 1., 0.5019608])  # black and white leave no room
    image, report = run(node, sr, lr)
    Image.fromarray(save_image(image[0])).save(tmp_path / 'x.png')
    saved = np.asarray(Image.open(tmp_path / 'x.png'))
    assert np.array_equal(pooled(saved, scale), scale**2 * save_image(lr[0]).astype(int))
    assert image.shape == sr.shape and image.dtype == torch.float32
    assert '-> exact' in report and f'all {lr.numel()} LR values are given back' in report
    assert 'average pooling' in report and f'scale {scale}' in report


def test_other_operators_give_their_lr(node):
    rng = np.random.default_rng(0)
    gt = Image.fromarray(rng.integers(60, 200, (8, 8, 3), dtype=np.uint8)).resize((32, 32), 3)
    lr = gt.resize((8, 8), Image.BICUBIC)
    sr = np.clip(np.asarray(gt) + rng.normal(5, 6, (32, 32, 3)), 0, 255).round()
    for name in ('bicubic (PIL, antialias)', 'auto'):
        image, report = run(node, load_image(sr), load_image(lr), name)
        made = Image.fromarray(save_image(image[0]))
        assert np.array_equal(np.asarray(made.resize((8, 8), Image.BICUBIC)), np.asarray(lr))
    assert 'bicubic (antialias), pil (auto)' in report
    module = sys.modules[type(node).__module__]
    for name in module.OPERATORS:  # all of the menu can be built
        image, report = run(node, load_image(sr), load_image(lr), name)
        assert image.shape == (1, 32, 32, 3) and 'PSNR(LR)' in report


def test_options_change_the_result(node):
    sr, lr = pictures(32)
    lr = lr * 0.1  # dark: much of the correction leaves the range
    lr = (lr * 255).round() / 255
    exact = run(node, sr, lr)[0]
    half, report = run(node, sr, lr, strength=0.5)
    assert '-> exact' not in report and not torch.equal(exact, half)
    noisy, _ = run(node, sr, lr, noise_std=40.)
    assert not torch.equal(noisy, exact) and not torch.equal(noisy, half)
    assert torch.equal(run(node, sr, lr, strength=0.)[0], (sr * 255).round() / 255)
    loose = run(node, sr, lr, noise_std=40., bounds=False)[0]
    assert not torch.equal(loose, noisy)
    assert loose.min() >= 0 and loose.max() <= 1


def test_batches(node):
    sr, lr = pictures(count=3)
    image, report = run(node, sr, lr)
    assert report.startswith('3 images')
    for one in range(3):
        assert torch.equal(image[one], run(node, sr[one:one + 1], lr[one:one + 1])[0][0])
    image, _ = run(node, sr, lr[:1])
    for one in image:
        assert np.array_equal(pooled(save_image(one), 4), 16 * save_image(lr[0]).astype(int))
    with pytest.raises(ValueError, match='expected 1 image, for all, or 3 like sr_image, got 2'):
        run(node, sr, lr[:2])


@pytest.mark.parametrize('sr, lr, message', [
    ((1, 18, 16, 3), (1, 4, 4, 3), 'one multiple, 2 or more, of the LR size 4x4, .*got 16x18'),
    ((1, 16, 12, 3), (1, 4, 4, 3), 'got 12x16'),
    ((1, 4, 4, 3), (1, 16, 16, 3), 'got 4x4 .are they swapped'),
    ((1, 4, 4, 3), (1, 4, 4, 3), '2 or more'),
    ((1, 16, 16, 4), (1, 4, 4, 3), 'lr_image: expected 4 channels like sr_image, got 3'),
    ((16, 16, 3), (1, 4, 4, 3), 'sr_image: expected an IMAGE'),
])
def test_what_does_not_fit_is_refused(node, sr, lr, message):
    with pytest.raises(ValueError, match=message):
        run(node, torch.rand(*sr), torch.rand(*lr))


def test_nan_and_unknown_operators_are_refused(node):
    sr, lr = pictures()
    with pytest.raises(ValueError, match='operator: expected one of auto'):
        run(node, sr, lr, 'sinc')
    sr[0, 0, 0, 0] = float('nan')
    with pytest.raises(ValueError, match='sr_image: expected finite values'):
        run(node, sr, lr)


def test_the_registry_file_agrees():
    tomllib = pytest.importorskip('tomllib')  # Python 3.11
    project = tomllib.loads((FOLDER / 'pyproject.toml').read_text())
    assert project['tool']['comfy'].keys() >= {'PublisherId', 'DisplayName'}
    assert project['project']['version'] == mmpd.__version__
    requirements = (FOLDER / 'requirements.txt').read_text().split()
    assert project['project']['dependencies'] == requirements
