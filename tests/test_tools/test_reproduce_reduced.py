"""What reproduce_reduced.py plans, decides and writes; the run itself takes hours."""
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmagic.registry import MODELS
from mmengine.config import Config
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools'))
try:
    import reproduce_reduced as script
    from reduced import claims, measure, page, runner
    from reduced import plan as plans
finally:
    sys.path.remove(str(ROOT / 'tools'))

CONFIGS = sorted((ROOT / 'configs/reduced').glob('*.py'))


def faces(folder, counts=(('train', 64), ('val', 16)), size=128):
    for split, count in counts:
        (folder / split).mkdir(parents=True)
        for index in range(count):
            (folder / split / f'{index:03d}.jpg').touch()
        for index in (0, count - 1):
            Image.new('RGB', (size, size)).save(folder / split / f'{index:03d}.jpg')
    return folder


def plan_of(tmp_path, name='cpu'):
    return plans.Plan(plans.PROFILES[name], tmp_path / 'data', tmp_path / 'out')


# ---------------------------------------------------------------------------------------- configs
@pytest.mark.parametrize('path', [path for path in CONFIGS if path.stem.startswith('pd_')],
                         ids=lambda path: path.stem)
def test_twins_differ_in_the_model_type_alone(path):
    pd, plain = (Config.fromfile(one).to_dict() for one in (path, path.with_name(path.name[3:])))
    assert pd['model'].pop('type').startswith('PD')
    assert plain['model'].pop('type') == 'GANPriorSR'
    assert pd == plain


@pytest.mark.parametrize('profile', plans.PROFILES)
def test_the_prior_fits_into_every_restorer(profile):
    profile = plans.PROFILES[profile]
    with torch.device('meta'):
        prior = MODELS.build(Config.fromfile(
            plans.CONFIGS / f'{profile.prior}.py').model)
        for method in plans.LABELS:
            cfg = Config.fromfile(plans.CONFIGS / f'{method}_{profile.suffix}.py')
            assert cfg.model.generator.init_cfg.prefix == 'generator_ema'
            model = MODELS.build(cfg.model)
            for ours, theirs in ((model.generator.generator, prior.generator),
                                 (model.discriminator, prior.discriminator)):
                shapes = [{key: value.shape for key, value in part.state_dict().items()}
                          for part in (ours, theirs)]
                assert shapes[0] == shapes[1]
            assert cfg.model.generator.in_size * cfg.scale == cfg.model.generator.out_size
            assert cfg.model.generator.out_size == profile.out_size


# ------------------------------------------------------------------------------------------- plan
@pytest.mark.parametrize('profile', plans.PROFILES)
def test_jobs_come_after_what_they_need_and_name_files_that_are_there(tmp_path, profile):
    plan, before = plan_of(tmp_path, profile), set()
    for job in plan.jobs:
        assert set(job.after) <= before, job.name
        before.add(job.name)
        if job.tool.startswith('measure.'):
            assert callable(getattr(measure, job.tool.split('.')[1]))
            continue
        assert (ROOT / job.tool).is_file()
        config = Path(job.arguments[0])
        assert config.is_file() or config.parent == plan.out / 'configs'
    assert {job.stage for job in plan.jobs} == set(plans.STAGES)
    stages = [job.stage for job in plan.jobs]
    assert sorted(stages, key=plans.STAGES.index) == stages  # the most important first


@pytest.mark.parametrize('profile', plans.PROFILES)
def test_options_go_where_they_should(tmp_path, profile):
    """An index that points to another step of a pipeline would pass unseen."""
    plan = plan_of(tmp_path, profile)
    for name, key, value in (('alias_glean', 'antialias', False),
                             ('pd_x16_gan1e-2', 'scale', 16)):
        for job in (plan[name], plan[f'{name}_test']):
            options = job.arguments[job.arguments.index('--cfg-options') + 1:]
            cfg = Config.fromfile(job.arguments[0])
            cfg.merge_from_dict({option.split('=')[0]: eval(option.split('=')[1])
                                 for option in options if 'pipeline' in option})
            for part in ('train', 'val', 'test'):
                steps = cfg[f'{part}_dataloader'].dataset.pipeline
                assert [step[key] for step in steps if step.type == 'LRSynthesis'] == [value]
                assert all(key not in step or step.type in ('LRSynthesis', 'Resize')
                           for step in steps)


def test_degraded_configs_and_the_astronaut(tmp_path):
    plan = plan_of(tmp_path)
    plan.prepare()
    for kind, step in (('noise', 'RandomNoise'), ('jpeg', 'RandomJPEGCompression')):
        cfg = Config.fromfile(plan.degraded_config('pd_glean', kind))
        steps = [each.type for each in cfg.test_dataloader.dataset.pipeline]
        assert steps[-3:] == ['LRSynthesis', step, 'PackInputs']
        assert cfg.model.type == 'PDGLEAN'
    assert Image.open(plan.out / 'astronaut/GT/astronaut.png').size == (128, 128)


def test_a_key_tells_budgets_and_data_apart(tmp_path):
    import dataclasses
    plan, again = plan_of(tmp_path), plan_of(tmp_path)
    other = plans.Plan(dataclasses.replace(plan.profile, iters=10), plan.data, plan.out)
    run = 'glean_x8_s0'
    assert plan.key(plan[run]) == again.key(again[run]) != other.key(other[run])
    assert plan.key(plan['prior']) == other.key(other['prior'])
    moved = plans.Plan(plan.profile, plan.data, tmp_path / 'elsewhere')
    assert moved.key(moved[run]) == plan.key(plan[run])
    faces(plan.data)
    grown = plan_of(tmp_path)
    assert grown.key(grown[run]) != plan.key(plan[run])


# ----------------------------------------------------------------------------------------- runner
class Jobs:
    """A plan of scripts."""

    def __init__(self, folder, **scripts):
        self.out, self.profile, self.keys = folder / 'out', plans.PROFILES['cpu'], 'a'
        for name in ('done', 'logs', 'results'):
            (self.out / name).mkdir(parents=True, exist_ok=True)
        self.jobs = []
        for name, (text, after) in scripts.items():
            path = folder / f'{name}.py'
            path.write_text(text)
            self.jobs.append(plans.Job(name, 'tables', str(path), ('x', ), after))

    def key(self, job):
        return self.keys

    def result(self, name):
        return self.out / 'results' / f'{name}.json'

    def __getitem__(self, name):
        return next(job for job in self.jobs if job.name == name)


def test_jobs_run_in_order_and_what_is_done_is_not_done_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, 'POLL', 0.02)
    write = 'from pathlib import Path\np = Path({!r}) / "trace"\n' \
            'p.write_text((p.read_text() if p.exists() else "") + {!r})\n'
    scripts = {
        'a': (write.format(str(tmp_path), 'a'), ()),
        'b': (write.format(str(tmp_path), 'b'), ('a', )),
        'bad': ('print("no such thing")\nraise SystemExit(3)', ('a', )),
        'lost': (write.format(str(tmp_path), 'L'), ('bad', ))}
    plan = Jobs(tmp_path, **scripts)
    assert runner.Runner(plan, ['tables'], 2).run() is False
    assert (tmp_path / 'trace').read_text() == 'ab'
    said = capsys.readouterr().out
    assert 'bad FAILED (3)' in said and 'no such thing' in said and 'without it: lost' in said
    (tmp_path / 'bad.py').write_text('')
    assert runner.Runner(plan, ['tables'], 1).run() is True
    assert (tmp_path / 'trace').read_text() == 'abL'
    plan.keys = 'other'
    with pytest.raises(runner.Mixed, match='other budgets'):
        runner.Runner(plan, ['tables'], 1)


def test_a_training_does_not_go_on_with_that_of_other_budgets(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, 'POLL', 0.02)
    monkeypatch.setattr(plans.Job, 'trains', True)
    plan = Jobs(tmp_path, a=('raise SystemExit(1)', ()))
    assert not runner.Runner(plan, ['tables'], 1).run()
    assert [job.name for job in runner.Runner(plan, ['tables'], 1).waiting] == ['a']
    plan.keys = 'other'
    with pytest.raises(runner.Mixed, match='a.begun: of other budgets'):
        runner.Runner(plan, ['tables'], 1)


def test_what_is_needed_from_other_stages_has_to_be_done(tmp_path):
    plan = Jobs(tmp_path, a=('', ()), b=('', ('a', )))
    plan.jobs[0] = plans.dataclasses.replace(plan.jobs[0], stage='prior')
    with pytest.raises(ValueError, match='tables needs prior'):
        runner.Runner(plan, ['tables'], 1)


def test_a_folder_has_one_run(tmp_path):
    held = runner.lock(tmp_path)
    with pytest.raises(ValueError, match='another run'):
        runner.lock(tmp_path)
    held.close()
    runner.lock(tmp_path).close()


def test_progress_is_read_from_the_log(tmp_path):
    log = tmp_path / 'a.log'
    assert runner.progress(log) == 0
    log.write_text('Iter(train) [ 100/1500]  lr\nIter(train) [ 300/1500]  lr\nIter(val) [9/9]\n')
    assert runner.progress(log) == 0.2


# ----------------------------------------------------------------------------------- measurements
def test_when_a_curve_is_where_the_baseline_was():
    base = {10: 1., 20: 3., 30: 2., 40: 5.}
    assert measure.reached(base, {10: 0., 20: 5.}, 40) == dict(
        figure=5., iteration=40, at=20, times=2., first=False)
    assert measure.reached(base, {10: 3.}, 25)['first'] is True
    assert measure.reached(base, {10: 3.}, 25)['times'] == 2
    never = measure.reached(base, {10: 0.}, 40)
    assert never['at'] is None and never['times'] is None and never['first'] is False
    assert measure.reached(base, {10: 9.}, 5)['iteration'] == 10


def test_block_energy_sees_blocks():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert abs(measure.block_energy([noise]) - 1) < 0.2
    blocks = np.kron(rng.integers(0, 256, (4, 4, 1), dtype=np.uint8),
                     np.ones((8, 8, 3), np.uint8)) // 2 + noise // 8
    assert measure.block_energy([blocks]) > 5
    assert measure.block_energy([blocks[:, 3:]]) < measure.block_energy([blocks])


def test_random_features_are_the_same_every_time_and_tell_blur():
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8))
    state = torch.get_rng_state()
    found = [measure.features(images, measure.RandomVGG()) for _ in range(2)]
    assert torch.equal(state, torch.get_rng_state())
    assert found[0].shape == (24, 64) and np.array_equal(*found) and found[0].std(0).min() > 0


# ----------------------------------------------------------------------------------------- claims
PROFILE = dict(seeds=[0, 1], scales=[8])


def pair_results():
    plain = dict(PSNR=20., SSIM=0.5, PSNR_LR=30., PSNR_LR_8bit=30., MaxErr_LR_8bit=20.)
    pd = dict(PSNR=21., SSIM=0.6, PSNR_LR=140., PSNR_LR_8bit=200., MaxErr_LR_8bit=0.)
    return {f'{prefix}{method}_x8_s{seed}_test': dict(figures)
            for method in ('glean', 'panini') for seed in (0, 1)
            for prefix, figures in (('', plain), ('pd_', pd))}


def verdict_of(results, start):
    return next(claim for claim in claims.decide(results, PROFILE)
                if claim['claim'].startswith(start))


def test_nothing_run_nothing_claimed():
    assert {claim['verdict'] for claim in claims.decide({}, PROFILE)} == {'not run'}


@pytest.mark.parametrize('name, key, value, claim', [
    ('pd_panini_x8_s1_test', 'SSIM', 0.49, 'PD is better'),
    ('pd_glean_x8_s0_test', 'PSNR', 19.9, 'PD is better'),
    ('pd_glean_x8_s1_test', 'PSNR_LR', 60., 'Outputs with PD'),
    ('pd_glean_x8_s1_test', 'MaxErr_LR_8bit', 1., 'Outputs with PD'),
    ('glean_x8_s1_test', 'PSNR_LR', 150., 'Outputs with PD')])
def test_one_pair_against_it_and_it_is_not_reproduced(name, key, value, claim):
    results = pair_results()
    assert verdict_of(results, claim)['verdict'] == 'reproduced'
    results[name][key] = value
    assert verdict_of(results, claim)['verdict'] == 'not reproduced'


def test_convergence_needs_half_the_iterations_at_10_and_50_percent():
    def curve(*times):
        return {percent: dict(times=time, at=1, first=time == 2.)
                for percent, time in zip(('10', '50', '100'), times, strict=True)}
    results = {f'curves_{name}_x8_s{seed}': curve(2., 4., 1.) for name in ('glean', 'panini')
               for seed in (0, 1)}
    found = verdict_of(results, 'Early on')
    assert found['verdict'] == 'reproduced' and 'at 50 % of the budget 4.0 to 4.0' in found['text']
    assert '2.0 to 2.0 times fewer (4 of 4 at the first validation: at least)' in found['text']
    results['curves_glean_x8_s1'] = curve(2., 1.9, None)
    found = verdict_of(results, 'Early on')
    assert found['verdict'] == 'not reproduced' and '(1 of 4 never)' in found['text']


def test_a_claim_of_which_a_part_is_missing_is_not_run():
    results = {'pd_x16_gan1e-2_test': dict(PSNR=20.), 'pd_x16_gan1e-3_test': dict(PSNR=20.5)}
    assert verdict_of(results, 'At 16x')['verdict'] == 'reproduced'
    results['pd_x16_gan1e-3_test']['PSNR'] = 20.
    assert verdict_of(results, 'At 16x')['verdict'] == 'not reproduced'
    del results['pd_x16_gan1e-3_test']
    assert verdict_of(results, 'At 16x')['verdict'] == 'not run'


# ------------------------------------------------------------------------------- script and page
@pytest.mark.parametrize('make, message', [
    (lambda folder: folder, 'there is none'),
    (lambda folder: faces(folder, (('train', 64), ('val', 3))), '16 JPEG images in val, got 3'),
    (lambda folder: faces(folder, size=64), 'expected 128x128 images')])
def test_bad_data_ends_with_one_line_and_2(tmp_path, capsys, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    data = make(tmp_path / 'data')
    assert script.main(['--data', str(data), '--out', str(tmp_path / 'out')]) == 2
    said = capsys.readouterr()
    assert message in said.err and len(said.err.splitlines()) == 1 and not said.out
    assert not (tmp_path / 'out').exists()


def test_one_file_of_all_images(tmp_path, capsys):
    data, out = faces(tmp_path / 'data'), tmp_path / 'out'
    (data / 'train/remark.txt').write_text('left out')
    packed = tmp_path / 'faces.tar'
    assert script.main(['--data', str(data), '--out', str(out), '--pack', str(packed)]) == 0
    first = packed.read_bytes()
    assert 'MiB' in capsys.readouterr().out and not out.exists()
    again = tmp_path / 'again.tar'  # made from the file itself
    assert script.main(['--data', str(packed), '--out', str(out), '--pack', str(again)]) == 0
    assert again.read_bytes() == first
    assert plans.Plan(plans.PROFILES['cpu'], out / 'data', out).data_facts == plans.Plan(
        plans.PROFILES['cpu'], data, out).data_facts
    (out / 'data/val/000.jpg').write_bytes(b'mine')  # not unpacked again
    script.faces.unpack(packed, out / 'data')
    assert (out / 'data/val/000.jpg').read_bytes() == b'mine'


@pytest.mark.parametrize('name, kind, message', [
    ('train/../../evil.jpg', tarfile.REGTYPE, 'JPEG files in train and val alone'),
    ('/etc/evil.jpg', tarfile.REGTYPE, 'JPEG files in train and val alone'),
    ('train/link.jpg', tarfile.SYMTYPE, 'JPEG files in train and val alone'),
    (None, None, 'made by --pack')])
def test_a_packed_file_writes_nothing_else(tmp_path, capsys, name, kind, message):
    packed = tmp_path / 'faces.tar'
    if name is None:
        packed.write_bytes(b'no archive at all' * 100)
    else:
        with tarfile.open(packed, 'w') as tar:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, '/etc/passwd'
            tar.addfile(info)
    assert script.main(['--data', str(packed), '--out', str(tmp_path / 'out')]) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
    assert not list(tmp_path.rglob('evil.jpg')) and not list(tmp_path.rglob('link.jpg'))


@pytest.mark.parametrize('text', ['no json', '[1]', '{"prior": 1}'])
def test_bad_notes(tmp_path, text):
    (tmp_path / 'notes.json').write_text(text)
    with pytest.raises(ValueError, match='--notes .*expected a JSON object'):
        page.read_notes(tmp_path / 'notes.json')


def test_a_page_of_nothing_says_so(tmp_path):
    plan = plan_of(tmp_path)
    for name in ('done', 'results'):
        (plan.out / name).mkdir(parents=True)
    metrics = page.collect(plan, dict(prior='Looked at: nothing.'))
    page.write(metrics, tmp_path / 'a.json', tmp_path / 'a.md')
    text = (tmp_path / 'a.md').read_text()
    assert 'Not run.' in text and 'Looked at: nothing.' in text and 'reproduced' not in text
    assert text == page.render(json.loads((tmp_path / 'a.json').read_text()))


def test_the_part_of_the_error_that_pd_removes():
    rng = np.random.default_rng(0)
    gt, error = rng.normal(size=(32, 32)), rng.normal(size=(32, 32))
    pooled = error.reshape(4, 8, 4, 8).mean((1, 3))
    psnr, psnr_lr = (-10 * np.log10((part**2).mean()) for part in (error, pooled))
    removed = gt + error - np.kron(pooled, np.ones((8, 8))) - gt
    assert page.share_in_range(psnr, psnr_lr) == pytest.approx(
        1 - (removed**2).mean() / (error**2).mean())


def test_the_page_says_what_the_json_says():
    metrics = json.loads((ROOT / 'docs/evidence.json').read_text())
    assert (ROOT / 'docs/evidence.md').read_text() == page.render(metrics, metrics['figures'])
    assert metrics['claims'] == claims.decide(metrics['results'], metrics['profile'])
    assert all((ROOT / f'docs/evidence_{name}.png').is_file() for name in metrics['figures'])
