"""metrics.json and the page made of it: nothing stands on the page that is not in the file."""
import datetime
import json
import math
import os
import platform
import shutil
from pathlib import Path

from . import claims
from .plan import DEGRADED, JPEG_QUALITY, LABELS, PAIRS, ROOT

DOCS = ROOT / 'docs'
FIGURES = ('convergence_glean_x8_s0', 'convergence_panini_x8_s0', 'compare_end', 'compare_half',
           'panel_pd_glean_end')
IMAGES = 200  # of a Fréchet distance, see measure
CASES = ('bicubic(antialias)', 'bilinear(antialias)', 'box(antialias)', 'lanczos(antialias)')


def read_notes(path):
    """Remarks of a person: stage -> text.

    Raises:
        ValueError: if the file is no JSON object of texts.
    """
    if path is None:
        return {}
    try:
        notes = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f'--notes {path}: expected a JSON object, got {error}') from None
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise ValueError(f'--notes {path}: expected a JSON object of texts')
    return notes


def _rounded(value):
    """Six digits of every number, for files that people read."""
    if isinstance(value, float):
        return float(f'{value:.6g}')
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def collect(plan, notes):
    """All figures of what is done, with what they depend on."""
    import torch

    from . import runner
    results, seconds = {}, {}
    for job in plan.jobs:
        found = runner.done(plan, job)
        if found:
            seconds[job.name] = found['seconds']
            path = plan.result(job.name)
            if path.exists():
                results[job.name] = json.loads(path.read_text())
    results = _rounded(results)  # so that the claims are decided by what the file says
    profile = {key: list(value) if isinstance(value, tuple) else value
               for key, value in vars(plan.profile).items()}
    return _rounded(dict(
        date=datetime.date.today().isoformat(), profile=profile, data=plan.data_facts,
        machine=f'{platform.machine()}, {os.cpu_count()} CPU cores', torch=torch.__version__,
        jobs=len(plan.jobs), seconds=seconds, notes=notes, results=results,
        claims=claims.decide(results, profile)))


def cell(value, digits=2):
    return '' if value is None else f'{value:.{digits}f}'


def table(header, rows):
    """A Markdown table, the first column to the left."""
    lines = ['| ' + ' | '.join(header) + ' |', '| :-- |' + ' --: |' * (len(header) - 1)]
    return '\n'.join(lines + ['| ' + ' | '.join(map(str, row)) + ' |' for row in rows])


def spread(values, digits=2):
    """Mean ± half the range."""
    if not values:
        return 'not run'
    half = (max(values) - min(values)) / 2
    return f'{sum(values) / len(values):.{digits}f} ± {half:.{digits}f}'


def _of_lr(values):
    """PSNR(LR) of several tests."""
    return 'exact' if values and min(values) >= 200 else spread(values, 1)


def capped(value):
    return 'exact' if value >= 200 else f'{value:.1f}'


def of_claims(metrics):
    rows = [(f'{claim["claim"]} ({claim["source"]})', f'**{claim["verdict"]}**', claim['text'])
            for claim in metrics['claims']]
    lines = ['| claim | here | figures |', '| :-- | :-- | :-- |']
    return '\n'.join(lines + ['| ' + ' | '.join(row) + ' |' for row in rows])


def of_prior(metrics):
    found, p = metrics['results'].get('prior_samples'), metrics['profile']
    if not found:
        return 'Not run.'
    return (f'MMagic\'s `StyleGAN2` at {p["out_size"]} px, `configs/reduced/{p["prior"]}.py`, '
            f'{p["prior_iters"]} iterations on {metrics["data"][0][1]} faces. FID-R64 of '
            f'{found["samples"]} samples against the validation faces '
            f'{1000 * found["FID_R64"]:.2f}; of as many training faces '
            f'{1000 * found["FID_R64_training_faces"]:.2f}. Standard deviation '
            f'between samples {found["pixel_std"]:.1f} grey levels, between faces '
            f'{found["pixel_std_of_faces"]:.1f}.')


def share_in_range(psnr, psnr_lr):
    """How much of the squared error lies in the range of A, average pooling: what PD removes.

    The error of each patch's mean, repeated over the patch, is orthogonal to the rest.
    """
    return 10**((psnr - psnr_lr) / 10)


def _runs_of(metrics, method, scale):
    """Names of the tests of a method that are done, one for each seed."""
    names = (f'{method}_x{scale}_s{seed}_test' for seed in metrics['profile']['seeds'])
    return [name for name in names if name in metrics['results']]


def _row_of_method(metrics, method, scale, fid):
    runs = _runs_of(metrics, method, scale)
    tests = [metrics['results'][name] for name in runs]
    return (LABELS[method], len(tests), spread([test['PSNR'] for test in tests]),
            spread([test['SSIM'] for test in tests], 3),
            _of_lr([test['PSNR_LR'] for test in tests]),
            _of_lr([test['PSNR_LR_8bit'] for test in tests]),
            cell(max((test['MaxErr_LR_8bit'] for test in tests), default=None), 1),
            spread([1000 * fid[name] for name in runs if name in fid]))


def _table_of_scale(metrics, scale):
    fid, rows, remark = metrics['results'].get(f'fid_x{scale}', {}), [], ''
    if fid:
        remark = f'The first two rows: no network, of {IMAGES} faces.\n\n'
        rows = [(label, '', cell(fid[f'{name}_PSNR']), '', '', '', '', cell(1000 * fid[name]))
                for name, label in (('replicated', 'the LR replicated (A† y)'),
                                    ('bicubic', 'the LR enlarged bicubically'))]
    rows += [_row_of_method(metrics, method, scale, fid) for pair in PAIRS for method in pair]
    return f'### {scale}×\n\n{remark}' + table(
        ('method', 'seeds', 'PSNR', 'SSIM', 'PSNR(LR), float', 'PSNR(LR), saved',
         'largest LR error, saved', 'FID-R64'), rows)


def _remark_on_range(metrics, method, scale):
    """How much of a method's error PD would remove; None if that is not known."""
    tests = [metrics['results'][name] for name in _runs_of(metrics, method, scale)]
    if not tests:
        return None
    share = share_in_range(*(sum(test[key] for test in tests) / len(tests)
                             for key in ('PSNR', 'PSNR_LR')))
    if share >= 1:
        return None
    return (f'Of the squared error of {LABELS[method]} without PD about {100 * share:.0f} % lies '
            'in the range of A, measured by PSNR(LR); removing no more than that gives about '
            f'{-10 * math.log10(1 - share):+.2f} dB. What PD gives beyond it, training with it '
            'gives.')


def of_tables(metrics):
    parts = []
    for scale in metrics['profile']['scales']:
        parts.append(_table_of_scale(metrics, scale))
        parts += [_remark_on_range(metrics, plain, scale) for plain, _ in PAIRS]
    return '\n\n'.join(part for part in parts if part)


def of_convergence(metrics):
    results, p, rows = metrics['results'], metrics['profile'], []
    for scale in p['scales']:
        for plain, pd in PAIRS:
            for seed in p['seeds']:
                found = results.get(f'curves_{plain}_x{scale}_s{seed}')
                if not found:
                    continue
                cells = []
                for percent in ('10', '50', '100'):
                    at = found[percent]
                    cells.append('never' if at['at'] is None else
                                 f'{at["iteration"]} → {at["at"]}: {at["times"]:.1f} ×'
                                 + (' or more' if at['first'] else ''))
                rows.append((f'{LABELS[plain]} → {LABELS[pd]}, {scale}×, seed {seed}', *cells))
    if not rows:
        return 'Not run.'
    return table(('pair', 'baseline at 10 %', 'at 50 %', 'at 100 %'), rows)


def _tests(metrics, rows, keys):
    """Rows (label, job) with some figures; those that were not run are named."""
    results = metrics['results']
    return [(label, *(capped(results[name][key]) if key.startswith('PSNR_LR') else
                      cell(results[name][key], 3 if key == 'SSIM' else 2) for key in keys))
            if name in results else (label, *('not run' for _ in keys)) for label, name in rows]


def of_appendix(metrics):
    stability = metrics['results'].get('stability_x16', {})
    runs = {'GLEAN, GAN weight 1e-2': 'glean_x16_gan1e-2',
            'PD, GAN weight 1e-2': 'pd_x16_gan1e-2', 'PD, GAN weight 1e-3': 'pd_x16_gan1e-3',
            'PD, GAN weight 1e-2, `bounds=(0, 255)`': 'pd_x16_gan1e-2_bounds',
            'PD, GAN weight 1e-2, pixel weight 0.1': 'pd_x16_gan1e-2_pixel0.1'}
    rows = _tests(metrics, [(label, f'{run}_test') for label, run in runs.items()],
                  ('PSNR', 'SSIM', 'PSNR_LR', 'PSNR_LR_8bit', 'MaxErr_LR_8bit'))
    clip = _tests(metrics, [(label, f'{run}_clip') for label, run in runs.items()],
                  ('PSNR', 'PSNR_LR_8bit', 'MaxErr_LR_8bit'))
    return table(('model', 'PSNR', 'SSIM', 'PSNR(LR), float', 'saved exactly', 'largest error',
                  'PSNR, clipped and rounded', 'PSNR(LR), clipped and rounded', 'largest error',
                  'fall in validation'),
                 [(*row, *(cells if name.startswith('PD') else ('', '', '')),
                   cell(stability[run]['drop']) if run in stability else 'not run')
                  for row, (name, *cells), run in zip(rows, clip, runs.values(), strict=True)])


def of_beyond(metrics):
    seed = metrics['profile']['seeds'][0]
    keys = 'PSNR', 'SSIM', 'PSNR_LR', 'PSNR_LR_8bit'
    heads = _tests(metrics, (
        ('GLEAN, no head', f'glean_x8_s{seed}_test'),
        ('GLEAN, pooling head at test only', 'glean_pd_only_at_test'),
        ('GLEAN, bicubic head at test only', 'glean_bicubic_only_at_test'),
        ('GLEAN + PD, pooling head', f'pd_glean_x8_s{seed}_test'),
        ('the same, bicubic head at test', 'pd_bicubic_only_at_test'),
        ('GLEAN + PD, bicubic head', 'pd_bicubic_test'),
        ('Panini, no head', f'panini_x8_s{seed}_test'),
        ('Panini, pooling head at test only', 'panini_pd_only_at_test'),
        ('Panini, bicubic head at test only', 'panini_bicubic_only_at_test'),
        ('Panini + PD, pooling head', f'pd_panini_x8_s{seed}_test')), keys)
    noise = _tests(metrics, [
        (f'{label}, {kind}', f'{name}_{model}')
        for name, kind in (('noise', f'σ = {DEGRADED["noise"]}'),
                           ('jpeg', f'JPEG, quality {JPEG_QUALITY}'))
        for model, label in (('glean', 'GLEAN'), ('pd', 'GLEAN + PD'),
                             ('pd_noise_std', f'GLEAN + PD, `noise_std={DEGRADED[name]}`'))],
        ('PSNR', 'SSIM'))
    found, parts = metrics['results'].get('blocks'), []
    parts.append('### Heads\n\nThe LR is made by bicubic(antialias). PSNR(LR) is measured with the '
                 'A of the head, without one by average pooling.\n\n' + table(
                     ('model', 'PSNR', 'SSIM', 'PSNR(LR), float', 'PSNR(LR), saved'), heads))
    parts.append('### Noisy LR\n\n' + table(('model', 'PSNR', 'SSIM'), noise))
    if found:
        early = metrics['profile']['iters'] // 10
        parts.append('### Blocks\n\nSquared differences of neighbouring pixels across the borders '
                     'of 8 × 8 blocks, over those elsewhere; 1: no blocks. GT '
                     f'{found["GT"]:.3f}.\n\n' + table(
                         ('model', f'after {early} iterations', 'at the end'),
                         [(label, *(cell(found.get(f'{run}_{when}'), 3)
                                    for when in ('early', 'end')))
                          for label, run in (('GLEAN', f'glean_x8_s{seed}'),
                                             ('GLEAN + PD, pooling head', f'pd_glean_x8_s{seed}'),
                                             ('GLEAN + PD, bicubic head', 'pd_bicubic'))]))
    else:
        parts.append('### Blocks\n\nNot run.')
    return '\n\n'.join(parts)


def of_table4(metrics):
    results = metrics['results']
    rows = []
    for method, label in (('glean', 'GLEAN'), ('panini', 'Panini'), ('pdn', 'PDN'),
                          ('pdn_lr1e-4', 'PDN, learning rate 1e-4')):
        found = results.get(f'alias_{method}_test')
        rows.append((label, *(cell(found[f'{case}/PSNR']) if found else 'not run'
                              for case in CASES)))
    text = table(('trained on bicubic(alias)', *CASES), rows)
    found = results.get('diversity')
    if found:
        text += (f'\n\nDiversity of PDN: standard deviation between {found["draws"]} draws of '
                 f'{found["images"]} faces {found["pixel_std"]:.2f} grey levels; of their pooled '
                 f'images, which PD fixes, {found["pooled_std"]:.3f}.')
    return text


SECTIONS = (
    ('prior', 'The prior', of_prior), ('tables', 'Tables 2 and 3 in small', of_tables),
    ('convergence', 'Convergence (Fig. 3)', of_convergence),
    ('appendix', 'Appendix B, at 16×', of_appendix), ('beyond', 'Beyond the paper', of_beyond),
    ('table4', 'Unseen downsamplings (Table 4 in small)', of_table4))


def _opening(metrics):
    p, data = metrics['profile'], {split: count for split, count, _ in metrics['data']}
    minutes = sum(metrics['seconds'].values()) / 60
    return [
        '# Evidence at reduced scale',
        '<!-- made by tools/reproduce_reduced.py; do not edit -->',
        'Does PD do what the paper says, and what this project says beyond it? Full-scale training '
        'needs FFHQ, official priors and days of GPU; this page has every claim at reduced scale: '
        f'{data["train"]} training and {data["val"]} test faces at {p["out_size"]} px, a small '
        'StyleGAN2 trained on the same faces as the prior, minutes of training. It tells whether '
        'PD helps, and which way; not how good GLEAN looks. Seeds, images and budgets were fixed '
        'beforehand, the last checkpoint counts.',
        f'Made by `python tools/reproduce_reduced.py --data DIR --profile {p["name"]}`, and again '
        f'with `--write-docs{" --notes docs/evidence_notes.json" * bool(metrics["notes"])}`, '
        f'{metrics["date"]}, {metrics["machine"]} shared with other work, '
        f'PyTorch {metrics["torch"]}: {len(metrics["seconds"])} of {metrics["jobs"]} runs and '
        f'measurements are done, {minutes:.0f} minutes in all if one came after the other. The '
        'figures are in `docs/evidence.json`.',
        '## Claims', 'Decided by the rules in `tools/reduced/claims.py` from the figures below.',
        of_claims(metrics)]


def _protocol(metrics):
    p = metrics['profile']
    parts = [
        '## How it was measured',
        f'Restorers `configs/reduced/*_{p["suffix"]}.py`, {p["iters"]} iterations, batch 4, '
        "learning rate 1e-3 (the paper's text), GAN weight 1e-2, no perceptual loss (its VGG "
        'weights are a download), the prior loaded completely, its discriminator too; '
        f'{len(p["seeds"])} seeds in the tables of 8×, one elsewhere. LR: '
        f'{p["out_size"] // p["scales"][0]} px by bicubic(antialias); PD with average pooling. '
        'Test: all validation faces, 8-bit images, RGB, no border cropped; ± is half the range '
        'over seeds. LPIPS is not available offline. FID-R64 is the Fréchet distance in 64 '
        'features of a VGG11 of random weights (after Naeem et al., ICML 2020), on the first '
        f'{IMAGES} faces, times 1000; it compares within this page only.']
    if p['name'] == 'cpu':
        parts.append('The other profile, `gpu` (16 → 128 px, 8× and 16×, three seeds), was tried '
                     'on a CPU with a handful of iterations, to see that it runs; it has no '
                     'figures yet.')
    return parts


def _introduction(stage, p):
    """What stands above a section's figures; None where they need no words."""
    return dict(
        convergence=f'Validation on the first {p["val_images"]} validation faces every '
                    f'{p["val_interval"]} iterations, the resolution of these figures. '
                    '"a → b": iteration a of the baseline, and the first one, b, at which PD has '
                    'that PSNR.',
        appendix=f'{p["out_size"] // 16} → {p["out_size"]} px, {p["short_iters"]} iterations, one '
                 'seed. PSNR in dB, errors of the LR in grey levels; the last column is how far '
                 'the PSNR of the validation faces fell below its best so far during training.',
        beyond=f'One seed; {p["iters"]} iterations.',
        table4=f'{p["short_iters"]} iterations, one seed; PSNR of the test faces. PDN is trained '
               'by the adversarial loss alone.').get(stage)


def _pictures(metrics, names):
    captions = dict(
        compare_end='Figs. 4 and 9: LR, the four models, GT; below, five times the error, then '
        'five times the error of the LR',
        compare_half=f'Fig. 10: half-way, after {metrics["profile"]["iters"] // 2} iterations',
        panel_pd_glean_end='Fig. 6: x_r, δ, A† y and x̂ of GLEAN + PD')
    return ['## Pictures',
            "scikit-image's astronaut (public domain); no face of the data is shown. Minutes of "
            'training at this size do not make good faces.',
            *(f'![{captions[name]}](evidence_{name}.png)\n\n*{captions[name]}*'
              for name in names)]


def render(metrics, figures=()):
    """The page.

    Args:
        metrics (dict): As :func:`collect` returns.
        figures (Sequence[str]): Stems of the pictures beside it, ``evidence_{stem}.png``.

    Returns:
        str: Markdown.
    """
    notes = metrics['notes']
    curves = [name for name in figures if name.startswith('convergence')]
    others = [name for name in figures if name not in curves]
    parts = [*_opening(metrics), *_protocol(metrics), notes.get('how')]
    for stage, title, section in SECTIONS:
        parts += [f'## {title}', _introduction(stage, metrics['profile']), section(metrics),
                  notes.get(stage)]
        if stage == 'convergence':
            parts += [f'![PSNR over iterations](evidence_{name}.png)' for name in curves]
    parts += ['## Real networks', (
        'Real-ESRGAN with its published weights, with and without PD, on public-domain pictures: '
        '[the exact colour fix](colour_fix.md) has PSNR, SSIM, PSNR(LR), hallucination and '
        'omission; noisy and JPEG LR are in [noisy LR images](noise.md). They are not measured '
        'again here. RealSR, and networks trained by PSNR on their own kernel, are not measured.')]
    if others:
        parts += _pictures(metrics, others)
    if notes.get('end'):
        parts += ['## What did not reproduce, and why', notes['end']]
    return '\n\n'.join(part for part in parts if part) + '\n'


def write(metrics, json_path, page_path, figures=()):
    """Both files, atomically."""
    from mmpd.utils.files import write_atomically
    write_atomically(json_path, (json.dumps(metrics, indent=1, ensure_ascii=False) + '\n').encode())
    write_atomically(page_path, render(metrics, figures).encode())


def write_docs(plan, notes):
    """docs/evidence.md, evidence.json and the pictures; returns the exit code."""
    metrics, figures = collect(plan, notes), []
    for name in FIGURES:
        source = plan.out / 'figures' / f'{name}.png'
        if source.exists():
            shutil.copyfile(source, DOCS / f'evidence_{name}.png')
            figures.append(name)
    metrics['figures'] = figures
    write(metrics, DOCS / 'evidence.json', DOCS / 'evidence.md', figures)
    print(f'{DOCS / "evidence.md"}: {len(metrics["seconds"])} of {metrics["jobs"]} jobs')
    return 0
