"""Images that cannot be used, in training and test: named, and the run stops or skips them."""
import logging
import os
import pickle

import cv2
import lmdb
import mmagic.datasets
import numpy as np
import pytest
from mmagic.registry import DATASETS, TRANSFORMS
from mmengine.runner import Runner
from PIL import Image

from mmpd.datasets.image_dataset import BasicImageDataset
from mmpd.datasets.transforms import LoadImageFromFile
from mmpd.errors import BadSample
from mmpd.utils.images import read_picture

LOAD = dict(type='LoadImageFromFile', key='gt', color_type='color', channel_order='rgb')
PIPELINE = [LOAD, dict(type='LRSynthesis', scale=4, kernel='average_pooling'),
            dict(type='PackInputs')]


def pixels(height=16, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, seed=0, height=16, **options):
    Image.fromarray(pixels(height, seed=seed)).save(path, **options)


def cut(path):
    save(path)
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path):
    save(path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


BAD = dict(
    read=(os.mkfifo, 'LoadImageFromFile: expected a file, got a named pipe'),
    decode=(cut, 'LoadImageFromFile: not a readable image (truncated: within its part IDAT)'),
    check=(flipped, 'LoadImageFromFile: not a readable image (the checksum of its part IDAT is '
           'wrong)'),
    fit=(lambda path: save(path, height=18), "LRSynthesis: cannot make the LR from 'gt' "),
    link=(lambda path: path.symlink_to('gone.png'), 'LoadImageFromFile: No such file'))


def config(folder, **options):
    return dict(
        type='BasicImageDataset', data_root=str(folder), data_prefix=dict(gt=''),
        metainfo=dict(dataset_type='x', task_name='sisr'), pipeline=PIPELINE, **options)


def build(folder, **options):
    return DATASETS.build(config(folder, **options))


def loader(dataset, workers, batch_size=2):
    return Runner.build_dataloader(dict(
        dataset=dataset, num_workers=workers, batch_size=batch_size,
        sampler=dict(type='DefaultSampler', shuffle=False)))


def folder_with(tmp_path, kind, count=6):
    names = [f'{index}.png' for index in range(count)]
    (tmp_path / 'list.txt').write_text('\n'.join(names))
    for index in range(count):
        if index != 3:
            save(tmp_path / names[index], index)
    BAD[kind][0](tmp_path / '3.png')
    return tmp_path


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('kind', BAD)
def test_the_run_stops_and_says_file_stage_and_reason_in_one_line(tmp_path, kind, workers):
    dataset = build(folder_with(tmp_path, kind), ann_file='list.txt')
    with pytest.raises(BadSample) as caught:
        list(loader(dataset, workers))
    message = str(caught.value)
    assert message.startswith(f'{tmp_path}/3.png: {BAD[kind][1]}') and '\n' not in message


@pytest.mark.parametrize('kind', ['decode', 'fit'])
@pytest.mark.parametrize('workers', [0, 2])
def test_skipped_images_are_counted_and_the_next_one_is_taken(tmp_path, workers, kind):
    batches_of = loader(config(folder_with(tmp_path, kind), ann_file='list.txt',
                               on_bad_image='skip'), workers)
    for _ in range(2):
        batches = list(batches_of)
        files = [sample.gt_path for batch in batches for sample in batch['data_samples']]
        assert [os.path.basename(name) for name in files] == [
            f'{index}.png' for index in (0, 1, 2, 4, 4, 5)]
    assert batches_of.dataset.bad_images == 1  # told by the workers


def test_where_a_run_stops_nothing_is_counted(tmp_path):
    dataset = build(folder_with(tmp_path, 'decode'), ann_file='list.txt')
    with pytest.raises(BadSample):
        dataset[3]
    assert dataset.bad_images == 0


def test_the_count_is_kept_when_the_data_set_is_asked_to_be_ready_again(tmp_path):
    dataset = build(folder_with(tmp_path, 'decode'), ann_file='list.txt', on_bad_image='skip')
    dataset[3]
    dataset._fully_initialized = False
    dataset.full_init()
    assert dataset.bad_images == 1


@pytest.mark.parametrize('error, said', [
    (ValueError(), 'ValueError'), (ValueError('two\nlines'), 'two'),
    (OSError(5, 'Input/output error'), 'Input/output error')], ids=repr)
def test_errors_are_said_in_one_line(tmp_path, error, said):
    def fail(results):
        raise error

    save(tmp_path / 'a.png')
    dataset = build(tmp_path)
    dataset.pipeline.transforms.append(fail)
    with pytest.raises(BadSample) as caught:
        dataset[0]
    assert str(caught.value) == f'{tmp_path}/a.png: function: {said}'


def test_of_a_pair_the_file_is_named_that_the_error_is_about(tmp_path):
    for folder in ('lr', 'gt'):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / 'a.png')
    cfg = config(tmp_path)
    cfg.update(data_prefix=dict(img='lr', gt='gt'), pipeline=[
        dict(type='LoadImageFromFile', key=key) for key in ('img', 'gt')] + [
            dict(type='SetValues', dictionary=dict(scale=4)),
            dict(type='PairedRandomCrop', gt_patch_size=4)])
    dataset = DATASETS.build(cfg)
    with pytest.raises(BadSample, match=(  # of neither: of both
            f'^{tmp_path}/lr/a.png, {tmp_path}/gt/a.png: PairedRandomCrop: ')):
        dataset[0]
    cut(tmp_path / 'gt' / 'a.png')
    with pytest.raises(BadSample, match=f'^{tmp_path}/gt/a.png: LoadImageFromFile: not a'):
        dataset[0]


def test_each_is_reported_once(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('mmpd.datasets.image_dataset.print_log',
                        lambda text, logger, level: told.append((text, level)))
    dataset = build(folder_with(tmp_path, 'decode'), ann_file='list.txt', on_bad_image='skip')
    for _ in range(3):
        dataset[3]
    assert len(told) == 1 and told[0][1] == logging.WARNING
    assert told[0][0].startswith(f'skipped, 1 of 6 images so far: {tmp_path}/3.png: ')


def test_where_none_can_be_used_there_is_an_end(tmp_path):
    for index in range(4):
        cut(tmp_path / f'{index}.png')
    dataset = build(tmp_path, on_bad_image='skip')
    with pytest.raises(BadSample, match='none of 4 images can be used; the last: .*png: Load'):
        dataset[2]
    assert dataset.bad_images == 4


def test_a_pipeline_that_gives_nothing_is_said_not_replaced(tmp_path):
    save(tmp_path / 'a.png')
    with pytest.raises(BadSample, match='a.png: Nothing: it gave no sample'):
        class Nothing:
            def __call__(self, results):
                return None
        dataset = build(tmp_path)
        dataset.pipeline.transforms.insert(1, Nothing())
        dataset[0]


def test_faults_of_the_code_are_not_skipped(tmp_path, monkeypatch):
    save(tmp_path / 'a.png')
    told = []
    monkeypatch.setattr('mmpd.datasets.image_dataset.print_log',
                        lambda text, **_: told.append(text))
    dataset = build(tmp_path, on_bad_image='skip')
    dataset.pipeline.transforms.insert(1, lambda results: results['no such key'])
    with pytest.raises(KeyError):
        dataset[0]
    assert told and 'a.png: function: ' in told[0]


@pytest.mark.parametrize('options, message', [
    (dict(on_bad_image='ignore'), 'on_bad_image: expected one of stop, skip'),
    (dict(search_key='img'), "search_key: expected one of gt, got 'img'"),
    (dict(on_bad_image='skip', test_mode=True), "on_bad_image: expected 'stop' with test_mode")])
def test_arguments(tmp_path, options, message):
    save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **options)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=f'^{tmp_path}/: expected images, found none'):
        build(tmp_path)
    (tmp_path / 'list.txt').touch()
    with pytest.raises(ValueError, match=f'^{tmp_path}/list.txt: expected images, found none'):
        build(tmp_path, ann_file='list.txt')


def test_the_names_of_mmagic_stand_for_them():
    assert DATASETS.get('BasicImageDataset') is BasicImageDataset
    assert issubclass(BasicImageDataset, mmagic.datasets.BasicImageDataset)
    assert TRANSFORMS.get('LoadImageFromFile') is LoadImageFromFile
    assert str(pickle.loads(pickle.dumps(BadSample('a: b: c')))) == 'a: b: c'


@pytest.mark.parametrize('order', ['rgb', 'bgr'])
@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.webp', 'a.bmp'])
def test_ordinary_files_are_what_mmagic_makes_of_them(tmp_path, name, order):
    cv2.imwrite(str(tmp_path / name), pixels(30, 20))
    results = dict(gt_path=str(tmp_path / name))
    theirs = mmagic.datasets.transforms.LoadImageFromFile('gt', channel_order=order)
    ours = LoadImageFromFile('gt', channel_order=order)(dict(results))
    theirs = theirs(dict(results))
    assert ours.keys() == theirs.keys() and ours['gt'].flags.writeable
    assert np.abs(ours['gt'].astype(int) - theirs['gt']).max() == 0


def test_the_rule_is_that_of_inference(tmp_path, monkeypatch):
    """Alpha, palette and orientation are seen to and told; 16 bits and CMYK are refused."""
    told = []
    monkeypatch.setattr('mmpd.datasets.transforms.loading.print_log',
                        lambda text, **_: told.append(text))
    monkeypatch.setattr(LoadImageFromFile, '_told', set())
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'a.png'
    Image.fromarray(pixels(4, 6)).convert('P').save(path, exif=exif, transparency=3)
    load = LoadImageFromFile('gt', channel_order='rgb')
    for _ in range(2):
        image = load(dict(gt_path=str(path)))['gt']
    np.testing.assert_array_equal(image, read_picture(path).pixels)
    assert len(told) == 4 and all(text.startswith(f'{path}: ') for text in told)
    cv2.imwrite(str(path), pixels().astype(np.uint16) * 257)
    with pytest.raises(ValueError, match='a.png: expected 8 bits per channel, got 16 bits'):
        load(dict(gt_path=str(path)))
    chosen = LoadImageFromFile('gt', channel_order='rgb', imdecode_backend='cv2')
    assert chosen(dict(gt_path=str(path)))['gt'].dtype == np.uint8  # who asks for it has it
    Image.new('CMYK', (8, 8)).save(tmp_path / 'a.jpg')
    with pytest.raises(ValueError, match='a.jpg: expected grey or RGB'):
        load(dict(gt_path=str(tmp_path / 'a.jpg')))


@pytest.mark.parametrize('options', [{}, dict(imdecode_backend='cv2'),
                                     dict(color_type='unchanged')])
def test_the_limit_holds_for_every_way_of_decoding(tmp_path, monkeypatch, options):
    save(tmp_path / 'a.png')
    monkeypatch.setenv('MMPD_MAX_PIXELS', '255')
    with pytest.raises(ValueError, match='a.png: expected at most 255 pixels, got 16x16'):
        LoadImageFromFile('gt', **options)(dict(gt_path=str(tmp_path / 'a.png')))


def test_formats_that_pillow_does_not_know_are_left_to_the_backend_asked_for(tmp_path):
    path = tmp_path / 'a.hdr'
    cv2.imwrite(str(path), pixels().astype(np.float32))
    load = LoadImageFromFile('gt', imdecode_backend='cv2')
    assert load(dict(gt_path=str(path)))['gt'].shape == (16, 16, 3)
    with pytest.raises(ValueError, match='a.hdr: not a readable image'):
        LoadImageFromFile('gt')(dict(gt_path=str(path)))
    path.write_bytes(b'no image')
    with pytest.raises(ValueError, match='a.hdr: not a readable image'):
        load(dict(gt_path=str(path)))


@pytest.mark.parametrize('cached', [True, False])
def test_a_cached_file_is_read_once(tmp_path, cached):
    save(tmp_path / 'a.png')
    load = LoadImageFromFile('gt', use_cache=cached, channel_order='rgb')
    sample = dict(gt_path=str(tmp_path / 'a.png'))
    load(dict(sample))
    save(tmp_path / 'a.png', seed=1)
    np.testing.assert_array_equal(load(sample)['gt'], pixels(seed=0 if cached else 1))


def test_an_lmdb_is_looked_at_first(tmp_path):
    save(tmp_path / 'a.png')
    environment = lmdb.open(str(tmp_path / 'x.lmdb'), map_size=1 << 22)
    with environment.begin(write=True) as transaction:
        transaction.put(b'a', (tmp_path / 'a.png').read_bytes())
    environment.close()
    options = dict(channel_order='rgb', backend_args=dict(
        backend='lmdb', db_path=str(tmp_path / 'x.lmdb')))
    load = LoadImageFromFile('gt', **options)
    np.testing.assert_array_equal(load(dict(gt_path='folder/a.png'))['gt'], pixels())
    with pytest.raises(ValueError, match="b.png: .*x.lmdb has no key 'b'"):
        load(dict(gt_path='b.png'))
    del load
    file = tmp_path / 'x.lmdb' / 'data.mdb'
    file.write_bytes(file.read_bytes()[:9000])
    with pytest.raises(ValueError, match='x.lmdb is no LMDB or damaged: truncated'):
        LoadImageFromFile('gt', **options)(dict(gt_path='a.png'))
