"""OnnxGenerator: small files made here, through PDInferencer and mmpd-infer."""
import copy
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmpd.apis import PDInferencer
from mmpd.cli.infer import main
from mmpd.errors import InputError, MissingPackage, WeightsMismatch, WeightsNotFound
from mmpd.models.generators import OnnxGenerator, onnx_generator

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
FLOAT = onnx.TensorProto.FLOAT
POOLING = dict(type='AveragePooling', scale=2)


def enlarger(path, size=(8, 8), pd=None, scale=2, gain=0.5, batch=1, channels=3, kind=FLOAT,
             grey=None):
    """x -> gain · x, enlarged; with ``pd`` noted as what was done in the file.

    The mean of the channels, if the file is to say that there are ``grey`` of them.
    """
    helper = onnx.helper
    big = [int(side * scale) if isinstance(side, int) else f'{side}_2' for side in size]
    lr, sr = (helper.make_tensor_value_info(name, kind, (batch, number, *sides))
              for name, number, sides in (('x', channels, size), ('y', grey or channels, big)))
    constants = [helper.make_tensor('scales', FLOAT, [4], [1, 1, scale, scale]),
                 helper.make_tensor('gain', kind, [], [gain])]
    nodes = [helper.make_node('Resize', ['x', '', 'scales'], ['big']),
             helper.make_node('Mul', ['big', 'gain'], ['all' if grey else 'y'])]
    if grey:
        constants.append(helper.make_tensor('axis', onnx.TensorProto.INT64, [1], [1]))
        nodes.append(helper.make_node('ReduceMean', ['all', 'axis'], ['y']))
    model = helper.make_model(helper.make_graph(nodes, 'enlarge', [lr], [sr], constants),
                              opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    if pd is not None:
        note = pd if isinstance(pd, str) else json.dumps(dict(pd=pd))
        helper.set_model_props(model, {onnx_generator.METADATA: note})
    onnx.save(model, path)
    return str(path)


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pooled(image):
    h, w = (side // 2 for side in image.shape[:2])
    return image.astype(float).reshape(h, 2, w, 2, -1).mean((1, 3)).squeeze()


def test_what_a_file_computes(tmp_path):
    generator = OnnxGenerator(enlarger(tmp_path / 'x.onnx', ('h', 'w')))
    assert (generator.scale, generator.only_size, generator.own_pd) == (2, None, None)
    lr = torch.rand(3, 3, 5, 7)
    wanted = 0.5 * lr.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(generator(lr), wanted)
    assert torch.equal(copy.deepcopy(generator)(lr), wanted)
    assert generator(lr.to('meta')).shape == wanted.shape
    fixed = OnnxGenerator(enlarger(tmp_path / 'fixed.onnx', (5, 7), scale=3))
    assert (fixed.scale, fixed.only_size) == (3, (7, 5))
    with pytest.raises(RuntimeError, match='ONNX Runtime: .*nvalid dimensions'):
        fixed(torch.rand(1, 3, 7, 5))
    half = OnnxGenerator(enlarger(tmp_path / 'half.onnx', (8, 'w')))
    assert half.only_size == (None, 8) and half(torch.rand(1, 3, 8, 5)).shape == (1, 3, 16, 10)
    with pytest.raises(RuntimeError, match='ONNX Runtime: .* Got: 7 Expected: 8'):
        half(torch.rand(1, 3, 7, 5))
    with pytest.raises(ValueError, match='expected mean 0 and std 255 in the data preprocessor'):
        fixed.check_normalisation(mean=[127.5] * 3, std=[127.5] * 3)


def test_pd_is_applied_by_mmpd_or_was_in_the_file(tmp_path):
    lr = pixels(8, 8, 3)
    plain = enlarger(tmp_path / 'plain.onnx')
    found, = PDInferencer(plain, device='cpu').predict([read(lr)])[0]
    assert np.array_equal(pooled(found.image.pixels), lr)
    assert found.figures['psnr_lr_raw'] < 20 < found.figures['psnr_lr'] == float('inf')
    half = PDInferencer(plain, device='cpu', strength=0.5)
    assert half.settings['strength'] == '0.5'
    # the file says that PD is in it: its output, which shows that it lies, is left alone
    for own, image in ((dict(operator=POOLING, name='A', strength=0.5), lr),
                       (dict(operator=POOLING, name='A', strength=0.5), lr[..., 0])):
        inferencer = PDInferencer(enlarger(tmp_path / 'own.onnx', pd=own), device='cpu')
        assert inferencer.model.has_own_pd and inferencer.settings['strength'] == '0.5'
        found, = inferencer.predict([read(image)])[0]
        assert np.abs(pooled(found.image.pixels) - image / 2).max() <= 0.5
        assert inferencer.settings['operator'] == 'AveragePooling(scale=2)'
    exact = enlarger(tmp_path / 'exact.onnx', gain=1.,
                     pd=dict(operator=POOLING, name='A', strength=1.))
    alpha = pixels(8, 8, 4)  # alpha is not in the file: mmpd makes it consistent
    assert np.array_equal(pooled(PDInferencer(exact, device='cpu')(alpha)), alpha)


def read(array):
    from mmpd.utils.images import Picture
    return Picture.from_array(array)


def test_a_config_names_a_file(tmp_path):
    model = dict(type='PDModel', base='BaseEditModel', pixel_loss=dict(type='L1Loss'),
                 generator=dict(type='OnnxGenerator', checkpoint=enlarger(tmp_path / 'x.onnx')),
                 data_preprocessor=dict(type='DataPreprocessor', mean=[0.] * 3, std=[255.] * 3))
    inferencer = PDInferencer(Config(dict(model=model)), device='cpu')
    assert len(inferencer.weights) == 8
    assert np.array_equal(pooled(inferencer(pixels(8, 8, 3))), pixels(8, 8, 3))


@pytest.mark.parametrize('own', [None, dict(operator=POOLING, name='A', strength=1.)])
def test_a_folder_by_command(own, tmp_path, capsys):
    (tmp_path / 'lr').mkdir()
    for index in range(2):
        Image.fromarray(pixels(8, 6, 3, seed=index)).save(tmp_path / f'lr/{index}.png')
    Image.fromarray(pixels(9, 6, 3)).save(tmp_path / 'lr/size.png')
    path = enlarger(tmp_path / 'x.onnx', (8, 6), pd=own, gain=1. if own else 0.5)
    arguments = [path, '-i', str(tmp_path / 'lr'), '-o', str(tmp_path / 'sr')]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert '-> inf dB, 0 of 288 LR values' in printed.out and '2 of 3 images' in printed.out
    assert 'size.png: 6x9, but x takes 6x8 only' in printed.err
    assert ("note: " + path + (": PD is the file's own, none is added" if own else
                               ': the file has no PD that it says of')) in printed.err
    for index in range(2):
        assert np.array_equal(pooled(np.asarray(Image.open(tmp_path / f'sr/{index}.png'))),
                              pixels(8, 6, 3, seed=index))
    assert main(arguments) == 1 and '(2 were there)' in capsys.readouterr().out


OWN = dict(operator=POOLING, name='A', strength=1.)


@pytest.mark.parametrize('made, given, error, message', [
    (dict(pd=OWN), dict(strength=0.5), InputError,
     r'has PD of its own \(AveragePooling, strength 1\).* so strength cannot be set; .* --raw'),
    (dict(pd=OWN), dict(operator=dict(type='SeparableResize', kernel='bicubic')), InputError,
     'so operator cannot be set'),
    (dict(pd=dict(OWN, operator=None, name='Masking()')), {}, WeightsMismatch,
     r'whose A \(Masking\(\)\) cannot be made from the file'),
    *((dict(pd=note), {}, WeightsMismatch, 'x.onnx: .* note of the PD inside .* got ')
      for note in ('by mmpd 2', '[1]', '{"pd": 3}', dict(name='A'), dict(OWN, strength=7),
                   dict(OWN, strength='1'), dict(OWN, operator='A'))),
    (dict(pd=dict(OWN, operator=dict(type='Pooling'))), {}, WeightsMismatch,
     "x.onnx: .* unknown type 'Pooling'"),
    ({}, dict(dtype='bfloat16'), InputError, r'x \(OnnxGenerator\) computes in float32 only, got'),
    ({}, dict(device='meta'), InputError, 'x is an ONNX file, .* expected cpu, got meta'),
    ({}, dict(tile=4), InputError, 'OnnxGenerator takes 8x8 only; tiles are for'),
    ({}, dict(checkpoint='x.onnx'), InputError, 'x.onnx is a checkpoint already'),
    (dict(batch=2), {}, WeightsMismatch, r'expected one input lr float\[1, 3, h, w\] .* got x'),
    (dict(channels=1), {}, WeightsMismatch, r'four dimensions, got x float\[1, 1, 8, 8\]; y'),
    (dict(grey=1), {}, WeightsMismatch, r'makes 1x16x16 of 3x8x8; expected a network that'),
    (dict(grey='c'), {}, WeightsMismatch, r'makes 1x16x16 of 3x8x8'),
    (dict(kind=onnx.TensorProto.INT32, gain=1), {}, WeightsMismatch, r'got x int32\['),
    (dict(size=(8, 'w'), scale=2.5), {}, WeightsMismatch, 'makes 3x20x40 of 3x8x16; expected a'),
])
def test_refusals(made, given, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    enlarger('x.onnx', **made)
    with pytest.raises(error, match=message):
        PDInferencer('x.onnx', **dict(dict(device='cpu'), **given))


def test_files_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(WeightsNotFound, match='no checkpoint nothing.onnx'):
        PDInferencer('nothing.onnx', device='cpu')
    (tmp_path / 'x.onnx').write_bytes(b'no graph')
    with pytest.raises(WeightsMismatch, match='x.onnx: ONNX Runtime .* cannot read it: '):
        PDInferencer(tmp_path / 'x.onnx', device='cpu')
    monkeypatch.setitem(__import__('sys').modules, 'onnxruntime', None)
    with pytest.raises(MissingPackage, match=r'onnxruntime, which is not installed: pip install'):
        PDInferencer(tmp_path / 'x.onnx', device='cpu')
