"""Faults put into a copy of the package one at a time: the tests named have to find each one.

    python tests/mutants.py             # all; "make mutants"
    python tests/mutants.py --list
    python tests/mutants.py backward ema
    python tests/mutants.py --package utils --sample 30 --seed 1  # drawn, see tests/mutation.py
    python tests/mutants.py --package all

Each mutant is (name, file, old text, new text, test file, -k expression).  The unchanged copy has
to pass all of these tests first.  Tests of the operators run without conftest.py, whose import of
MMagic they do not need.  tests/test_mutants.py holds the list to the code.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutation import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
OPS, TESTS = 'mmpd/operators/', 'tests/test_operators/'
JOURNAL = 'tests/test_datasets/test_preparation/test_preparation_journal.py'
MUTANTS = [
    # of the pass that training uses
    ('backward', OPS + 'pooling_function.py',
     'grad_x = again(grad, None, ctx.scale, ctx.strength, check=False)',
     'grad_x = grad', TESTS + 'test_operator_suite.py', 'Fused and gradcheck'),
    ('gradient_of_y', OPS + 'pooling_function.py', '(ctx.strength * ctx.scale**2)', '0',
     TESTS + 'test_operator_suite.py', 'Fused and gradcheck'),
    ('strength', OPS + 'pooling_pass.py', '''        if strength != 1:
            error = error * strength
        error = error.view(''', '        error = error.view(', TESTS + 'test_operator_suite.py',
     'Fused and test_strength'),
    ('strength_large', OPS + 'pooling_pass.py', '''            error *= strength
''', '''            pass
''', TESTS + 'test_operator_suite.py', 'TestAveragePooling2 and test_strength'),
    ('nan_check', OPS + 'pooling_pass.py', '''        look(error)
''', '', TESTS + 'test_operator_suite.py', 'Fused and nan'),
    ('nan_check_large', OPS + 'pooling_pass.py', 'run_check(check, torch.from_numpy(error), x, y)',
     'pass', TESTS + 'test_operator_suite.py', 'TestAveragePooling2 and nan'),
    ('arrays_observed', OPS + 'pooling_pass.py', 'and not is_observed()', '',
     TESTS + 'test_average_pooling.py', 'counted'),
    ('jvp', OPS + 'pooling_function.py', 'projection(x, y, ctx.scale, ctx.strength, False)',
     'projection(x, None, ctx.scale, ctx.strength, False)', TESTS + 'test_transforms.py', 'jvp'),
    ('vmap', OPS + 'pooling_function.py', 'tensor.movedim(dim, 0)', 'tensor',
     TESTS + 'test_transforms.py', 'vmap'),
    ('triton_compared', 'mmpd/utils/triton_trust.py', 'if not apart <= tolerance:', 'if False:',
     TESTS + 'test_triton_pooling.py', 'something_else'),
    ('triton_memory', 'mmpd/utils/triton_trust.py',
     "if 'out of memory' in str(reason).lower():", 'if False:',
     TESTS + 'test_triton_pooling.py', 'memory'),
    ('triton_tap', 'mmpd/compat/triton_ops.py', 'tap_y = first_y * UP_Y - begin_y + step_y',
     'tap_y = first_y * UP_Y - begin_y', 'tests/test_compat/test_triton_ops.py', 'interpreter'),
    ('triton_ops_compared', 'mmpd/compat/triton_ops.py',
     "require_same(apart.item(), dtype, f'a small image of {dtype}')", 'pass',
     'tests/test_compat/test_triton_ops.py', 'something_else'),
    # of operators
    ('pseudo_inverse', OPS + 'resize.py', 'torch.linalg.pinv(_matrix(', '(lambda a: a.T)(_matrix(',
     TESTS + 'test_operator_suite.py', 'TestBicubicAntialias and pseudo_inverse'),
    ('reduced_precision', OPS + 'base.py', '        return dtype\n    return torch.float64',
     '        return dtype\n    return dtype', TESTS + 'test_precision_and_modes.py', 'reduced'),
    ('cache', OPS + 'base.py', 'return pool.submit(arrays_of, args).result()',
     'return arrays_of(args)', TESTS + 'test_precision_and_modes.py', 'spoil'),
    ('stale', OPS + 'base.py', 'not torch.allclose(echo, before, 1e-12, 0)',
     'False', TESTS + 'test_precision_and_modes.py', 'follows'),
    ('adjoint', OPS + 'base.py', 'wanted = torch.is_grad_enabled() and y.requires_grad',
     'wanted = y.requires_grad', TESTS + 'test_precision_and_modes.py', 'adjoint'),
    ('deferred', OPS + 'base.py', '        self.tell()\n', '',
     TESTS + 'test_precision_and_modes.py', 'one_call_later'),
    ('wiener', OPS + 'wiener.py', '(variance * value**2 + noise_std**2)',
     '(variance * value**2 + noise_std)', TESTS + 'test_wiener.py', 'dense'),
    ('prior_variance', OPS + 'wiener.py', '((power - noise_std**2) / square)', '(power / square)',
     TESTS + 'test_wiener.py', 'dense'),
    # of the image range
    ('leaving', OPS + 'bounded.py', "beyond = (y <= low) | (y >= high)",
     'beyond = torch.zeros_like(y, dtype=torch.bool)', TESTS + 'test_bounded.py',
     'holds_an_image'),
    ('free', OPS + 'bounded.py', '.clamp(min=1) * free', '.clamp(min=1)',
     TESTS + 'test_bounded.py', 'gradients and 1.0'),
    ('held_gradient_of_y', OPS + 'bounded.py', '* weight * scale**2', '* scale**2',
     TESTS + 'test_bounded.py', 'gradients and 1.0'),
    ('dykstra', OPS + 'alternating.py', 'image = (x + ahead).clamp(low, high)',
     'image = x = (x + ahead).clamp(low, high)', TESTS + 'test_alternating.py',
     'equal_the_exact'),
    # of 8-bit images
    ('library', OPS + 'row_refinement.py', 'library(rounded).contiguous()',
     'operator.A(pixels).round().to(integers)', TESTS + 'test_library_resize.py', 'rounds_between'),
    ('best', OPS + 'row_refinement.py', 'return best, fewest',
     'return pixels.to(torch.uint8), fewest', TESTS + 'test_library_resize.py', 'counted'),
    ('boost', OPS + 'quantize.py', 'boost * GROWTH', 'boost', TESTS + 'test_quantize.py',
     'black_and_white'),
    # of models, data and hooks
    ('unit_range', 'mmpd/models/heads/pd_head.py', 'limit = 64 * torch.finfo(image.dtype).eps',
     'limit = 1e-4', 'tests/test_models/test_pd_head.py', 'precision_of_the_dtype'),
    ('check_waits', 'mmpd/models/heads/pd_head.py', 'check = deferred_check', 'check = True',
     'tests/test_models/test_pd_head.py', 'does_not_wait'),
    ('ema', 'mmpd/models/editors/gan_prior_sr.py',
     'unwrap(self.generator_ema).load_state_dict(unwrap(self.generator).state_dict())', 'pass',
     'tests/test_models/test_gan_prior_sr.py', 'averaged_generator_begins'),
    ('made_by', 'mmpd/models/editors/pd_mixin.py', 'made_by=self.made_by)', 'made_by=None)',
     'tests/test_models/test_pd_models.py', 'library_that_made'),
    ('grey', 'mmpd/models/editors/pd_mixin.py', 'saved = saved.flip(1)', 'saved = saved',
     'tests/test_models/test_pd_models.py', 'grey_is_coloured'),
    ('amp', 'mmpd/models/generators/stylegan2_prior.py', 'latents = latents.to(dtype)', '',
     'tests/test_models/test_generators/test_amp.py', 'generators_under'),
    ('border', 'mmpd/datasets/transforms/lr_synthesis.py', '''self.quantize,
                              self.border, self.made_by)''', 'self.quantize)',
     'tests/test_datasets/test_lr_synthesis.py', 'every_option'),
    # of the data path
    ('lr_made_by', 'mmpd/datasets/transforms/lr_synthesis.py', 'self.border, self.made_by)',
     'self.border)', 'tests/test_datasets/test_lr_synthesis.py', 'every_option or lr_folder'),
    ('half_up', 'mmpd/datasets/resampling.py', '(2 * sums + area)', '(2 * sums)',
     'tests/test_datasets/test_resampling.py', 'average_pooling'),
    ('sums_of_16_bits', 'mmpd/datasets/resampling.py', 'and scale <= 16:', 'and scale <= 999:',
     'tests/test_datasets/test_resampling.py', 'large_scales'),
    ('shard', 'mmpd/datasets/preparation/journal.py', 'keys[self.index - 1::self.count]', 'keys',
     JOURNAL, 'shards'),
    ('mended', 'mmpd/datasets/preparation/journal.py', " or 'bad' in shards[key]:", ':',
     JOURNAL, 'mended'),
    ('others_at_work', 'mmpd/datasets/preparation/journal.py', 'self.count == 1 or all_shards',
     'True', JOURNAL, 'killed_shards'),
    ('joined', 'mmpd/datasets/preparation/engine.py', '        journal.join(keys, done)\n',
     '        pass\n', JOURNAL, 'byte_for_byte'),
    ('checksum', 'mmpd/utils/plain_files.py',
     ' or checksum(data, end)[0] != crc32(view[position + 4:end])', '',
     'tests/test_utils/test_plain_files.py', 'before_opencv'),
    ('end_of_jpeg', 'mmpd/utils/plain_files.py', ' or data[-2:] != END', '',
     'tests/test_utils/test_plain_files.py', 'before_opencv'),
    ('panel_operator', 'mmpd/engine/hooks/panel_hook.py', 'if self.operator is not None:',
     'if False:', 'tests/test_engine/test_panel_hook.py', 'given_operator'),
    # of the web page
    ('bomb', 'mmpd/web/uploads.py', 'if size[0] * size[1] > most:', 'if False:',
     'tests/test_web/test_uploads.py', 'bomb'),
    ('formats', 'mmpd/web/uploads.py', ', formats=FORMATS', '', 'tests/test_web/test_uploads.py',
     'cannot_be_used'),
    ('upload', 'mmpd/web/guard.py', 'if int(length) > self.limits.upload_bytes + SLACK:',
     'if False:', 'tests/test_web/test_guard.py', 'size_of'),
    ('links', 'mmpd/web/catalogue.py', ' and path.resolve().parent == root', '',
     'tests/test_web/test_catalogue.py', 'no_others'),
    ('escaped', 'mmpd/web/replies.py', '{html.escape(text)}', '{text}',
     'tests/test_web/test_jobs.py', 'markup'),
]


def copy_of_the_package(folder):
    """What the tests need, so that a mutant never touches the working tree."""
    unwanted = shutil.ignore_patterns('__pycache__', '.mim', '_build', '_pages')
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith('.coverage'):
            shutil.copy(path, folder)
        elif path.name in ('mmpd', 'tests', 'configs', 'tools', 'docs', 'integrations',
                           'requirements'):
            shutil.copytree(path, folder / path.name, ignore=unwanted)


def run_tests(folder, path, expression):
    """Exit code of pytest: 0 passed, 1 a test failed, 5 none was selected."""
    light = ['--noconftest'] if path.startswith(TESTS) else []
    command = [sys.executable, '-B', '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', *light,
               path, '-k', expression]
    return subprocess.run(command, cwd=folder, env={**os.environ, 'PYTHONPATH': str(folder)},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def draw(packages, args):
    """Random faults in each of the packages; 1 if fewer than nine in ten are found in one."""
    codes = []
    for package in packages:
        with tempfile.TemporaryDirectory() as folder:
            copy_of_the_package(Path(folder))
            codes.append(subprocess.run(
                [sys.executable, '-B', 'tests/mutation.py', folder, package, str(args.sample),
                 str(args.seed), str(args.budget), f'{folder}/.baseline', *args.only], cwd=folder,
                env={**os.environ, 'PYTHONPATH': folder, 'OMP_NUM_THREADS': '1'}).returncode)
    return max(codes)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help='of mutants, default all')
    parser.add_argument('--list', action='store_true', help='show the names')
    parser.add_argument('--package', action='append', default=[], choices=['all', *PACKAGES],
                        help='draw faults in this package of mmpd instead')
    parser.add_argument('--sample', type=int, default=20, help='how many of each (default 20)')
    parser.add_argument('--seed', type=int, default=0, help='of the draw (default 0)')
    parser.add_argument('--budget', type=float, default=30, metavar='SECONDS',
                        help='of processor time for the tests of one fault (default 30)')
    parser.add_argument('--only', action='append', default=[], metavar='TEXT',
                        help='of the faults of the packages all whose description has this')
    args = parser.parse_args(argv)
    if args.package:
        return draw(PACKAGES if 'all' in args.package else args.package, args)
    known = [name for name, *_ in MUTANTS]
    unknown = set(args.names) - set(known)
    if unknown:
        parser.error(f'unknown {", ".join(sorted(unknown))}; there are {", ".join(known)}')
    if args.list:
        print('\n'.join(known))
        return 0
    chosen = [mutant for mutant in MUTANTS if not args.names or mutant[0] in args.names]
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        copy_of_the_package(folder)
        for path in dict.fromkeys(mutant[4] for mutant in chosen):
            expression = ' or '.join(f'({mutant[5]})' for mutant in chosen if mutant[4] == path)
            run = run_tests(folder, path, expression)
            if run.returncode:
                print(run.stdout[-3000:])
                print(f'error: {path} -k {expression!r} fails without a mutant')
                return 2
        for name, file, old, new, path, expression in chosen:
            source = (folder / file).read_text()
            (folder / file).write_text(source.replace(old, new))
            code = run_tests(folder, path, expression).returncode
            (folder / file).write_text(source)
            print(f'{name}: {"killed" if code == 1 else f"SURVIVED (pytest exits with {code})"}',
                  flush=True)
            survived += [name] * (code != 1)
    print(f'{len(chosen) - len(survived)} of {len(chosen)} mutants killed')
    return 1 if survived else 0


if __name__ == '__main__':
    sys.exit(main())
