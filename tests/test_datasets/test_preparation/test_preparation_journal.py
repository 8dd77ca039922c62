"""What runs and shards know of one another."""
import json

import pytest
from raw_images import encode, everything, folder_of, picture, run, with_a_bad_one

from mmpd.datasets.preparation import Recipe, engine, open_source, prepare
from mmpd.datasets.preparation.journal import Journal, check_shard

pytestmark = pytest.mark.usefixtures('one_process')


def test_shards_leave_what_one_run_leaves_byte_for_byte(tmp_path, capsys):
    root, outs = with_a_bad_one(tmp_path), [tmp_path / 'whole', tmp_path / 'parts']
    options = ['--size', 32, '--scale', 8, '--test-count', 2]
    assert run('ffhq', root, '--out', outs[0], *options) == 1
    for index, code, missing in ((2, 0, 5), (3, 0, 3)):
        assert run('ffhq', root, '--out', outs[1], *options, '--shard', f'{index}/3') == code
        assert '2 images, 0 of them bad' in (said := capsys.readouterr().out)
        assert f'{missing} of other shards are missing' in said
    assert not (outs[1] / 'manifest.json').exists()
    assert run('ffhq', root, '--out', outs[1], *options, '--shard', '1/3') == 1
    assert '6 images in' in capsys.readouterr().out
    assert everything(outs[0]) == everything(outs[1])
    assert [len((outs[1] / f'meta_info_{split}.txt').read_text().splitlines())
            for split in ('train', 'test')] == [4, 2]


def test_killed_shards_go_on_and_finished_ones_join(tmp_path, monkeypatch):
    root, out, recipe = with_a_bad_one(tmp_path), tmp_path / 'out', Recipe(32, [8])
    source, made = open_source(root), []
    original = engine.make_some
    monkeypatch.setattr(engine, 'make_some', lambda *args: made.append(args[1]) or
                        original(*args))

    def shard(index, count):
        made.clear()
        result = prepare(source, out, recipe, 1, progress=False, shard=(index, count))
        return sum(made, []), result

    assert shard(1, 2)[0] == [f'0000{i}.png' for i in (0, 2, 4, 6)]
    journal = out / 'progress.1-of-2.jsonl'
    lines = journal.read_text().split('\n')
    journal.write_text('\n'.join(lines[:3]) + '\n{"key": "00004.png", "na')  # killed
    for folder in ('1-of-2', '2-of-2', '4-of-5'):  # killed; at work; of a run that is given up
        (out / 'GT' / f'.{folder}.0123abcd.partial' / '4711').mkdir(parents=True)
    assert shard(1, 2)[0] == ['00004.png', '00006.png']
    assert sorted(path.name for path in out.rglob('*.partial')) == [
        '.2-of-2.0123abcd.partial', '.4-of-5.0123abcd.partial']
    # another number of shards knows what those have done; the last one joins them
    again, result = shard(2, 3)
    assert again == ['00001.png'] and result == dict(shard=[2, 3], images=2, missing=2, bad=0)
    (out / 'GT' / '00002.png').unlink()
    again, result = shard(2, 2)
    assert again == ['00003.png', '00005.png'] and result['missing'] == 1  # 00002
    again, result = shard(1, 2)
    assert again == ['00002.png'] and result['images'] == 6 and result['bad'] == 1
    assert [path.name for path in out.glob('progress*')] == ['progress.jsonl']
    assert not list(out.rglob('*.partial'))
    whole = tmp_path / 'whole'
    prepare(source, whole, recipe, 1, progress=False)
    assert everything(out) == everything(whole)
    # of the finished set a shard makes its bad ones again, in case they are mended
    (root / '00003.png').write_bytes(encode(picture(3, (40, 32))))
    assert shard(1, 2)[0] == [] and shard(2, 2)[1]['bad'] == 0
    prepare(source, whole, recipe, 1, progress=False)
    assert everything(out).keys() == everything(whole).keys()
    assert (out / 'manifest.json').read_bytes() == (whole / 'manifest.json').read_bytes()


def test_more_shards_than_images_and_a_run_without_shards_afterwards(tmp_path):
    root, out, recipe = folder_of(tmp_path, 2), tmp_path / 'out', Recipe(32)
    source = open_source(root)
    assert prepare(source, out, recipe, 1, progress=False, shard=(3, 4)) == dict(
        shard=[3, 4], images=0, missing=2, bad=0)
    assert prepare(source, out, recipe, 1, progress=False, shard=(1, 4))['missing'] == 1
    stamp = (out / 'GT' / '00000.png').stat().st_mtime_ns
    assert prepare(source, out, recipe, 1, progress=False)['images'] == 2
    assert (out / 'GT' / '00000.png').stat().st_mtime_ns == stamp
    assert [path.name for path in out.glob('progress*')] == ['progress.jsonl']


def test_of_several_entries_of_an_image_the_mended_one_counts(tmp_path):
    header, bad, good = dict(size=32), dict(key='a', bad='cut'), dict(key='a', name='a')
    for name, entry in (('progress.jsonl', bad), ('progress.1-of-2.jsonl', bad),
                        ('progress.1-of-3.jsonl', good), ('progress.2-of-3.jsonl', bad)):
        (tmp_path / name).write_text(f'{json.dumps(header)}\n{json.dumps(entry)}\n')
    assert Journal(tmp_path, header, (1, 2)).read() == dict(a=good)
    with pytest.raises(ValueError, match='was made with size = 32: choose another output folder'):
        Journal(tmp_path, dict(size=64), (1, 2)).read()


def test_shards_that_would_list_differently_are_refused(tmp_path, capsys):
    root, out = folder_of(tmp_path, 4), tmp_path / 'out'
    options = ['--out', out, '--size', 32]
    assert run('ffhq', root, *options, '--shard', '1/2', '--test-count', 1) == 0
    for more, said in ((['--test-count', 2], 'test_count = 1'), (
            ['--test-count', 1, '--limit', 3], 'limit = None')):
        capsys.readouterr()
        assert run('ffhq', root, *options, '--shard', '2/2', *more) == 2
        error = capsys.readouterr().err
        assert f'another shard was started with {said}; expected the same' in error
        assert len(list((out / 'GT').iterdir())) == 2
    assert run('ffhq', root, *options, '--test-count', 2, '--limit', 3) == 0
    assert json.loads((out / 'manifest.json').read_text())['images'] == 3


@pytest.mark.parametrize('shard', [(0, 2), (3, 2), (1, ), 'ab', (1.0, 2), (True, 2), 1])
def test_shards_that_are_none_are_refused(shard):
    with pytest.raises(ValueError, match=r'shard: expected two integers \(i, n\)'):
        check_shard(shard)
