"""mmpd-infer beside the model: options, names of outputs, folders, devices."""
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from refusals import raising, refused

from mmpd.cli import infer


def infer_args(**changes):
    return SimpleNamespace(**{**dict(
        batch_size=1, workers=None, tile=None, tile_overlap=0, strength=None, quantize=None,
        suffix='', alias=False, border='library', operator=None, made_by=None), **changes})


@pytest.mark.parametrize('changes, match', [
    (dict(batch_size=0), '--batch-size: expected at least 1, got 0'),
    (dict(workers=0), '--workers: expected at least 1, got 0'),
    (dict(tile=0), '--tile: expected at least 1, got 0'),
    (dict(tile_overlap=-1), '--tile-overlap: expected at least 0, got -1'),
    (dict(strength=1.5), '--strength: expected a number from 0 to 1, got 1.5'),
    (dict(strength=-0.5), '--strength: expected a number from 0 to 1, got -0.5'),
    (dict(strength=0.5, quantize='consistent'), '--quantize consistent would undo --strength 0.5'),
    (dict(suffix='a/b'), '--suffix: expected part of a file name, got a/b'),
    (dict(suffix='a\\b'), '--suffix: expected part of a file name'),
    (dict(alias=True), '--alias: belongs to --operator'),
    (dict(border='mirror', operator='average_pooling'), '--border: belongs to --operator bic')])
def test_numbers_that_infer_refuses(changes, match):
    refused(infer.check_numbers, infer_args(**changes), match=match)


def test_numbers_that_infer_takes():
    for changes in ({}, dict(workers=1, tile=1, strength=0.), dict(strength=0.5),
                    dict(strength=1., quantize='consistent'),
                    dict(alias=True, border='mirror', operator='bicubic')):
        infer.check_numbers(infer_args(**changes))


@pytest.mark.parametrize('changes, expected', [
    ({}, None), (dict(operator='average_pooling'), dict(type='AveragePooling', scale=None)),
    (dict(operator='bicubic'), dict(kernel='bicubic', antialias=True, border='library')),
    (dict(operator='bicubic', alias=True), dict(antialias=False)),
    (dict(operator='lanczos', made_by='opencv'), dict(kernel='lanczos', antialias=False)),
    (dict(operator='box', made_by='opencv'), dict(kernel='box', antialias=True)),
    (dict(operator='bicubic', made_by='matlab'), dict(antialias=True, border='mirror')),
    (dict(operator='bicubic', border='mirror'), dict(border='mirror'))])
def test_the_operator_that_options_name(changes, expected):
    found = infer.operator_config(infer_args(**changes))
    assert found is None if expected is None else expected.items() <= found.items()


def test_names_of_one_output_file():
    def check(out, count=1, suffix='', ext=None):
        infer.check_file_name(SimpleNamespace(out=Path(out), suffix=suffix, ext=ext), count)

    check('a.png'), check('a.png', ext='png'), check('a.PNG')
    refused(check, 'a.png', 2, match='expected a folder for 2 images')
    refused(check, 'a.jpg', match='jpg would not keep the pixels; expected .*png')
    refused(check, 'a.png', 1, '_sr', match='names the file already')
    refused(check, 'a.png', 1, '', 'webp', match='names the file already')


def test_a_csv_of_others_is_not_replaced(tmp_path):
    path = tmp_path / 'a.csv'

    def check(overwrite=False):
        infer.check_csv(SimpleNamespace(csv=path, overwrite=overwrite))

    check()
    path.write_text('year,sales\n')
    refused(check, match='a.csv: exists, and is not of mmpd-infer')
    check(overwrite=True)
    path.write_text(','.join(infer.COLUMNS) + '\n')
    check()


def test_devices_of_several_processes(monkeypatch):
    def device(name=None, rank=0, size=1, count=2):
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
        return infer.check_device(SimpleNamespace(device=name),
                                  SimpleNamespace(local_rank=rank, world_size=size))

    assert device() is None and device(size=4, count=0) is None and device('cpu') == 'cpu'
    assert [device(rank=rank, size=4) for rank in range(3)] == ['cuda:0', 'cuda:1', 'cuda:0']
    refused(device, 'gpu', match="--device: expected .* device of this machine, got 'gpu' ")


def test_folders_that_cannot_be_written_to(tmp_path):
    infer.check_writable([tmp_path / 'new' / 'deeper'])
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'file').touch()
    refused(infer.check_writable, [tmp_path / 'file' / 'x'], match='file is not a folder')
    refused(infer.check_writable, [Path('/proc/nowhere')], match='/proc cannot be written to')


def test_infer_that_is_interrupted_before_it_began(monkeypatch, capsys):
    monkeypatch.setattr(infer, 'run_tool', raising(KeyboardInterrupt()))
    monkeypatch.setattr(infer, 'run_tool', lambda *args: raising(KeyboardInterrupt())(args))
    assert infer.main([]) == 130
    assert capsys.readouterr().err == 'interrupted: nothing was written\n'


def test_models_that_draw_samples_have_no_file_for_each(monkeypatch):
    seen = []

    def inferencer(*args, **kwargs):
        seen.append(args)
        return SimpleNamespace(model=SimpleNamespace(num_samples=2))
    monkeypatch.setattr('mmpd.apis.PDInferencer', inferencer)
    args = infer.parse_args(['m.py', 'c.pth', '-i', 'a', '-o', 'b', '--cfg-options',
                             'model.x=[1,2]'])
    refused(infer.build, args, 'cpu', match='test_cfg.num_samples=2: mmpd-infer writes one file')
    assert seen[0][:7] == ('m.py', 'c.pth', 'cpu', {'model.x': [1, 2]}, None, None, None)
    assert seen[0][7:11] == (None, None, 16, 1)
    monkeypatch.setattr('mmpd.apis.PDInferencer', lambda *args, **kwargs: SimpleNamespace(
        model=None))
    assert infer.build(args, 'cpu').model is None


def test_folders_of_outputs(tmp_path):
    (tmp_path / 'file').touch()
    jobs = [SimpleNamespace(target=tmp_path / 'a' / 'b' / 'x.png', panel=None),
            SimpleNamespace(target=tmp_path / 'a' / 'b' / 'y.png', panel=tmp_path / 'c' / 'y.png')]
    assert infer.prepare_folders(jobs) is None
    assert (tmp_path / 'a' / 'b').is_dir() and (tmp_path / 'c').is_dir()
    (tmp_path / 'c' / '.y.png.0123abcd.partial').touch()
    assert infer.prepare_folders(jobs) is None and not any((tmp_path / 'c').iterdir())
    jobs.append(SimpleNamespace(target=tmp_path / 'file' / 'z.png', panel=None))
    assert infer.prepare_folders(jobs).startswith(
        f'{tmp_path}/file: cannot be made or written to: ')


def test_names_of_outputs(tmp_path):
    from PIL import Image
    (tmp_path / 'lr').mkdir()
    for name in ('b.png', 'a.png'):
        Image.new('RGB', (2, 2)).save(tmp_path / 'lr' / name)
    (tmp_path / 'lr' / 'notes.txt').touch()

    def plan(*argv, source='lr', out='sr'):
        return infer.plan(infer.parse_args(['m', '-i', str(tmp_path / source), '-o',
                                            str(tmp_path / out), *map(str, argv)]))
    plans, others = plan('--suffix', '_x', '--ext', 'webp', '--compare')
    assert others == 1 and [one.target.name for one in plans] == ['a_x.webp', 'b_x.webp']
    assert [one.panel for one in plans] == [
        tmp_path / 'sr' / 'compare' / f'{name}_x.png' for name in 'ab']
    plans, others = plan(source='lr/a.png', out='one.png')
    assert plans[0].target == tmp_path / 'one.png' and plans[0].panel is None and others == 0
    (tmp_path / 'folder.png').mkdir()
    assert plan(source='lr/a.png', out='folder.png')[0][0].target.name == 'a.png'
    twice = infer.parse_args(['m', '-i', *[str(tmp_path / 'lr' / 'a.png')] * 2, '-o',
                              str(tmp_path / 'sr')])
    assert len(infer.plan(twice)[0]) == 1
    (tmp_path / 'sr' / 'a.png').mkdir(parents=True)
    refused(plan, match='sr/a.png: is a folder, expected a file name')
    for argv, out, message in (
            (['--csv', tmp_path / 'folder.png'], 'other', 'folder.png: is a folder'),
            (['--csv', tmp_path / 'lr' / 'a.png'], 'other', 'would replace an input image'),
            (['--csv', tmp_path / 'other'], 'other', r'--csv .*other: .*other/a\.png is an output'),
            (['--csv', tmp_path / 'other' / 'b.png'], 'other', r'b\.png is an output'),
            (['--csv', tmp_path / 'other' / 'a.png' / 'x.csv'], 'other', r'a\.png is an output'),
            (['--csv', tmp_path / 'other' / 'compare', '--compare'], 'other',
             r'compare/a\.png is an output'),
            (['--recursive'], 'lr/deep/sr', 'lies in the input folder')):
        refused(lambda argv=argv, out=out: plan(*argv, out=out), match=message)
    plan('--csv', tmp_path / 'other' / 'a.png.csv', out='other')
    plan(out='lr/deep/sr')  # which is not looked through
