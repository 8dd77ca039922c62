"""Tables and convergence curves, from files as mmengine writes them."""
import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
import csv
import json
import re

import cv2
import numpy as np
import pytest
from conftest import load_script
from mmengine.config import Config
from mmengine.runner import Runner

make_table, plot, compare = (load_script(f'tools/analysis_tools/{name}.py') for name in
                             ('make_table', 'plot_convergence', 'compare_results'))


@pytest.fixture(scope='module')
def real_run(tmp_path_factory):
    """Work folder of a real training with validation, followed by a test."""
    root = tmp_path_factory.mktemp('run')
    (root / 'gt').mkdir()
    for index in range(2):
        gt = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(root / 'gt' / f'{index}.png'), gt)

    def loader(sampler):
        return dict(num_workers=0, batch_size=1, sampler=dict(type=sampler), dataset=dict(
            type='BasicImageDataset', data_root=str(root / 'gt'), data_prefix=dict(gt=''),
            metainfo=dict(task_name='sisr'),
            pipeline=[dict(type='LoadImageFromFile', key='gt'),
                      dict(type='LRSynthesis', scale=4), dict(type='PackInputs')]))

    evaluator = [dict(type='PSNR'), dict(type='LRConsistency')]
    work = root / 'work_dirs' / 'glean_x8_1xb4-100k_ffhq'
    runner = Runner.from_cfg(Config(dict(
        default_scope='mmagic', work_dir=str(work), experiment_name='analysis_tools',
        log_level='WARNING', model=dict(
            type='BaseEditModel', pixel_loss=dict(type='L1Loss'), generator=dict(
                type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
                upscale_factor=4), data_preprocessor=dict(type='DataPreprocessor')),
        train_dataloader=loader('InfiniteSampler'), val_dataloader=loader('DefaultSampler'),
        test_dataloader=loader('DefaultSampler'), val_evaluator=evaluator, test_evaluator=evaluator,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2),
        val_cfg=dict(type='MultiValLoop'), test_cfg=dict(type='MultiTestLoop'),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
        log_processor=dict(type='LogProcessor', by_epoch=False))))
    runner.train()
    runner.test()
    return work


def test_reads_what_mmengine_writes(real_run, capsys):
    curves = plot.read_log(real_run)
    assert sorted(curves['PSNR']) == [2, 4] and 'loss' not in curves
    result = make_table.read_result(real_run)
    assert {'PSNR', 'PSNR_LR', 'MaxErr_LR_8bit'} <= set(result)
    assert make_table.main(['table2', '--work-dirs', str(real_run.parent)]) == 0
    table = capsys.readouterr().out
    line = next(line for line in table.splitlines() if line.startswith('| Face | GLEAN |'))
    assert f'{result["PSNR"]:.2f} (27.20)' in line and 'missing (12.63)' in line
    assert table.count('missing') == 3 * 12 - 1


def write_log(folder, figures, metric='PSNR', stamp='20260101_000000', rest='', first=5):
    path = folder / stamp / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [dict(lr=1e-4, loss=1.0, iter=first, step=first)] + [
        {metric: value, 'step': step} for step, value in figures.items()]
    path.write_text('\n'.join(map(json.dumps, lines)) + rest)
    return folder


def test_speed_up_is_computed_marked_and_written(tmp_path, capsys):
    base = write_log(tmp_path / 'a', {10: 20., 50: 25., 90: 27., 100: 26.9})
    ours = write_log(tmp_path / 'b', {5: 20., 10: 27.5, 50: 28.})
    never = write_log(tmp_path / 'c', {10: 21., 50: 26.})
    out = tmp_path / 'fig' / 'fig3.png'
    assert plot.main(['--run', f'GLEAN={base}', '--run', f'GLEAN w/ PD={ours}', '--run',
                      f'slow={never}', '--out', str(out)]) == 0
    said = capsys.readouterr().out
    assert 'after 10 iterations: 9 times fewer' in said and 'slow does not reach' in said
    found = json.loads(out.with_suffix('.json').read_text())
    assert found[0] == dict(run='GLEAN w/ PD', baseline='GLEAN', metric='PSNR', best=27.,
                            best_iteration=90, iteration=10, times=9., first=False)
    assert found[1]['iteration'] is None and found[1]['times'] is None
    picture = cv2.imread(str(out))
    assert picture is not None and len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    assert plot.main(['--run', f'GLEAN={base}', '--run', f'PD={ours}', '--baseline', 'PD', '--out',
                      str(out)]) == 0
    said = capsys.readouterr()
    assert 'GLEAN does not reach' in said.out
    assert said.err == ''.join(f'{path}: is there, and will be replaced\n'
                               for path in (out, out.with_suffix('.json')))


@pytest.mark.parametrize('curve, stars, words', [
    ({3: 20., 10: 27.}, 1, 'after 10 iterations: 9 times fewer'),
    ({10: 27., 20: 26.}, 0, 'after 10 iterations: at least 9 times fewer'),
    ({3: 20., 90: 27.}, 1, 'after 90 iterations: no fewer'),
    ({3: 20., 89: 27.}, 1, 'after 89 iterations: 1.01 times fewer'),
    ({3: 20., 99: 27.}, 1, 'after 99 iterations: no fewer'),
    ({0: 27.}, 0, 'after 0 iterations: at the very start'),
    ({3: 20.}, 0, 'does not reach')])
def test_stars_and_words(tmp_path, monkeypatch, curve, stars, words):
    from matplotlib import pyplot
    monkeypatch.setattr(pyplot, 'close', lambda figure: None)
    runs = {'base': {'PSNR': {50: 25., 90: 27.}}, 'ours': {'PSNR': curve}}
    found = plot.speed_up(runs['base']['PSNR'], curve, 'PSNR')
    assert words in plot.sentence('ours', 'base', 'PSNR', found)
    plot.draw(runs, 'base', ['PSNR'], {('ours', 'PSNR'): found}, tmp_path / 'a.png')
    axis = pyplot.gcf().axes[0]
    assert sum(line.get_marker() == '*' for line in axis.lines) == stars
    assert all(float(tick).is_integer() for tick in axis.get_xticks())
    assert not any(re.search(r'(?<![\d.])1 times', text.get_text()) for text in axis.texts)
    monkeypatch.undo()
    pyplot.close('all')


def test_lower_is_better_for_fid_and_kin():
    found = plot.speed_up({10: 30., 20: 12., 30: 13.}, {5: 20., 10: 12.}, 'FID')
    assert found == dict(best=12., best_iteration=20, iteration=10, times=2., first=False)
    assert plot.lower_is_better('box(antialias)/FID') and plot.lower_is_better('LPIPS_alex')
    assert plot.lower_is_better('MaxErr_LR_8bit')
    assert plot.lower_is_better('L1_LR') and not plot.lower_is_better('PSNR_LR')
    assert not plot.lower_is_better('MS_SSIM') and plot.lower_is_better('Unmatched_LR_8bit')


def test_resumed_and_killed_logs(tmp_path):
    folder = write_log(tmp_path, {10: 1., 20: 2.}, rest='\n{"PSNR": 3.0, "st')
    write_log(folder, {20: 2.5, 30: 4.}, stamp='20260102_000000', first=15)
    assert plot.read_log(folder)['PSNR'] == {10: 1., 20: 2.5, 30: 4.}
    test = folder / '20260103_000000' / 'vis_data' / 'scalars.json'
    test.parent.mkdir(parents=True)
    test.write_text('{"PSNR": 99.0, "step": 0}\n')  # of tools/test.py, no point of the curve
    assert plot.read_log(folder)['PSNR'] == {10: 1., 20: 2.5, 30: 4.}
    alone = folder / 'alone' / '20260101_000000' / 'vis_data' / 'scalars.json'
    alone.parent.mkdir(parents=True)
    alone.write_text('{"PSNR": 7.0, "step": 5000}\n')  # no training line, but a step
    assert plot.read_log(folder / 'alone')['PSNR'] == {5000: 7.}
    # a training that began anew is another one: nothing of those before it is left
    other = write_log(tmp_path / 'again', {10: 9., 90: 40.})
    write_log(other, {10: 1., 20: float('nan')}, stamp='20260102_000000', first=1)
    assert plot.read_log(other)['PSNR'] == {10: 1.}
    path = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.write_text('{"PSNR": \n' + path.read_text())
    with pytest.raises(ValueError, match='line 1: damaged'):
        plot.read_log(folder)


HUGE = '1' + '0' * 400


@pytest.mark.parametrize('line', [
    '3', 'null', '[1]', '"iter"', '{"iter": null}', '{"iter": "x"}', '{"iter": Infinity}',
    '{"PSNR": 1, "step": "a"}', '{"PSNR": 1, "step": [2]}', '[' * 100_000, '\udcff'])
def test_lines_that_no_log_has(tmp_path, line):
    path = tmp_path / 'scalars.json'
    rest = '{"iter": 5}\n{"PSNR": 7, "FID": ' + HUGE + ', "step": 5}\n'
    path.write_bytes(f'{line}\n{rest}'.encode(errors='surrogateescape'))
    with pytest.raises(ValueError, match='scalars.json, line 1: damaged$'):
        plot.read_log(path)
    path.write_text(rest)
    assert plot.read_log(path) == {'PSNR': {5: 7.}}


def result_file(path, **metrics):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics))
    return path


def test_table_formats_agree(tmp_path, capsys):
    values = {f'{kernel}(antialias)/{metric}': 10. * i + j
              for i, kernel in enumerate(('bicubic', 'bilinear', 'box', 'lanczos'))
              for j, metric in enumerate(('PSNR', 'FID'), 1)}
    result_file(tmp_path / 'pdn_x8-alias_1xb4-100k_ffhq' / '1' / '1.json', **values)
    result_file(tmp_path / 'pdn_x8-alias_1xb4-100k_ffhq' / '0' / '0.json', **{'box/PSNR': 0})
    for form in ('markdown', 'csv', 'json'):
        assert make_table.main(['table4', '--work-dirs', str(tmp_path), '--format', form, '--out',
                                str(tmp_path / form)]) == 0
    assert capsys.readouterr().err == ''
    assert make_table.main(['table4', '--out', str(tmp_path / 'markdown')]) == 0
    assert capsys.readouterr().err == f'{tmp_path}/markdown: is there, and will be replaced\n'
    rows = json.loads((tmp_path / 'json').read_text())['rows']
    pdn = next(row for row in rows if row['method'] == 'PDN')
    assert pdn['ours'] == {key.replace('/', ' '): value for key, value in values.items()}
    assert pdn['paper']['bilinear(antialias) FID'] == 15.96
    assert pdn['paper']['box(antialias) FID'] is None
    glean = next(row for row in rows if row['method'] == 'GLEAN')
    assert set(glean['ours'].values()) == {None}
    table = list(csv.DictReader((tmp_path / 'csv').read_text().splitlines()))
    line = next(row for row in table if row['method'] == 'PDN')
    assert float(line['box(antialias) PSNR (ours)']) == 21.
    assert next(r for r in table if r['method'] == 'GLEAN')['box(antialias) PSNR (ours)'] == \
        'missing'
    assert '15.96' in (tmp_path / 'markdown').read_text()


def test_custom_table(tmp_path, capsys):
    a = result_file(tmp_path / 'a.json', PSNR=27.123, FID=8.5)
    b = result_file(tmp_path / 'b.json', PSNR=26)
    assert make_table.main(['custom', '--run', f'A={a}', '--run', f'B={b}', '--metrics', 'PSNR',
                            'FID']) == 0
    assert '|  | A | 27.12 | 8.500 |' in (said := capsys.readouterr().out)
    assert '|  | B | 26.00 | missing |' in said


def test_names_in_the_csv_table_are_no_formulas(tmp_path, capsys):
    a = result_file(tmp_path / 'a.json', PSNR=27.5)
    assert make_table.main(['custom', '--run', f'@SUM(A1)={a}', '--run', f'B={a}', '--format',
                            'csv']) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row['method'] for row in rows] == ["'@SUM(A1)", 'B']
    assert [row['PSNR (ours)'] for row in rows] == ['27.5'] * 2


def test_figures_that_are_no_numbers_are_not_missing(tmp_path, capsys):
    a = result_file(tmp_path / 'a' / '2' / '2.json', PSNR=float('inf'), FID=float('nan'))
    result_file(tmp_path / 'a' / '1' / '1.json', PSNR=20., FID=1.)  # of an older test
    for form, line in (('markdown', '|  | A\\|B C | nan | inf |'), ('csv', ',"A|B\nC",,nan,,inf,'),
                       ('json', '"FID": NaN,\n    "PSNR": Infinity')):
        assert make_table.main(['custom', '--run', f'A|B\nC={a.parents[1]}', '--metrics', 'FID',
                                'PSNR', '--format', form]) == 0
        assert line in capsys.readouterr().out


def test_missing_runs_are_marked_and_named(tmp_path, capsys):
    a = result_file(tmp_path / 'a.json', PSNR=27.123)
    assert make_table.main(['custom', '--run', f'A={a}', '--run', f'B={tmp_path}/none']) == 0
    out, error = capsys.readouterr()
    result_file(tmp_path / 'b.json', PSNR=int('9' * 400))
    assert make_table.main(['custom', '--run', f'A={tmp_path}/b.json']) == 0
    assert '|  | A | inf |' in capsys.readouterr().out
    assert '|  | A | 27.12 |' in out and '|  | B | missing |' in out
    assert error == f'B: missing, no test result at {tmp_path}/none\n'


def test_a_damaged_run_does_not_cost_the_paper_table(tmp_path, capsys):
    name = 'gpen_bfr-512_x16_celeba-hq'
    good = dict(PSNR=25., SSIM=0.7, MS_SSIM=0.8, FID=30.)
    result_file(tmp_path / f'pd_{name}' / '1' / '1.json', **good)
    (tmp_path / name / '1').mkdir(parents=True)
    (tmp_path / name / '1' / '1.json').write_text('{"PSNR": 25.0, "SS')
    assert make_table.main(['table3', '--work-dirs', str(tmp_path)]) == 0
    out, error = capsys.readouterr()
    assert '| Face | GPEN | missing (26.07) |' in out
    assert '| Face | GPEN w/ PD | 25.00 | 0.700 | 0.800 | 30.00 |' in out
    assert error.startswith('GPEN: missing, ') and error.count('\n') == 1


def test_paper_figures_match_the_paper_table_layout():
    tables = json.loads(make_table.PAPER.read_text())
    for table in tables.values():
        assert all(len(row['paper']) == len(table['columns']) for row in table['rows'])
    assert [len(table['rows']) for table in tables.values()] == [12, 13, 3]


def test_bad_use_is_one_line_and_exit_code_2(tmp_path, capsys):
    good = write_log(tmp_path / 'good', {10: 1.})
    result_file(tmp_path / 'a.json', PSNR=27.5)
    (tmp_path / 'broken.json').write_text('{')
    (tmp_path / 'list.json').write_text('[1]')
    (tmp_path / 'deep.json').write_text('[' * 100_000)
    (tmp_path / 'texts.json').write_text('{"PSNR": "27.5", "SSIM": null}')
    for tool, args, message in (
            (make_table, ['custom', '--run', f'A={tmp_path}/none.json'], 'no test result at'),
            (make_table, ['custom', '--run', f'A={tmp_path}/broken.json'], 'is no JSON file'),
            (make_table, ['custom', '--run', f'A={tmp_path}/list.json'], 'holds no metrics'),
            (make_table, ['custom', '--run', f'A={tmp_path}/deep.json'], 'is no JSON file'),
            (make_table, ['custom', '--run', f'A={tmp_path}/texts.json'],
             'no figures in the results of A'),
            (make_table, ['custom', '--run', 'A'], 'NAME=PATH'),
            (make_table, ['custom'], '--run and --metrics go with'),
            (make_table, ['table2', '--run', 'A=x'], '--run and --metrics go with'),
            (make_table, ['table2', '--metrics', 'PSNR'], '--run and --metrics go with'),
            (make_table, ['custom', '--run', f'={tmp_path}/a.json'], 'NAME=PATH'),
            (make_table, ['custom', '--run', f'A={tmp_path}/a.json', '--metrics', 'PNSR'],
             '--metrics PNSR: no run has it, there are: PSNR'),
            (make_table, ['custom', '--run', f'A={tmp_path}/a.json', '--out',
                          f'{tmp_path}/./a.json'], 'is an input'),
            (plot, ['--run', f'A={good}', '--run', f'B={tmp_path}/a.json', '--out',
                    f'{tmp_path}/a.png'], 'a.json: is an input'),
            (plot, ['--run', f'A={good}'], 'at least two'),
            (plot, ['--run', f'A={good}', '--run', f'A={good}'], 'every name once'),
            (plot, ['--run', f'A={good}', '--run', f'B={tmp_path}/none'], 'no log'),
            (plot, ['--run', f'A={good}', '--run', f'B={good}', '--baseline', 'C'], 'named C'),
            (plot, ['--run', f'A={good}', '--run', f'B={good}', '--metrics', 'FID'],
             'A has no FID, its log holds: PSNR')):
        capsys.readouterr()
        assert tool.main(args) == 2, args
        assert message in capsys.readouterr().err
    assert json.loads((tmp_path / 'a.json').read_text()) == dict(PSNR=27.5)


@pytest.fixture
def results(tmp_path):
    """A test's work folder, a folder of images, and their GT."""
    rng = np.random.default_rng(0)
    for folder in ('gt', 'other', 'test/20260101_000000/vis_data/vis_image'):
        (tmp_path / folder).mkdir(parents=True)
    for stem in ('a', 'b_1'):
        gt = rng.integers(0, 200, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / 'gt' / f'{stem}.png'), gt)
        cv2.imwrite(str(tmp_path / 'other' / f'{stem}.png'), gt + 20)
        cv2.imwrite(str(tmp_path / f'test/20260101_000000/vis_data/vis_image/{stem}_0.png'), gt)
    return tmp_path


def test_results_side_by_side(results, capsys):
    out = results / 'fig' / 'fig4.png'
    arguments = ['--gt', str(results / 'gt'), '--run', f'exact={results / "test"}', '--run',
                 f'a = 5={results / "other"}', '--out', str(out)]
    assert compare.main([*arguments, '--scale', '8']) == 0
    picture = cv2.imread(str(out))
    one = picture.shape
    said = capsys.readouterr()
    assert f'{one[1]}x{one[0]}' in said.out and not said.err
    assert compare.main([*arguments, '--scale', '8', '--names', 'b_1']) == 0
    assert capsys.readouterr().err == f'{out}: is there, and will be replaced\n'
    assert abs(cv2.imread(str(out)).shape[0] - one[0] / 2) < 20
    assert compare.main(arguments) == 0  # no LR: a column less
    assert cv2.imread(str(out)).shape[1] < one[1]
    # the exact result has a black error map, the other one has not
    maps = picture[one[0] // 4:one[0] // 2]
    assert (maps.reshape(-1, 3) < 12).all(1).mean() > 0.1


@pytest.mark.parametrize('change, message', [
    (['--run', 'x=nowhere'], 'no folder nowhere'), (['--run', 'nothing'], 'NAME=FOLDER'),
    (['--names', 'c'], 'c (not in'), (['--run', 'small={root}/small'], 'small is 8x8, GT 64x64'),
    (['--run', 'grey={root}/grey'], 'a: grey is 64x64 grey, GT 64x64 RGB'),
    (['--run', 'GT={root}/other'], "a run cannot be named 'GT'"),
    (['--run', 'LR={root}/other'], "a run cannot be named 'LR'"),
    (['--run', 'two={root}/two'], "expected one file for 'a', got a.bmp and a.png"),
    (['--kernel', 'box'], '--kernel goes with --scale'),
    (['--scale', '0'], 'scale: expected an integer of at least 1, got 0'),
    (['--out', '{root}/other/a.png', '--run', 'x={root}/other'], 'a.png: is an input')])
def test_results_that_cannot_be_compared(results, capsys, change, message):
    for folder in ('small', 'grey', 'two'):
        (results / folder).mkdir()
    for stem in ('a', 'b_1'):
        cv2.imwrite(str(results / 'small' / f'{stem}.png'), np.zeros((8, 8, 3), np.uint8))
        cv2.imwrite(str(results / 'grey' / f'{stem}.png'), np.zeros((64, 64), np.uint8))
    for name in ('a.png', 'a.bmp', 'b_1.png'):
        cv2.imwrite(str(results / 'two' / name), np.zeros((64, 64, 3), np.uint8))
    change = [word.format(root=results) for word in change]
    assert compare.main(['--gt', str(results / 'gt'), '--run', f'exact={results / "test"}', '--out',
                         str(results / 'x.png'), *change]) == 2
    assert message in capsys.readouterr().err
    assert not (results / 'x.png').exists()
