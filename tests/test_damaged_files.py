"""Files damaged at random, through every entry point: named, never half a result, never wrong.

Wrong results pass only where the format has no checksum (``SILENT``; docs/images.md says so).
"""
import hashlib
import io
import json
import zipfile
import zlib
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
import torch
from mmagic.registry import DATASETS
from PIL import Image
from safetensors.torch import save_file

from mmpd.apis.folder import FolderRun, Job
from mmpd.cli import converter, identify, make_consistent
from mmpd.errors import BadSample, WeightsMismatch
from mmpd.utils.images import read_picture
from mmpd.utils.reader import read_checkpoint

SILENT = ('jpg', 'tif', 'webp')
COUNTS = [5, pytest.param(25, marks=pytest.mark.slow)]  # of each of eight kinds


def pixels(size, seed):
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8),
                   np.ones((4, 4, 1), np.uint8))


def encoded(array, kind='png'):
    file = io.BytesIO()
    options = dict(tif=dict(compression='tiff_adobe_deflate'), webp=dict(lossless=True))
    Image.fromarray(array).save(file, dict(jpg='JPEG', tif='TIFF').get(kind, kind.upper()),
                                **options.get(kind, {}))
    return file.getvalue()


def damages(data, count, kind):
    """``count`` versions of a file: cut, with wrong bits, with blocks that changed places."""
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    for index in range(count):
        array = np.frombuffer(data, np.uint8).copy()
        if index % 3 == 0:
            array = array[:rng.integers(len(array))]
        elif index % 3 == 1:
            for position in rng.integers(0, len(array), rng.integers(1, 9)):
                array[position] ^= 1 << rng.integers(8)
        else:
            size = max(1, len(array) // 16)
            first, second = rng.choice(len(array) // size, 2, replace=False) * size
            array[first:first + size], array[second:second + size] = (
                array[second:second + size].copy(), array[first:first + size].copy())
        yield array.tobytes()


def run(main, argv, capsys):
    """(exit code, what was said) of a command in this process."""
    try:
        code = main([str(arg) for arg in argv])
    except SystemExit as stop:
        code = stop.code
    output = capsys.readouterr()
    return code, output.out + output.err


def nothing_is_half(folder):
    assert not list(folder.rglob('*.partial'))
    for path in folder.rglob('*.png'):
        read_picture(path)


@pytest.mark.parametrize('count', COUNTS)
@pytest.mark.parametrize('kind', ['png', 'jpg', 'tif', 'webp'])
def test_images(tmp_path, capsys, kind, count):
    original, big = pixels(32, 0), pixels(64, 1)
    whole = encoded(original, kind)
    truth = read_picture('x', whole).pixels
    lr, sr = tmp_path / 'lr', tmp_path / 'sr'
    lr.mkdir(), sr.mkdir()
    names = []
    for index, data in enumerate(damages(whole, count, kind)):
        names.append(f'{index}.{kind}')
        (lr / names[-1]).write_bytes(data)
        Image.fromarray(big).save(sr / f'{index}.png')

    readable = {}  # what the one reader says, the others must say too
    for name in names:
        try:
            readable[name] = read_picture(lr / name).pixels
        except ValueError as error:
            assert str(error).startswith(str(lr / name)) and '\n' not in str(error)
    if kind not in SILENT:
        assert all(np.array_equal(array, truth) for array in readable.values())

    # training
    (tmp_path / 'list.txt').write_text('\n'.join(names))
    dataset = DATASETS.build(dict(
        type='BasicImageDataset', data_root=str(tmp_path), data_prefix=dict(gt='lr'),
        ann_file='list.txt', pipeline=[
            dict(type='LoadImageFromFile', key='gt', channel_order='rgb'),
            dict(type='PackInputs')]))
    for index in range(count):
        path = dataset.get_data_info(index)['gt_path']
        try:
            seen = dataset[index]['data_samples'].gt_img.permute(1, 2, 0).numpy()
        except BadSample as error:
            assert str(error).startswith(f'{path}: LoadImageFromFile: ')
            assert path.rsplit('/')[-1] not in readable
        else:
            expected = readable[path.rsplit('/')[-1]]
            assert np.array_equal(seen, expected if expected.ndim == 3 else
                                  np.dstack([expected] * 3))

    # inference, all but the network
    jobs = [Job(lr / name, name, tmp_path / 'out' / f'{name}.png') for name in names]
    work = FolderRun(SimpleNamespace(settings={}, tile=None, batch_size=1,
                                     check_size=lambda size: None), jobs)
    assert work.check() == [] and not (tmp_path / 'out').exists()
    assert {path.name for path in work.failures} == {*names} - {*readable}
    assert all(str(path) in text for path, text in work.failures.items())

    # converters (which take no TIFF)
    if kind != 'tif':
        code, said = run(lambda argv: converter.main(argv, '', None, 32),
                         [lr, '--out', tmp_path / 'gt', '--workers', 1, '--quiet'], capsys)
        manifest = json.loads((tmp_path / 'gt' / 'manifest.json').read_text())
        report = tmp_path / 'gt' / 'report.txt'
        bad = {line.split('\t')[0] for line in report.read_text().splitlines()} \
            if report.exists() else set()
        assert code == bool(bad) and manifest['images'] + len(bad) == count
        assert bad >= {*names} - {*readable}
        nothing_is_half(tmp_path / 'gt')

    # the commands that take all or nothing: one file at a time
    for name in names:
        one = tmp_path / 'one' / name
        (one / 'lr').mkdir(parents=True), (one / 'sr').mkdir()
        (one / 'lr' / name).write_bytes((lr / name).read_bytes())
        Image.fromarray(big).save(one / 'sr' / f'{name.split(".")[0]}.png')
        code, said = run(make_consistent.main, ['--lr', one / 'lr', '--sr', one / 'sr', '--out',
                                                one / 'out'], capsys)
        assert 'Traceback' not in said
        if name not in readable:
            # a TIFF that Pillow refuses tifffile may still read: then the pair is named
            pair = kind == 'tif' and f'error: {name.split(".")[0]}: ' in said
            assert code == 2 and (name in said or pair) and not (one / 'out').exists(), said
        elif code == 0:
            nothing_is_half(one / 'out')
        else:
            assert code == 2 and name.split('.')[0] in said
        if name not in readable:
            code, said = run(identify.main, ['--lr', one / 'lr', '--gt', one / 'sr', '--csv',
                                             one / 'x.csv'], capsys)
            assert code == 2 and name in said and not (one / 'x.csv').exists()


def archive_of(kind, folder, images):
    """The bytes of a zip file or an LMDB."""
    if kind == 'zip':
        file = io.BytesIO()
        with zipfile.ZipFile(file, 'w') as archive:
            for index, data in enumerate(images):
                archive.writestr(f'{index}.png', data)
        return file.getvalue()
    environment = lmdb.open(str(folder), map_size=1 << 22)
    with environment.begin(write=True) as transaction:
        for index, data in enumerate(images):
            transaction.put(f'key{index}'.encode(), data)
    environment.close()
    return (folder / 'data.mdb').read_bytes()


@pytest.mark.parametrize('count', COUNTS)
@pytest.mark.parametrize('kind', ['zip', 'lmdb'])
def test_archives(tmp_path, capsys, kind, count):
    images = [encoded(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))
              for seed in range(6)]
    sound = {hashlib.sha256(data).hexdigest() for data in images}
    whole = archive_of(kind, tmp_path / 'whole', images)
    for index, data in enumerate(damages(whole, count, kind)):
        path = tmp_path / f'{index}.{kind}'
        if kind == 'lmdb':
            path.mkdir()
        (path / 'data.mdb' if kind == 'lmdb' else path).write_bytes(data)
        out = tmp_path / f'out{index}'
        code, said = run(lambda argv: converter.main(argv, '', None, 32),
                         [path, '--out', out, '--workers', 1, '--quiet'], capsys)
        assert 'Traceback' not in said and 'worker process' not in said
        if code == 2:
            assert path.name in said and said.count('\n') == 1 and not out.exists()
            continue
        manifest = json.loads((out / 'manifest.json').read_text())
        assert {*manifest['gt_sha256'].values()} <= sound  # never other pixels
        assert code == bool(manifest['bad'])
        nothing_is_half(out)


@pytest.mark.parametrize('count', COUNTS)
@pytest.mark.parametrize('kind', ['pth', 'safetensors'])
def test_checkpoints(tmp_path, kind, count):
    torch.manual_seed(0)
    state = {name: torch.randn(7, 5) for name in ('a.weight', 'a.bias', 'b.weight')}
    path = tmp_path / f'whole.{kind}'
    save_file(state, path) if kind == 'safetensors' else torch.save(dict(state_dict=state), path)
    for index, data in enumerate(damages(path.read_bytes(), count, kind)):
        damaged = tmp_path / f'{index}.{kind}'
        damaged.write_bytes(data)
        try:
            read = read_checkpoint(damaged)['state_dict']
        except WeightsMismatch as error:
            assert str(damaged) in str(error) and '\n' not in str(error)
        else:
            if kind == 'pth':  # safetensors has no checksum
                assert read.keys() == state.keys()
                assert all(torch.equal(read[key], state[key]) for key in state)
