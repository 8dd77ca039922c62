"""LRSynthesis in MMagic's own pipeline, against an LR folder."""
import cv2
import numpy as np
import pytest
import torch
from mmagic.registry import TRANSFORMS
from mmengine.dataset import Compose

import mmpd  # noqa: F401
from mmpd.datasets.preparation import Recipe, open_source, prepare
from mmpd.datasets.resampling import downsample


def build(**kwargs):
    return TRANSFORMS.build(dict(type='LRSynthesis', **kwargs))


def load(key):
    return dict(type='LoadImageFromFile', key=key, color_type='color', channel_order='rgb')


@pytest.fixture
def gt():
    return np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize('kernel, antialias, made_by', [
    ('average_pooling', True, None), ('bicubic', True, None), ('bicubic', False, None),
    ('lanczos', True, None), ('bicubic', True, 'pil'), ('bicubic', False, 'opencv')])
def test_pixels_equal_those_of_an_lr_folder(tmp_path, gt, kernel, antialias, made_by):
    (tmp_path / 'raw').mkdir()
    cv2.imwrite(str(tmp_path / 'raw' / 'a.png'), gt[:, :32])
    recipe = Recipe(32, [8], kernel, antialias, made_by=made_by)
    prepare(open_source(tmp_path / 'raw'), tmp_path, recipe, 1, progress=False)
    paths = dict(gt_path=str(tmp_path / 'GT' / 'a.png'),
                 img_path=str(tmp_path / recipe.lr_folder(8) / 'a.png'))
    synthesis = dict(type='LRSynthesis', scale=8, kernel=kernel, antialias=antialias,
                     made_by=made_by)
    on_the_fly = Compose([TRANSFORMS.build(cfg) for cfg in (
        load('gt'), synthesis, dict(type='PackInputs'))])(dict(gt_path=paths['gt_path']))
    folder = Compose([TRANSFORMS.build(cfg) for cfg in (
        load('img'), load('gt'), dict(type='PackInputs'))])(paths)
    assert on_the_fly['inputs'].dtype == folder['inputs'].dtype
    assert (on_the_fly['inputs'] == folder['inputs']).all()
    ours, theirs = on_the_fly['data_samples'].metainfo, folder['data_samples'].metainfo
    for key in ('ori_img_shape', 'img_channel_order', 'img_color_type', 'gt_channel_order'):
        assert ours[key] == theirs[key], key


def test_flip_before_synthesis_flips_the_lr(gt):
    flip = TRANSFORMS.build(dict(type='Flip', keys=['gt'], flip_ratio=1., direction='horizontal'))
    lr = build(scale=4)(dict(gt=gt))['img']
    flipped = build(scale=4)(flip(dict(gt=gt.copy())))['img']
    np.testing.assert_array_equal(flipped, lr[:, ::-1])


def test_every_option_changes_the_result(gt):
    base = build(scale=4)(dict(gt=gt))['img']
    for change in (dict(kernel='average_pooling'), dict(antialias=False), dict(quantize=False),
                   dict(scale=8), dict(border='mirror'), dict(made_by='float')):
        other = build(**{'scale': 4, **change})(dict(gt=gt))['img']
        assert other.shape != base.shape or (other != base).any(), change
    mirrored = build(scale=4, border='mirror')(dict(gt=gt))['img']
    np.testing.assert_array_equal(mirrored, downsample(gt, 4, border='mirror'))
    named = build(scale=4, keys=dict(gt='lq'))(dict(gt=gt))
    assert 'img' not in named and (named['lq'] == base).all()
    assert '4' in repr(build(scale=4)) and 'bicubic' in repr(build(scale=4))
    assert "made_by='torch_uint8'" in repr(build(scale=4))


def test_frames_and_float_images(gt):
    frames = build(scale=4)(dict(gt=[gt, gt[::-1]]))
    assert len(frames['img']) == 2 and frames['ori_img_shape'] == [(8, 12, 3)] * 2
    assert build(scale=4)(dict(gt=(gt, )))['ori_img_shape'] == [(8, 12, 3)]
    exact = build(scale=4, quantize=False, kernel='average_pooling')(dict(gt=gt))['img']
    assert exact.dtype == np.float32 and exact.flags.c_contiguous
    rounded = build(scale=4)(dict(gt=gt.astype(np.float32)))['img']
    np.testing.assert_array_equal(rounded, build(scale=4, made_by='float')(dict(gt=gt))['img'])
    np.testing.assert_allclose(exact, gt.reshape(8, 4, 12, 4, 3).mean((1, 3)), rtol=1e-6)


def test_bad_input_names_sizes_and_files(gt):
    with pytest.raises(ValueError, match=r"'gt' \(a/b.png\).*32 x 48.*scale 5"):
        build(scale=5)(dict(gt=gt, gt_path='a/b.png'))
    with pytest.raises(ValueError, match="needs the key 'gt'.*img_path"):
        build(scale=4)(dict(img_path='x'))
    for wrong in (dict(scale=0), dict(scale=4, kernel='area'), dict(scale=4, keys=[]),
                  dict(scale=4, keys=['gt', 'img']), dict(scale=4, keys={}),
                  dict(scale=4, keys={'': 'img'}), dict(scale=4, keys=dict(gt=''))):
        with pytest.raises(ValueError, match=f'^{[*wrong][-1]}: expected'):
            build(**wrong)


@pytest.mark.parametrize('operator', [
    dict(type='SeparableResize', scale=4, kernel='lanczos'), dict(type='AveragePooling', scale=4),
    dict(type='Compose', operators=[dict(type='Grayscale'), dict(type='AveragePooling', scale=2)])])
def test_any_operator_makes_the_lr(operator):
    from mmpd.operators import build_operator
    gt = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    image = torch.from_numpy(gt).permute(2, 0, 1)[None].double()
    expected = build_operator(operator).A(image)[0].permute(1, 2, 0).numpy()
    whole = build(operator=operator, quantize=False)(dict(gt=gt))['img']
    np.testing.assert_allclose(whole, expected, atol=1e-3)
    rounded = build(operator=operator)(dict(gt=gt))['img']
    assert rounded.dtype == np.uint8
    assert np.abs(rounded - expected.clip(0, 255)).max() <= 0.501


class Foreign:
    """Any object with these two methods is an operator."""

    def __init__(self, A):
        self.A = self.A_dagger = A


POOL = dict(type='AveragePooling', scale=4)


@pytest.mark.parametrize('operator, shape, lr_shape', [
    (POOL, (16, 16), (4, 4)), (POOL, (16, 16, 1), (4, 4, 1)),
    (dict(type='Grayscale'), (16, 16, 3), (16, 16, 1)),
    (Foreign(lambda x: x.repeat(1, 3, 1, 1)), (16, 16), (16, 16, 3))],
    ids=['two axes', 'three', 'grey', 'foreign'])
def test_grey_images_keep_two_axes(operator, shape, lr_shape):
    gt = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert build(operator=operator)(dict(gt=gt))['img'].shape == lr_shape


@pytest.mark.parametrize('factor, saved', [(2, 255), (2.004, None), (-1, 0), (-1.002, None)])
def test_an_overshoot_of_the_range_itself_is_clipped_and_more_is_refused(factor, saved):
    synthesise = build(operator=Foreign(lambda x: x * factor))
    sample = dict(gt=np.full((2, 2, 3), 255, np.uint8))
    if saved is None:
        with pytest.raises(ValueError, match='quantize: expected False'):
            synthesise(sample)
    else:
        assert (synthesise(sample)['img'] == saved).all()


@pytest.mark.parametrize('options, text', [
    (dict(scale=4), "scale=4, kernel='bicubic', antialias=True, quantize=True, "
     "keys={'gt': 'img'}, border='library', made_by='torch_uint8')"),
    (dict(scale=4, quantize=False), "border='library', made_by='float')"),
    (dict(scale=4, made_by='pil'), "border='library', made_by='pil')"),
    (dict(operator=POOL), "operator=AveragePooling(scale=4), quantize=True, keys={'gt': 'img'})")])
def test_what_it_says_of_itself(options, text):
    assert repr(build(**options)).startswith('LRSynthesis(')
    assert repr(build(**options)).endswith(text)


def test_the_same_average_pooling_by_name_and_by_operator():
    gt = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    named = build(scale=4, kernel='average_pooling')(dict(gt=gt))['img']
    np.testing.assert_array_equal(
        build(operator=dict(type='AveragePooling', scale=4))(dict(gt=gt))['img'], named)


@pytest.mark.parametrize('given, message', [
    (dict(operator=dict(type='AveragePooling', scale=4), scale=4), 'operator: expected either'),
    (dict(operator=dict(type='AveragePoling', scale=4)), "did you mean 'AveragePooling'"),
    (dict(), 'scale: expected an integer'),
    (dict(scale=4, quantize='False'), 'quantize: expected True or False'),
    (dict(scale=4, antialias='no'), 'antialias: expected True or False'),
    (dict(scale=4, made_by='cv2'), 'made_by: expected one of float, pil'),
    (dict(scale=4, made_by='opencv'), "made_by='opencv' has no SeparableResize"),
    (dict(operator=dict(type='AveragePooling', scale=4), made_by='pil'), 'border and made_by')])
def test_wrong_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        build(**given)


def test_a_measurement_that_does_not_fit_8_bits_is_not_clipped_in_silence():
    operator = dict(type='Grayscale', weights=(1., 1., 1.))
    gt = np.full((4, 4, 3), 250, np.uint8)
    assert build(operator=operator, quantize=False)(dict(gt=gt))['img'].max() == 750
    with pytest.raises(ValueError, match='quantize: expected False.*up to 750'):
        build(operator=operator)(dict(gt=gt))
