"""What is printed beside every result: output, data and metrics as they really are."""
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from mmagic.registry import METRICS, TRANSFORMS
from torch.utils.data import Dataset

import mmpd
from mmpd.evaluation.protocol import protocol


class Images(Dataset):
    data_root = 'faces'

    def __init__(self, count, pipeline=(), prefix=None):
        self.count, self.data_prefix = count, prefix
        self.pipeline = SimpleNamespace(transforms=[TRANSFORMS.build(step) for step in pipeline])

    def __len__(self):
        return self.count


def lines(model, metrics=(), dataset=None):
    """Without the line of versions, which is looked at once."""
    loop = SimpleNamespace(
        evaluator=SimpleNamespace(metrics=[METRICS.build(metric) for metric in metrics]),
        dataloader=SimpleNamespace(dataset=dataset or Images(3)))
    versions, *found = protocol(SimpleNamespace(test_loop=loop, model=model))
    assert versions.startswith(f'mmpd {mmpd.__version__}, mmagic 1.')
    assert versions.endswith(f', torch {torch.__version__}')
    return found


def test_the_output():
    plain = tiny_model('GANPriorSR')
    assert lines(plain)[0] == 'output: GANPriorSR, without PD, float clipped to 0..255'
    found = lines(tiny_model())[0]
    assert found.startswith('output: PDGLEAN, A = ') and 'AveragePooling(scale=4)' in found
    assert found.endswith(", strength 1, quantize 'consistent'")
    weaker = lines(tiny_model(pd_head=dict(strength=0.5)))[0]
    assert weaker.endswith(", strength 0.5, quantize 'clip'")
    bicubic = lines(tiny_model(pd_head=dict(operator=dict(type='SeparableResize', scale=4))))[0]
    assert 'SeparableResize' in bicubic


@pytest.mark.parametrize('dataset, text', [
    (Images(3), 'data: 3 images of faces, LR by the pipeline'),
    (Images(3, prefix=dict(img='lr')), 'data: 3 images of faces, LR by files in lr'),
    (Images(2, [dict(type='LRSynthesis', scale=4)]),
     r'data: 2 images of faces, LR by LRSynthesis\(scale=4'),
    (torch.utils.data.ConcatDataset([Images(1)]), 'data: 1 images of None')])
def test_the_data(dataset, text):
    assert re.match(text, lines(tiny_model(), dataset=dataset)[1])
    if isinstance(dataset, Images):
        repeated = type('Repeat', (), dict(dataset=dataset, __len__=lambda self: 9))()
        found = lines(tiny_model(), dataset=repeated)[1]
        assert re.match(text.replace(text.split()[1], '9', 1), found)


def test_the_metrics():
    found = lines(tiny_model(), [
        dict(type='PSNR'), dict(type='PSNR', crop_border=4, convert_to='Y', prefix='own'),
        dict(type='MAE'), dict(type='LRConsistency'), dict(type='PairedMSSSIM')])[2:]
    assert found[0] == "PSNR: MMagic's, 0 border pixels cropped, all channels"
    assert found[1] == "own/PSNR: MMagic's, 4 border pixels cropped, Y channel"
    assert found[2] == "MAE: MMagic's"
    assert found[3].startswith('LRConsistency: A = ') and 'float64' in found[3]
    assert found[4].startswith('PairedMSSSIM: saved 8-bit image, all channels, range 255')


def test_every_evaluator_of_several():
    def part(name, count):
        return (SimpleNamespace(metrics=[METRICS.build(dict(type='MAE', prefix=name))]),
                SimpleNamespace(dataset=Images(count)))

    evaluators, dataloaders = zip(part('a', 1), part('b', 2), strict=True)
    loop = SimpleNamespace(evaluators=evaluators, dataloaders=dataloaders)
    found = protocol(SimpleNamespace(test_loop=loop, model=tiny_model()))[2:]
    assert [line.split(' ')[:2] for line in found] == [
        ['data:', '1'], ['a/MAE:', "MMagic's"], ['data:', '2'], ['b/MAE:', "MMagic's"]]
