"""Converted weights: renamed, checked against the network, written."""
from pathlib import Path

import torch
from refusals import refused

from mmpd.cli import model_converter


def test_converted_weights_are_those_of_the_network(tmp_path, capsys):
    cfg = dict(type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
               upscale_factor=2)
    from mmagic.registry import MODELS
    state = MODELS.build(cfg).state_dict()
    theirs = {f'net.{key}': value for key, value in state.items()}
    found = model_converter.rename(theirs, [(r'^net\.', ''), (r'never', 'x')])
    model_converter.check(found, cfg)
    key = next(iter(state))
    wrong = {**found, key: torch.ones(1), 'extra': torch.ones(1)}
    del wrong['conv_last.weight']
    refused(model_converter.check, wrong, cfg, match=(
        '3 tensors do not fit MSRResNet: "conv_last.weight" is missing; "extra" is unknown; '
        f'"{key}" ' r'is \(1,\), expected \(4, 3, 3, 3\)'))
    refused(model_converter.check, found, dict(cfg, upscale_factor=5), match='no such MSRResNet')
    target = tmp_path / 'out.pth'
    model_converter.write(found, cfg, Path('folder/theirs.pth'), target)
    saved = torch.load(target)
    assert torch.equal(saved['state_dict'][key], state[key])
    assert saved['meta']['converted_from'] == 'theirs.pth'
    assert f'{target}: {len(state)} tensors for ' in capsys.readouterr().out
