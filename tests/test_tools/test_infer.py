"""mmpd-infer in this process: mixed folders, resuming, refusals in one line."""
import csv
import errno
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PREPROCESSOR, TINY, tiny_model
from PIL import Image

from mmpd.apis import PDInferencer, folder
from mmpd.apis.folder import read_record
from mmpd.cli.infer import main
from mmpd.utils.images import read_picture

ROOT = Path(__file__).resolve().parents[2]
RRDB = dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
            growth_channels=4, upscale_factor=4)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Configs and checkpoints: one network for 8x8 only, one for any size."""
    home = tmp_path_factory.mktemp('models')
    for name, kind, generator in (('fixed', 'GANPriorSR', TINY), ('any', 'BaseEditModel', RRDB)):
        model = tiny_model(kind, generator)
        torch.save(dict(state_dict=model.state_dict()), home / f'{name}.pth')
        (home / f'{name}.py').write_text(
            f'model = dict(type={kind!r}, generator={generator!r}, '
            f"pixel_loss=dict(type='L1Loss'), data_preprocessor={PREPROCESSOR!r})\n")
    return home


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def lr(tmp_path):
    """Three LR images for the network of fixed size."""
    (tmp_path / 'lr').mkdir()
    for index, name in enumerate('abc'):
        Image.fromarray(pixels(8, 8, 3, seed=index)).save(tmp_path / 'lr' / f'{name}.png')
    return tmp_path / 'lr'


@pytest.fixture
def run(models, tmp_path, capsys):
    """Run the command; returns the exit code, and what it printed."""
    def call(*args, model='fixed', out=tmp_path / 'sr', source=tmp_path / 'lr'):
        argv = [str(models / f'{model}.py'), str(models / f'{model}.pth')] if isinstance(
            model, str) else [str(part) for part in model]
        try:
            code = main([*argv, '-i', str(source), '-o', str(out), '--device', 'cpu',
                         *map(str, args)])
        except SystemExit as exit:
            code = exit.code
        output = capsys.readouterr()
        return code, output.out, output.err
    return call


def pooled(path, scale=4):
    image = np.asarray(Image.open(path)).astype(float)
    h, w = (side // scale for side in image.shape[:2])
    return image.reshape(h, scale, w, scale, -1).mean((1, 3)).squeeze()


def rows(path):
    with path.open(newline='') as file:
        return {row['name']: row for row in csv.DictReader(file)}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob('*') if path.is_file()}


def save_mixed(home):
    """Twenty files, of which eight are bad."""
    good = {
        'rgb.png': pixels(8, 8, 3), 'rgb.bmp.png': pixels(8, 8, 3, seed=1),
        'photo.jpg': pixels(8, 8, 3, seed=2), 'wide.tif': pixels(8, 12, 3, seed=3),
        'grey.png': pixels(9, 8, seed=4), 'greyalpha.png': pixels(8, 8, 2, seed=5),
        'rgba.png': pixels(8, 8, 4, seed=6), 'pixel.png': pixels(1, 1, 3, seed=7),
        'sub/rgb.png': pixels(8, 8, 3, seed=8), 'sub/deep/x.webp': pixels(5, 3, 3, seed=9),
        '=1+1.png': pixels(8, 8, 3, seed=10), 'palette.png': pixels(8, 8, 3, seed=11) // 128 * 255}
    for name, array in good.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(array)
        image = image.convert('P', palette=Image.ADAPTIVE) if name == 'palette.png' else image
        image.save(home / name, **({'lossless': True} if name.endswith('webp') else {}))
    (home / 'text.png').write_text('no image')
    (home / 'empty.jpg').touch()
    Image.fromarray(pixels(64, 64, 3)).save(home / 'cut.png')
    (home / 'cut.png').write_bytes((home / 'cut.png').read_bytes()[:500])
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(home / 'deep.png')
    Image.new('CMYK', (8, 8)).save(home / 'cmyk.jpg')
    Image.new('F', (8, 8)).save(home / 'float.tif')
    Image.new('RGB', (4, 4)).save(home / 'moving.png', save_all=True,
                                  append_images=[Image.new('RGB', (4, 4), 'red')])
    (home / 'sub/noise.webp').write_bytes(pixels(300).tobytes())
    return list(good)


BAD = {'text.png': 'not a readable image (of no known format)', 'empty.jpg': 'not a readable image',
       'cut.png': 'not a readable image', 'deep.png': 'expected 8 bits per channel, got 16 bits',
       'cmyk.jpg': 'got CMYK', 'float.tif': 'got floating point',
       'moving.png': 'expected one picture, got 2 frames', 'sub/noise.webp': 'not a readable image'}


def test_a_folder_of_twenty_mixed_files(run, tmp_path):
    good = save_mixed(tmp_path / 'lr')
    (tmp_path / 'lr/notes.txt').touch()
    code, out, err = run('--recursive', '--csv', tmp_path / 'f/figures.csv', '--batch-size', 2,
                         '--compare', '--suffix', '_sr', model='any')
    assert code == 1 and '12 of 20 images in' in out and '-> inf dB, 0 of ' in out
    assert '8 of 20 images failed' in err and '1 other files in the input folders' in err
    assert 'applies it' not in err  # as is said of ONNX files
    assert 'Traceback' not in err and '12/12' in err
    table = rows(tmp_path / 'f/figures.csv')
    assert len(table) == 20
    for name, message in BAD.items():
        line, = (line for line in err.splitlines() if f'lr/{name}: ' in line)
        assert line.startswith('error: ') and message in line
        assert message in table[name]['error'] and table[name]['psnr_lr'] == ''
    for name in good:
        target = (tmp_path / 'sr' / name).with_name(f'{Path(name).stem}_sr.png')
        lr = read_picture(tmp_path / 'lr' / name).as_array()
        assert np.array_equal(pooled(target), lr.squeeze()), name
        row = table["'=1+1.png" if name.startswith('=') else name]
        assert row['output'] == str(target) and row['error'] == ''
        assert (row['psnr_lr'], row['lr_values_unmatched']) == ('inf', '0')
        assert float(row['psnr_lr_raw']) < 40
        panel = Image.open(tmp_path / 'sr/compare' / target.relative_to(tmp_path / 'sr'))
        assert panel.width > 500 and panel.height > 300
    assert len(list((tmp_path / 'sr').rglob('*_sr.png'))) == 24
    assert not list(tmp_path.rglob('*.partial'))


def test_a_wrong_size_lists_the_valid_one(run, lr, tmp_path):
    Image.fromarray(pixels(9, 8, 3)).save(lr / 'size.png')
    code, out, err = run()
    assert code == 1 and 'size.png: 8x9, but fixed takes 8x8 only' in err
    assert sorted(contents(tmp_path / 'sr')) == ['a.png', 'b.png', 'c.png']


def test_nothing_but_bad_files_is_an_error_and_leaves_nothing(run, tmp_path):
    (tmp_path / 'lr').mkdir()
    (tmp_path / 'lr/x.png').touch()
    code, out, err = run()
    assert code == 2 and 'nothing was written' in err and not (tmp_path / 'sr').exists()


def test_one_file_to_one_file(run, lr, tmp_path):
    assert run(source=lr / 'a.png', out=tmp_path / 'one.tif')[0] == 0
    assert np.array_equal(pooled(tmp_path / 'one.tif'), pixels(8, 8, 3))
    assert run(source=lr / 'a.png', out=tmp_path / 'folder')[0] == 0
    assert np.array_equal(pooled(tmp_path / 'folder/a.png'), pixels(8, 8, 3))
    assert run('--ext', 'webp', source=lr / '[bc].png', out=tmp_path / 'webp')[0] == 0
    assert sorted(contents(tmp_path / 'webp')) == ['b.webp', 'c.webp']


def test_settings_change_what_is_written(run, lr, tmp_path):
    seen = {}
    for name, options, dB in (
            ('usual', (), (200, 1e9)), ('half', ('--strength', 0.5), (0, 40)),
            ('raw', ('--strength', 0), (0, 40)), ('clip', ('--quantize', 'clip'), (40, 100)),
            ('bicubic', ('--operator', 'bicubic'), (25, 1e9)),
            ('alias', ('--operator', 'bicubic', '--alias'), (20, 1e9)),
            ('bfloat16', ('--dtype', 'bfloat16'), (200, 1e9)),
            ('mirror', ('--operator', 'bicubic', '--border', 'mirror'), (25, 1e9)),
            ('option', ('--cfg-options', 'model.test_cfg.quantize=clip'), (40, 100))):
        assert run(*options, '--csv', tmp_path / name / 'f.csv', source=lr / 'a.png',
                   out=tmp_path / name)[0] == 0
        seen[name] = np.asarray(Image.open(tmp_path / name / 'a.png'))
        low, high = dB
        assert low < float(rows(tmp_path / name / 'f.csv')['a.png']['psnr_lr']) <= float('inf')
        assert high > 1e8 or float(rows(tmp_path / name / 'f.csv')['a.png']['psnr_lr']) < high
    assert np.array_equal(seen.pop('option'), seen['clip'])
    names = list(seen)
    for index, name in enumerate(names):
        assert not any(np.array_equal(seen[name], seen[other]) for other in names[index + 1:]), name


def test_tiles_are_exact_over_the_whole_picture(run, tmp_path):
    (tmp_path / 'lr').mkdir()
    Image.fromarray(pixels(19, 14, 3)).save(tmp_path / 'lr/x.png')
    assert run('--tile', 5, '--tile-overlap', 1, '--batch-size', 3, model='any')[0] == 0
    assert np.array_equal(pooled(tmp_path / 'sr/x.png'), pixels(19, 14, 3))
    assert read_record(tmp_path / 'sr/x.png')['tile'] == '5+1'


def test_the_same_command_goes_on_and_other_settings_do_not(run, lr, tmp_path):
    assert run('--csv', tmp_path / 'sr/f.csv')[0] == 0
    complete = contents(tmp_path / 'sr')
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'sr').glob('*.png')}
    (tmp_path / 'sr/b.png').unlink()
    (tmp_path / 'sr/.b.png.0123abcd.partial').touch()  # of a killed process
    code, out, err = run('--csv', tmp_path / 'sr/f.csv')
    assert code == 0 and '3 of 3 images' in out and '(2 were there)' in out
    assert contents(tmp_path / 'sr') == complete
    assert times[tmp_path / 'sr/a.png'] == (tmp_path / 'sr/a.png').stat().st_mtime_ns
    code, out, err = run('--strength', 0.5)
    assert code == 2 and 'made with strength 1 instead of 0.5, quantize consistent inst' in err
    assert err.count('error: ') == 4 and contents(tmp_path / 'sr') == complete
    Image.fromarray(pixels(8, 8, 3, seed=9)).save(lr / 'a.png')  # another LR
    code, out, err = run()
    assert code == 2 and 'a.png: exists, made with lr ' in err
    (tmp_path / 'sr/a.png').unlink()
    Image.new('RGB', (4, 4)).save(tmp_path / 'sr/c.png')
    code, out, err = run()
    assert code == 2 and 'c.png: exists, and is not of mmpd-infer' in err
    assert not (tmp_path / 'sr/a.png').exists()
    assert run('--strength', 0.5, '--overwrite')[0] == 0
    assert read_record(tmp_path / 'sr/c.png')['strength'] == '0.5'


def test_a_batch_that_fails_costs_one_file_only(run, lr, tmp_path, monkeypatch):
    predict = PDInferencer.predict

    def failing(self, pictures):
        if any(np.array_equal(picture.pixels, pixels(8, 8, 3, seed=1)) for picture in pictures):
            raise torch.cuda.OutOfMemoryError('CUDA out of memory.\nTried to allocate')
        return predict(self, pictures)
    monkeypatch.setattr(PDInferencer, 'predict', failing)
    code, out, err = run('--batch-size', 3)
    assert code == 1 and 'b.png: out of memory: try a smaller --batch-size' in err
    assert sorted(contents(tmp_path / 'sr')) == ['a.png', 'c.png']


def test_a_full_disk_ends_it_with_one_line(run, lr, tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # no PNG of 32x32 noise is shorter
    try:
        code, out, err = run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert code == 2 and contents(tmp_path / 'sr') == {}
    assert re.search(rf'a.png: cannot be written: {os.strerror(errno.EFBIG)}.* needed, the limit '
                     r'of this process is 1,000 .* free \(0 files were', err)
    assert len([line for line in err.splitlines() if 'mmpd' in line or 'error' in line]) <= 1
    assert 'Traceback' not in err


def test_ctrl_c_leaves_whole_files(run, lr, tmp_path, monkeypatch):
    write = folder.write_picture

    def interrupted(picture, path, *args):
        if path.name == 'b.png':
            raise KeyboardInterrupt
        write(picture, path, *args)
    monkeypatch.setattr(folder, 'write_picture', interrupted)
    code, out, err = run('--workers', 1)
    assert code == 130 and 'interrupted: the same command goes on' in err
    monkeypatch.undo()
    code, out, err = run()
    assert code == 0 and '3 of 3 images' in out
    assert sorted(contents(tmp_path / 'sr')) == ['a.png', 'b.png', 'c.png']


REFUSED = {
    'no model': (dict(model=['nothing.py']), (), 'no config, checkpoint or model of the zoo'),
    'no checkpoint': (dict(model=['{models}/fixed.py', 'nothing.pth']), (),
                      'no checkpoint nothing.pth'),
    'config alone': (dict(model=['{models}/fixed.py']), (), 'a config needs a checkpoint as well'),
    'near name': (dict(model=['pd_glean_x8_2xb8_kat']), (), 'did you mean pd_glean_x8_2xb8_cat'),
    'no weights': (dict(model=['pd_glean_x8_1xb4-100k_ffhq']), (),
                   'no weights of pd_glean_x8_1xb4-100k_ffhq are published'),
    'other weights': (dict(model=['{models}/fixed.py', '{models}/any.pth']), (), 'is not one of'),
    'no input': (dict(source='{tmp}/none'), (), '--input .*none: no such file or folder'),
    'empty folder': (dict(source='{tmp}'), (), 'expected images .* found none'),
    'input as output': (dict(out='{tmp}/lr'), (), 'is also the input folder'),
    'output in input': (dict(out='{tmp}/lr/sr'), ('--recursive', ), 'lies in the input folder'),
    'input file': (dict(out='{tmp}/lr/a.png', source='{tmp}/lr/a.png'), (), 'replace an input'),
    'file for folder': (dict(out='{tmp}/x.png'), (), 'expected a folder for 3 images'),
    'lossy': (dict(out='{tmp}/x.jpg', source='{tmp}/lr/a.png'), (), 'jpg would not keep'),
    'file in the way': (dict(out='{tmp}/lr/a.png/sr', source='{tmp}/lr/b.png'), (),
                        'a.png is not a folder'),
    'read-only': (dict(out='/proc/sr'), (), '/proc cannot be written to'),
    'csv': ({}, ('--csv', '{tmp}/lr/a.png'), 'would replace an input image'),
    'strength': ({}, ('--strength', '2'), '--strength: expected a number from 0 to 1, got 2'),
    'undone': ({}, ('--strength', '0.5', '--quantize', 'consistent'), 'would undo --strength 0.5'),
    'batch': ({}, ('--batch-size', '0'), '--batch-size: expected at least 1, got 0'),
    'tile': ({}, ('--tile', '8'), 'takes 8x8 only; tiles are for fully convolutional'),
    'device': ({}, ('--device', 'quantum'), "another device of this machine, got 'quantum'"),
    'alias': ({}, ('--alias', ), '--alias: belongs to --operator bicubic'),
    'options': ({}, ('--cfg-options', 'model'), 'expected KEY=VALUE'),
    'section': ({}, ('--cfg-options', 'modl.x=1'), "has no 'modl'"),
    'float16': ({}, ('--dtype', 'float16'), 'dtype: float16 needs a CUDA GPU, and the device is'),
    'launcher': ({}, ('--launcher', 'slurm'), 'expected SLURM_PROCID, SLURM_NTASKS'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refused_in_one_line(run, lr, models, tmp_path, case):
    where, options, message = REFUSED[case]

    def fill(value):
        return value.format(models=models, tmp=tmp_path)
    where = {key: [fill(part) for part in value] if key == 'model' else fill(value)
             for key, value in where.items()}
    before = contents(tmp_path)
    code, out, err = run(*map(fill, options), **where)
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2 and not out
    assert re.search(message, lines[-1]), err
    assert len([line for line in lines if 'Warning' not in line and 'warn' not in line]) == 1, err
    assert contents(tmp_path) == before


def test_files_that_would_meet_are_named(run, lr):
    Image.fromarray(pixels(8, 8, 3)).save(lr / 'a.tif')
    code, out, err = run()
    assert code == 2 and re.search('a.png and .*a.tif would both become .*sr/a.png', err)


def start(models, tmp_path, out, *options, prefix=()):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *prefix, str(ROOT / 'tools/infer.py'), str(models / 'fixed.py'),
         str(models / 'fixed.pth'), '-i', str(tmp_path / 'lr'), '-o', str(out), '--device', 'cpu',
         *options], env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(*processes):
    """Their exit codes and what they printed."""
    outputs = [process.communicate(timeout=280) for process in processes]
    return [process.returncode for process in processes], outputs


def many(folder, count):
    for index in range(count):
        Image.fromarray(pixels(8, 8, 3, seed=index)).save(folder / f'{index:03}.png')
    (folder / 'bad.png').touch()


@pytest.mark.slow  # three starts of the command
@pytest.mark.timeout(900)
def test_killed_processes_leave_whole_files_and_two_make_what_one_does(run, models, lr, tmp_path):
    many(lr, 60)
    assert run('--batch-size', 4, '--csv', tmp_path / 'one.csv', out=tmp_path / 'one')[0] == 1
    one = contents(tmp_path / 'one')
    assert len(one) == 63

    # a process that is killed in the middle
    process = start(models, tmp_path, tmp_path / 'sr', '--batch-size', '4')
    while process.poll() is None and len(list((tmp_path / 'sr').glob('*.png'))) < 5:
        time.sleep(0.01)
    process.kill()
    end(process)
    part = contents(tmp_path / 'sr')
    whole = {name: data for name, data in part.items() if not name.endswith('.partial')}
    assert 5 <= len(whole) < 63 and all(one[name] == data for name, data in whole.items())

    # two processes go on
    codes, outputs = end(start(
        models, tmp_path, tmp_path / 'sr', '--batch-size', '4', '--launcher', 'pytorch', '--csv',
        str(tmp_path / 'two.csv'), prefix=(
            '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--rdzv_backend', 'c10d',
            '--rdzv_endpoint', '127.0.0.1:0')))
    assert codes == [1], outputs  # torchrun's own, for the exit code 1 of both
    assert contents(tmp_path / 'sr') == one
    out = outputs[0][0]
    assert out.count('63 of 64 images') == 1 and f'({len(whole)} were there)' in out
    assert rows(tmp_path / 'two.csv').keys() == rows(tmp_path / 'one.csv').keys()
    assert [{**row, 'output': ''} for row in rows(tmp_path / 'two.csv').values()] == [
        {**row, 'output': ''} for row in rows(tmp_path / 'one.csv').values()]


def test_what_is_no_file_is_named_and_the_rest_goes_on(run, lr, tmp_path):
    os.mkfifo(lr / 'pipe.png')
    (lr / 'loop.png').symlink_to('loop.png')
    (lr / 'folder.png').mkdir()
    for name in (b'caf\xe9.png', b'x\nerror: y.png', b'z' * 240 + b'.png'):
        with open(os.path.join(os.fsencode(lr), name), 'wb') as file:
            Image.fromarray(pixels(8, 8, 3)).save(file, 'PNG')
    code, _, error = run('--csv', tmp_path / 'x.csv', '--suffix', '_of_a_network')
    assert code == 1
    for text in ('pipe.png: expected a file, got a named pipe',
                 'loop.png: not a readable image (Too many levels of symbolic links)',
                 'folder.png: expected a file, got a folder', 'caf\\udce9.png: its name',
                 f'{"z" * 240}.png: expected a name of at most 255 bytes, got 257'):
        assert text in error
    made = sorted(path.name for path in (tmp_path / 'sr').iterdir())
    assert made == [f'{name}_of_a_network.png' for name in ('a', 'b', 'c', 'x\nerror: y')]
    assert len(rows(tmp_path / 'x.csv')) == 9


def test_what_was_done_to_a_file_is_told(run, lr):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels(8, 8)).convert('P').save(lr / 'a.png', exif=exif)
    code, _, error = run()
    assert code == 0 and f'note: {lr}/a.png: turned as its orientation says' in error
    assert f'note: {lr}/a.png: its palette was looked up' in error


def test_more_pixels_than_allowed(run, lr, monkeypatch):
    monkeypatch.setenv('MMPD_MAX_PIXELS', '63')
    code, _, error = run()
    assert code == 2 and error.count('expected at most 63 pixels, got 8x8') == 3
