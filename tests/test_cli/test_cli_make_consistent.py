"""mmpd-make-consistent: options, the operator it looks for, its summary."""
from pathlib import Path
from types import SimpleNamespace

import pytest
from refusals import refused

from mmpd.cli import make_consistent


@pytest.mark.parametrize('argv, said', [
    (['--alias'], '--alias: average_pooling has no such variant'),
    (['--operator', 'auto', '--border', 'mirror'], '--border: auto has no such variant'),
    (['--noise-std', '3', '--strength', '0.5'], '--strength: expected 1 beside noise_std=3'),
    (['--workers', '0'], '--workers: expected at least 1, got 0'),
    (['--strength', '1.5'], '--strength: expected a number in [0, 1], got 1.5'),
    (['--operator', 'bicubic', '--made-by', 'opencv'], '--made-by=')])
def test_options_that_do_not_go_together(argv, said, capsys):
    with pytest.raises(SystemExit):
        make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c', *argv])
    err = capsys.readouterr().err
    assert said in err or said.replace('=', '') in err


def test_options_that_do():
    def parse(*argv):
        return make_consistent.parse_args(['--lr', 'a', '--sr', 'b', '--out', 'c', *argv])
    args = parse('--workers', '1', '--noise-std', '3')
    assert args.csv == Path('c/consistency.csv') and args.correction.noise_std == 3
    assert args.degradation['type'] == 'AveragePooling'
    assert parse('--csv', 'x.csv').csv == Path('x.csv')
    assert parse('--operator', 'auto').degradation is None
    args = parse('--operator', 'bicubic', '--alias', '--border', 'mirror', '--made-by', 'float')
    assert (args.degradation['antialias'], args.degradation['border']) == (False, 'mirror')
    for made_by in ('torch', 'pil', 'torch_uint8'):
        assert parse('--operator', 'bicubic', '--made-by', made_by)


@pytest.mark.parametrize('changes, made_by, name, rounding', [
    ({}, 'float', 'bicubic', 'by one rounding'),
    (dict(alias=True), 'opencv', 'bicubic without antialias', 'by opencv, as installed'),
    (dict(border='mirror'), 'matlab', 'bicubic, mirrored at the border', 'by matlab, as installed'),
    (dict(operator='auto', degradation='found'), 'pil', 'found', 'by pil, as installed')])
def test_what_make_consistent_sums_up(capsys, changes, made_by, name, rounding):
    args = SimpleNamespace(**{**dict(alias=False, border='library', operator='bicubic', gt=None,
                                     degradation=None, out='out', csv='c.csv'), **changes})
    rows = [dict(name=stem, made_by=made_by, psnr_lr_before=before, psnr_lr_after='inf',
                 lr_values='10', lr_values_unmatched=wrong, psnr_gt_before='20',
                 psnr_gt_after='21.5')
            for stem, before, wrong in (('a', '30', '0'), ('b', '32', '2'))]
    make_consistent.summarise(args, rows, 0)
    out = capsys.readouterr().out
    assert out.startswith(f'2 images, A = {name}: mean PSNR(LR) 31.00 -> inf dB, 2 of 20 LR values')
    assert rounding in out and 'b: 2 of 10' in out and 'a: ' not in out and 'GT' not in out
    assert out.endswith('written to out, figures in c.csv\n')
    args.gt = 'gt'
    make_consistent.summarise(args, rows, 1)
    out = capsys.readouterr().out
    assert '2 images (1 were complete)' in out and 'against GT 20.000 -> 21.500 dB' in out


def test_pairs_that_auto_looks_at(monkeypatch, capsys):
    """Of the commonest scale, as they are, evenly chosen; GT before SR."""
    def pair(name, scale=4, resize=None):
        return SimpleNamespace(scale=scale, resize=resize, paths=dict(
            lr=f'{name}.lr', sr=f'{name}.sr', gt=f'{name}.gt'))
    monkeypatch.setattr(make_consistent, 'read_raster', lambda path: SimpleNamespace(pixels=path))
    seen = []

    def identified(images, recolour, made_by):
        seen.append(([lr for lr, _ in images], {hr[-2:] for _, hr in images}, recolour))
        return dict(type='SeparableResize', kernel='bicubic'), made_by or 'pil', 31.5, 'unsure'
    monkeypatch.setattr(make_consistent, 'identified', identified)
    args = SimpleNamespace(gt=None, made_by=None)
    pairs = [pair('one', 1), pair('two', 2), pair('odd', resize=(8, 8)),
             *[pair(str(index)) for index in range(17)]]
    cfg, made_by = make_consistent.find_operator(args, pairs)
    assert (cfg['kernel'], made_by) == ('bicubic', 'pil')
    names, kinds, recolour = seen[0]
    assert names == [f'{index}.lr' for index in (0, 3, 6, 9, 12, 15)] and len(names) <= 8
    assert kinds == {'sr'} and recolour
    said = capsys.readouterr()
    assert 'made by pil, PSNR(A(SR), LR) 31.50 dB over 6 pairs' in said.out
    assert said.err == 'warning: unsure\n'
    args = SimpleNamespace(gt='x', made_by='torch')
    assert make_consistent.find_operator(args, pairs[:4])[1] == 'torch'
    assert seen[1][1:] == ({'gt'}, False) and seen[1][0] == ['odd.lr', '0.lr']
    refused(make_consistent.find_operator, SimpleNamespace(gt=None, made_by=None), pairs[:1],
            match='expected pairs of a scale of 2 or more')
