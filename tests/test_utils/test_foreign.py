"""Checkpoints of other programs: which of their weights are the network's."""
import pytest
import torch

from mmpd.errors import WeightsMismatch
from mmpd.utils.foreign import generator_weights, read_content

ONE, TWO = torch.ones(2), torch.full((2, ), 2.)


@pytest.mark.parametrize('content', [
    {'a.weight': TWO}, {'params': {'a.weight': TWO}}, {'model': {'params': {'a.weight': TWO}}},
    {'params': {'a.weight': ONE}, 'params_ema': {'a.weight': TWO}},
    {'params-ema': {'module.a.weight': TWO}},
    {'state_dict': {'generator.a.weight': TWO, 'discriminator.a.weight': ONE}},
    {'state_dict': {'generator.a.weight': ONE, 'generator_ema.a.weight': TWO,
                    'generator_ema.steps': ONE[0]}},
    {'net': {'netG.a.weight': TWO}, 'iter': 5}, {'a.weight': TWO, 'epoch': 3}])
def test_in_whatever_container_they_lie(tmp_path, content):
    torch.save(content, tmp_path / 'x.pth')
    read = read_content(tmp_path / 'x.pth')
    found = generator_weights(read, 'x.pth')
    assert list(found) == ['a.weight'] and torch.equal(found['a.weight'], TWO)


@pytest.mark.parametrize('content, message', [
    ({}, 'checkpoint x.pth holds no weights; it has: '),
    ({'params': {'a': 3}, 'iter': 5}, 'checkpoint x.pth holds no weights; it has: params, iter'),
    # a third container is none
    ({'model': {'params': {'net': {'a': ONE}}}}, 'checkpoint x.pth holds no weights'),
    ({'a': torch.tensor([torch.nan])}, 'x.pth: 1 of 1 values of "a" are NaN')])
def test_what_holds_none(content, message):
    with pytest.raises(WeightsMismatch, match=message):
        generator_weights(content, 'x.pth')


def test_an_empty_file_of_weights(tmp_path):
    torch.save({}, tmp_path / 'x.pth')
    with pytest.raises(WeightsMismatch, match='x.pth holds no weights'):
        read_content(tmp_path / 'x.pth')
