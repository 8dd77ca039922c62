"""Which of the claims the figures bear out; decided by rules that stand here, not by eye."""
from .plan import PAIRS

CASES = ('bicubic(antialias)', 'bilinear(antialias)')  # of the paper's Table 4
CONSISTENT = 120  # dB, PSNR(LR) of float outputs
FEWER = 2  # times
VISIBLE = 0.005  # dB, the least gain that two decimals show
LEVEL = -0.05  # dB, no loss worth the name
REPRODUCED, NOT, MISSING = 'reproduced', 'not reproduced', 'not run'


def verdict(checks):
    """Of an iterable of booleans, all of which a claim needs."""
    checks = list(checks)
    return MISSING if not checks else REPRODUCED if all(checks) else NOT


def pairs(results, profile):
    """(label, figures of the plain model, of the one with PD) of each pair that was tested."""
    for scale in profile['scales']:
        for plain, pd in PAIRS:
            for seed in profile['seeds']:
                names = [f'{method}_x{scale}_s{seed}_test' for method in (plain, pd)]
                if all(name in results for name in names):
                    yield (plain, scale, seed), *(results[name] for name in names)


def difference(results, name, other, key='PSNR'):
    """results[other][key] - results[name][key], None if one of them was not run."""
    if name not in results or other not in results:
        return None
    return results[other][key] - results[name][key]


def _claim(name, checks, text, source):
    return dict(claim=name, verdict=verdict(checks), text=text, source=source)


def better(results, profile):
    """Tables 2 and 3."""
    found = list(pairs(results, profile))
    gains = [(pd['PSNR'] - plain['PSNR'], pd['SSIM'] - plain['SSIM']) for _, plain, pd in found]
    text = '' if not found else (
        '{} pairs: PSNR {:+.2f} to {:+.2f} dB, SSIM {:+.3f} to {:+.3f}'.format(len(found), *(
            limit(gain[i] for gain in gains) for i in (0, 1) for limit in (min, max))))
    return _claim('PD is better in PSNR and SSIM in every pair',
                  (gain > 0 for both in gains for gain in both), text, 'Tables 2 and 3')


def consistent(results, profile):
    """Table 1, Fig. 9."""
    found = list(pairs(results, profile))
    text = '' if not found else (
        'PSNR(LR) {:.1f} to {:.1f} dB without PD, at least {:.0f} dB with it; largest error of the '
        'LR made from the saved files with PD: {:g} grey levels'.format(
            *(limit(plain['PSNR_LR'] for _, plain, _ in found) for limit in (min, max)),
            min(pd['PSNR_LR'] for _, _, pd in found),
            max(pd['MaxErr_LR_8bit'] for _, _, pd in found)))
    return _claim('Outputs with PD give back the LR, those without do not',
                  (check for _, plain, pd in found for check in (
                      pd['PSNR_LR'] >= CONSISTENT > plain['PSNR_LR'],
                      pd['MaxErr_LR_8bit'] < 1e-3)), text, 'Table 1, Fig. 9')


def faster(results, profile):
    """Fig. 3."""
    found = [(plain, seed, results[name]) for scale in profile['scales'] for plain, _ in PAIRS
             for seed in profile['seeds']
             for name in [f'curves_{plain}_x{scale}_s{seed}'] if name in results]
    early = [curve[percent] for _, _, curve in found for percent in ('10', '50')]
    texts = []
    for percent in ('10', '50', '100'):
        times = [curve[percent]['times'] for _, _, curve in found]
        if times:
            known = [time for time in times if time]
            bound = sum(curve[percent]['first'] for _, _, curve in found)
            remarks = [f'{count} of {len(times)} {what}' for count, what in (
                (bound, 'at the first validation: at least'),
                (len(times) - len(known), 'never')) if count]
            texts.append(f'at {percent} % of the budget ' + (
                f'{min(known):.1f} to {max(known):.1f} times fewer' if known else 'never')
                + (f' ({", ".join(remarks)})' if known and remarks else ''))
    return _claim('Early on, PD needs 2 to 10 times fewer iterations for the PSNR of the baseline',
                  (bool(at['times']) and at['times'] >= FEWER for at in early),
                  '; '.join(texts), 'Fig. 3')


def _from(name, gains, source):
    known = {label: gain for label, gain in gains.items() if gain is not None}
    checks = [gain >= VISIBLE for gain in known.values()] if len(known) == len(gains) else ()
    return _claim(name, checks, '; '.join(f'{label} {gain:+.2f} dB'
                                          for label, gain in known.items()), source)


def unseen(results, profile):
    """Table 4."""
    gains = {}
    for other, label in (('glean', 'GLEAN'), ('panini', 'Panini')):
        for case in CASES:
            gains[f'over {label}, {case}:'] = difference(
                results, f'alias_{other}_test', 'alias_pdn_test', f'{case}/PSNR')
    return _from('PDN, trained by the adversarial loss alone, has a higher PSNR than GLEAN and '
                 'Panini on downsamplings that none was trained on', gains, 'Table 4')


def weights(results, profile):
    """Appendix B, p. 5."""
    return _from('At 16x, PD does better with GAN weight 1e-3 than with 1e-2',
                 {'PSNR': difference(results, 'pd_x16_gan1e-2_test', 'pd_x16_gan1e-3_test')},
                 'p. 5, appendix B')


def truncation(results, profile):
    """Appendix B."""
    names = 'pd_x16_gan1e-2_test', 'pd_x16_gan1e-2_clip'
    if not all(name in results for name in names):
        return _claim('Clipping and rounding break consistency; exact rounding keeps it', (), '',
                      'appendix B')
    exact, clip = (results[name] for name in names)
    return _claim(
        'Clipping and rounding break consistency; exact rounding keeps it',
        (clip['PSNR_LR_8bit'] < clip['PSNR_LR'] - 10, exact['MaxErr_LR_8bit'] < 1e-3),
        f'PSNR(LR) {clip["PSNR_LR"]:.1f} dB before, {clip["PSNR_LR_8bit"]:.1f} dB after clipping '
        f'and rounding, largest error {exact["MaxErr_LR_8bit"]:g} after exact rounding',
        'appendix B')


def bounded(results, profile):
    """New."""
    plain, bounds = 'pd_x16_gan1e-2', 'pd_x16_gan1e-2_bounds'
    clipped = difference(results, f'{bounds}_clip', f'{plain}_clip', 'MaxErr_LR_8bit')
    loss = difference(results, f'{plain}_test', f'{bounds}_test')
    name = 'With `bounds` clipping breaks nothing (errors of rounding alone), at no loss of PSNR'
    if clipped is None or loss is None:
        return _claim(name, (), '', 'new')
    errors = [results[f'{run}_clip']['MaxErr_LR_8bit'] for run in (plain, bounds)]
    return _claim(name, (errors[1] < 0.5, loss >= LEVEL),
                  f'largest LR error after clipping and rounding {errors[0]:.2f} without, '
                  f'{errors[1]:.2f} grey levels with bounds; PSNR {loss:+.2f} dB', 'new')


def stable(results, profile):
    """New: asked by the issue."""
    found = results.get('stability_x16')
    name = 'Training with `bounds` is more stable than plain PD at 16x, GAN weight 1e-2'
    if not found:
        return _claim(name, (), '', 'new')
    plain, bounds = (found[run] for run in ('pd_x16_gan1e-2', 'pd_x16_gan1e-2_bounds'))
    return _claim(name, (bounds['drop'] < plain['drop'] - VISIBLE, ),
                  f'largest fall of the validation PSNR below its best so far {plain["drop"]:.2f} '
                  f'dB without, {bounds["drop"]:.2f} dB with bounds', 'new')


def matched(results, profile):
    """New."""
    pd = f'pd_glean_x8_s{profile["seeds"][0]}_test'
    return _from('A head that is the true downsampler (bicubic) is better than average pooling', {
        'in training and test': difference(results, pd, 'pd_bicubic_test'),
        'GLEAN, only at test': difference(results, 'glean_pd_only_at_test',
                                          'glean_bicubic_only_at_test'),
        'Panini, only at test': difference(results, 'panini_pd_only_at_test',
                                           'panini_bicubic_only_at_test')}, 'new')


def at_test(results, profile):
    """New."""
    seed = profile['seeds'][0]
    return _from('PD put behind a model that was trained without it raises its PSNR', {
        label: difference(results, f'{method}_x8_s{seed}_test', f'{method}_pd_only_at_test')
        for method, label in (('glean', 'GLEAN'), ('panini', 'Panini'))}, 'new')


def in_training(results, profile):
    """New."""
    seed = profile['seeds'][0]
    return _from('PD in training is better than PD at test alone', {
        label: difference(results, f'{method}_pd_only_at_test', f'pd_{method}_x8_s{seed}_test')
        for method, label in (('glean', 'GLEAN'), ('panini', 'Panini'))}, 'new')


def noisy(results, profile):
    """New."""
    return _from('`noise_std` is better than plain PD on noisy and JPEG LR', {
        'noise': difference(results, 'noise_pd', 'noise_pd_noise_std'),
        'JPEG': difference(results, 'jpeg_pd', 'jpeg_pd_noise_std')}, 'new')


def blocky(results, profile):
    """New."""
    found, seed = results.get('blocks'), profile['seeds'][0]
    text, checks = '', ()
    if found:
        pool, bicubic = f'pd_glean_x8_s{seed}', 'pd_bicubic'
        early = [found[f'{name}_early'] for name in (pool, bicubic)]
        checks = early[0] > found['GT'] * 1.1, early[0] > early[1]
        text = (f'energy at block borders, 1 = none: pooling {early[0]:.2f}, bicubic head '
                f'{early[1]:.2f}; at the end {found[f"{pool}_end"]:.2f} and '
                f'{found["pd_bicubic_end"]:.2f}; GT {found["GT"]:.2f}')
    return _claim('Early in training a pooling head shows its blocks, a bicubic head fewer', checks,
                  text, 'new')


RULES = (better, consistent, faster, unseen, weights, truncation, bounded, stable, matched, at_test,
         in_training, noisy, blocky)


def decide(results, profile):
    """All claims.

    Args:
        results (dict): job name -> its figures.
        profile (dict): with ``seeds`` and ``scales``.

    Returns:
        list[dict]: ``claim``, ``verdict``, ``text`` (the figures), ``source``.
    """
    return [rule(results, profile) for rule in RULES]
