"""mmpd-identify: its pairs, its table, its advice."""
from types import SimpleNamespace

import numpy as np
import pytest
from refusals import refused

from mmpd.cli import identify
from mmpd.postprocess.candidate import Candidate


@pytest.mark.parametrize('lr, hr, hint', [
    (['a', 'b'], ['a_sr', 'b_sr'], '; did you mean --hr-suffix=_sr?'),
    (['ax4', 'bx4'], ['a', 'b'], '; did you mean --lr-suffix=x4?'),
    (['a', 'b'], ['a_sr', 'b_hr'], ''), (['ax4', 'bx2'], ['a', 'b'], ''),
    (['a', 'b'], ['a_sr', 'a_x', 'b_x'], '; did you mean --hr-suffix=_x?')])
def test_suffixes_that_would_make_names_fit(lr, hr, hint):
    assert identify._suffix_hint(dict.fromkeys(lr), dict.fromkeys(hr)) == hint


@pytest.fixture
def folders(tmp_path):
    from PIL import Image
    for name, stems in (('lr', 'abcdefg'), ('gt', 'abcdefgh')):
        (tmp_path / name).mkdir()
        for stem in stems:
            Image.new('L', (2, 2)).save(tmp_path / name / f'{stem}.png')
    return tmp_path


def identify_args(folder, **changes):
    return SimpleNamespace(**{**dict(lr=folder / 'lr', gt=folder / 'gt', sr=None, lr_suffix='',
                                     hr_suffix='', pairs=20), **changes})


@pytest.mark.parametrize('pairs, stems', [
    (0, 'abcdefg'), (20, 'abcdefg'), (7, 'abcdefg'), (6, 'abcdef'), (3, 'ace'), (1, 'a')])
def test_pairs_are_spread_over_the_names(folders, pairs, stems):
    found, total = identify.find_pairs(identify_args(folders, pairs=pairs))
    assert ''.join(stem for stem, *_ in found) == stems and total == 7
    assert found[0][1:] == (folders / 'lr' / 'a.png', folders / 'gt' / 'a.png')


def test_three_of_the_missing_are_named(folders):
    for left, names in ((3, r'\(a, b, c\)'), (4, r'\(a, b, c …\)')):
        for stem in 'abcd'[:left]:
            (folders / 'gt' / f'{stem}.png').unlink(missing_ok=True)
        refused(identify.find_pairs, identify_args(folders), match=f'for {left} {names}')
    (folders / 'empty').mkdir()
    refused(identify.find_pairs, identify_args(folders, lr=folders / 'empty'),
            match='--lr .*empty: expected images')
    from PIL import Image
    Image.new('L', (2, 2)).save(folders / 'lr' / 'a.bmp')
    refused(identify.find_pairs, identify_args(folders), match="one file for 'a', got a.bmp and a")
    refused(identify.find_pairs, identify_args(folders, lr_suffix='x'),
            match="a.bmp: expected a stem that ends in 'x'")


def candidate(kernel='bicubic', antialias=True, border='library', made_by='pil', error=0., count=8):
    cfg = dict(type='SeparableResize', scale=4, kernel=kernel, antialias=antialias, border=border)
    return Candidate(cfg, made_by, [error], [count], [0], count // 2)


def test_the_table_has_its_columns_in_line():
    lines = identify._table([candidate(), *[candidate('lanczos', error=8. * rank)
                                            for rank in range(1, 15)]], 'A(GT)').splitlines()
    assert len(lines) == 13 and lines[0].split()[-3:] == ['equal', 'LR', 'values']
    assert lines[1].split() == ['1', 'bicubic', '(antialias)', 'pil', 'exact', '50.00%']
    assert lines[12].split()[0] == '12' and lines[2].split()[-2] == '48.13'
    assert len({len(line) for line in lines}) == 1 and all(line == line.rstrip() for line in lines)
    assert lines[1].index('pil') == lines[2].index('pil') == lines[0].index('made by')


VERDICT = SimpleNamespace(noise_std=None, kind='exact')


@pytest.mark.parametrize('best, verdict, expected, absent', [
    (candidate(), VERDICT, ['--operator bicubic --made-by pil --lr', "made_by='pil')",
                            'strength 1, the default'], ['--alias', '--border', '--noise-std']),
    (candidate(antialias=False, made_by='float'), VERDICT,  # as LRSynthesis makes it by itself
     ['--operator bicubic --alias --made-by float', 'antialias=False'], ['--border', 'made_by=']),
    (candidate(border='mirror', made_by='matlab'), VERDICT,
     ['--border mirror --made-by matlab', "border='mirror', made_by='matlab')"], ['--alias']),
    (candidate(), SimpleNamespace(noise_std=2.345, kind='noisy'),
     ['--noise-std 2.3 --lr', ', noise_std=2.3)', '1 - (2.3 / e)²'], ['strength 1, the']),
    (candidate(), SimpleNamespace(noise_std=None, kind='bound'), ['LRSynthesis'],
     ['strength 1', 'noise'])])
def test_advice(best, verdict, expected, absent):
    text = '\n'.join(identify._advice(best, verdict))
    assert all(part in text for part in expected), text
    assert not any(part in text for part in absent), text


@pytest.mark.parametrize('jpegs, psnr, grid, said', [
    (2, 30., None, '2 of 3 LR files are JPEG files'), (0, float('inf'), (0, 0), False),
    (0, 30., None, False), (0, 30., (0, 0), '8x8 blocks show in LR - A(GT)'),
    (0, 30., (3, 5), '8x8 blocks show in LR - A(GT), cut at (3, 5) afterwards')])
def test_how_it_is_known_that_the_lr_was_compressed(monkeypatch, jpegs, psnr, grid, said):
    class Files(list):
        pass
    files = Files('abc')
    files.jpegs = jpegs
    monkeypatch.setattr(identify, 'block_grid', lambda errors: grid)
    monkeypatch.setattr(identify, 'errors_of', lambda best, pairs: None)
    assert identify._jpeg(files, SimpleNamespace(psnr=psnr), 'GT') == said


def test_a_kernel_that_could_not_be_fitted_is_not_drawn(folders, monkeypatch, capsys):
    class Found(list):
        shape, jpegs, compress = (2, (2, 2), (4, 4)), 0, None
    monkeypatch.setattr(identify, 'Pairs', lambda files: Found(files[:3]))
    monkeypatch.setattr(identify, 'absent_libraries', lambda: dict(torch='too old'))
    monkeypatch.setattr(identify, 'identify', lambda *args, **kwargs: [candidate()])
    monkeypatch.setattr(identify, 'fit_kernel', lambda pairs: None)
    monkeypatch.setattr(identify, '_jpeg', lambda *args: False)
    monkeypatch.setattr(identify, 'give_verdict', lambda *args: SimpleNamespace(
        lines=['It is so.'], noise_std=None, kind='exact'))
    argv = ['--lr', str(folders / 'lr'), '--gt', str(folders / 'gt')]
    refused(identify._main, [*argv, '--kernel-out', str(folders / 'k.png')],
            match='k.png: not written, no kernel could be fitted')
    out = capsys.readouterr().out
    assert '3 of 7 pairs, scale 2; the first: LR 2x2, GT 4x4' in out and 'It is so.' in out
    assert 'torch is not installed (too old): its resizings were not tried' in out
    assert 'Too few LR pixels to fit a free kernel' in out
    assert identify._main([*argv, '--no-kernel']) == 0
    assert 'Too few' not in capsys.readouterr().out and not (folders / 'k.png').exists()


def test_only_jpeg_files_are_compressed_again(tmp_path):
    from PIL import Image
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(image).resize((32, 32)).save(tmp_path / 'hr.png')
    Image.fromarray(image).save(tmp_path / 'a.png')
    Image.fromarray(image).save(tmp_path / 'b.jpg', quality=40, subsampling=2)
    Image.fromarray(image).convert('L').save(tmp_path / 'c.jpg', quality=90)
    Image.fromarray(image).convert('L').resize((32, 32)).save(tmp_path / 'grey.png')
    pairs = identify.Pairs([('a', tmp_path / 'a.png', tmp_path / 'hr.png'),
                            ('b', tmp_path / 'b.jpg', tmp_path / 'hr.png')])
    assert pairs.jpegs == 1 and len(pairs) == 2 and pairs.shape == (2, (16, 16, 3), (32, 32, 3))
    assert pairs.compress(0, image) is image
    assert np.array_equal(pairs.compress(1, image), np.asarray(Image.open(tmp_path / 'b.jpg')))
    assert np.array_equal(pairs[1][0], pairs.compress(1, image))
    grey = identify.Pairs([('c', tmp_path / 'c.jpg', tmp_path / 'grey.png')])
    flat = np.asarray(Image.fromarray(image).convert('L'))
    assert np.array_equal(grey.compress(0, flat), np.asarray(Image.open(tmp_path / 'c.jpg')))
