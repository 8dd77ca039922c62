"""integrations/diffusers with a pipeline that returns what diffusers' pipelines return."""
import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import load_script
from PIL import Image

SCALE = 4


@pytest.fixture(scope='module')
def script():
    return load_script('integrations/diffusers/consistent_callback.py')


def picture(size, seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(20, 230, (size, size, 3), dtype=np.uint8))


class FakePipeline:
    """Enlarges and shifts the colours, as diffusion does."""

    device = 'cpu'

    def __call__(self, prompt=None, image=None, output_type='pil', return_dict=True, number=1):
        big = [one.resize((one.width * SCALE,) * 2, Image.BICUBIC)
               for one in (image if isinstance(image, list) else [image] * number)]
        pixels = np.stack([np.asarray(one) for one in big]) * 0.9 + 20
        images = [Image.fromarray(one.round().astype(np.uint8)) for one in pixels]
        if output_type == 'np':
            images = (pixels / 255).astype(np.float32)
        elif output_type == 'pt':
            images = torch.from_numpy(pixels / 255).permute(0, 3, 1, 2).float()
        return SimpleNamespace(images=images, nsfw=[False]) if return_dict else (images, [False])


def pools_to(image, lr):
    h, w = image.shape[0] // SCALE, image.shape[1] // SCALE
    sums = image.reshape(h, SCALE, w, SCALE, 3).astype(int).sum((1, 3))
    return np.array_equal(sums, SCALE**2 * np.asarray(lr).astype(int))


def pixels_of(images):
    if isinstance(images, torch.Tensor):
        images = images.permute(0, 2, 3, 1).numpy()
    if isinstance(images, np.ndarray):
        assert np.allclose(images * 255, (images * 255).round(), atol=1e-4)
        return (images * 255).round().astype(np.uint8)
    return [np.asarray(one) for one in images]


@pytest.mark.parametrize('output_type, kind', [
    ('pil', list), ('np', np.ndarray), ('pt', torch.Tensor)])
@pytest.mark.parametrize('return_dict', [True, False])
def test_results_pool_to_the_lr(script, output_type, kind, return_dict):
    lr = picture(8, 0)
    options = dict(prompt='a face', image=lr, output_type=output_type, return_dict=return_dict)
    raw = FakePipeline()(**options)
    output = script.ConsistentPipeline(FakePipeline(), operator='average_pooling')(**options)
    images = output.images if return_dict else output[0]
    assert type(images) is kind and (output.nsfw if return_dict else output[1]) == [False]
    assert pools_to(pixels_of(images)[0], lr)
    assert not pools_to(pixels_of(raw.images if return_dict else raw[0])[0], lr) \
        if output_type == 'pil' else True


def test_one_lr_for_all_or_one_for_each(script):
    pipe = script.ConsistentPipeline(FakePipeline(), operator='average_pooling')
    lrs = [picture(8, seed) for seed in (1, 2)]
    for image, lr in zip(pipe(image=lrs).images, lrs, strict=True):
        assert pools_to(np.asarray(image), lr)
    for image in pipe(image=lrs[0], number=3).images:
        assert pools_to(np.asarray(image), lrs[0])
    # a pipeline that is given an enlarged image
    (image,) = pipe(image=lrs[1], lr=lrs[0]).images
    assert pools_to(np.asarray(image), lrs[0])
    with pytest.raises(ValueError, match='lr: expected 1 image, for all, or 3, got 2'):
        pipe(image=lrs[0], number=3, lr=lrs)


def test_the_operator_is_what_is_asked_for(script):
    lr = picture(8, 3).resize((16, 16), Image.BICUBIC)
    pipe = script.ConsistentPipeline(FakePipeline(), operator='bicubic')
    (image,) = pipe(image=lr).images
    again = np.asarray(image.resize((16, 16), Image.BICUBIC))
    assert np.array_equal(again, np.asarray(lr))
    soft = script.make_consistent(FakePipeline()(image=lr).images[0], lr, operator='bicubic',
                                  strength=0.5)
    assert isinstance(soft, Image.Image) and not np.array_equal(np.asarray(soft),
                                                                np.asarray(image))


def test_it_stands_for_the_pipeline(script):
    pipe = script.ConsistentPipeline(FakePipeline())
    assert pipe.device == 'cpu' and copy.copy(pipe).device == 'cpu'


def test_what_does_not_fit_is_refused(script):
    pipe = script.ConsistentPipeline(FakePipeline())
    with pytest.raises(ValueError, match='image: expected the LR image under this name'):
        pipe(prompt='x')
    with pytest.raises(ValueError, match="output_type: expected .* got 'latent'"):
        pipe(image=picture(8, 0), output_type='latent')
    with pytest.raises(ValueError, match='lr: expected a PIL image'):
        pipe(image=picture(8, 0), lr=np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match='floating point'):
        script.make_consistent(np.zeros((1, 8, 8, 3), np.uint8), picture(2, 0))


def test_as_a_script(script, tmp_path, capsys):
    lr = picture(8, 5)
    lr.save(tmp_path / 'lr.png')
    FakePipeline()(image=lr).images[0].save(tmp_path / 'sr.png')
    names = [str(tmp_path / name) for name in ('lr.png', 'sr.png', 'out.png')]
    script.main(names)
    assert pools_to(np.asarray(Image.open(tmp_path / 'out.png')), lr)
    new = str(tmp_path / 'new.png')
    for wrong in ([*names[:2], 'x.jpg'], ['none.png', names[1], new], [names[1], names[0], new],
                  names, [*names[:2], names[1]]):
        with pytest.raises(SystemExit) as error:
            script.main(wrong)
        assert error.value.code == 2
    err = capsys.readouterr().err
    assert 'swapped' in err and f'out: {names[2]} exists' in err and f'{names[1]} exists' in err
