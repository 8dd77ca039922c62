"""What is trained and tested at reduced scale: profiles, budgets, jobs. All fixed beforehand."""
import dataclasses
import functools
import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs/reduced'
STAGES = ('prior', 'tables', 'convergence', 'appendix', 'beyond', 'table4', 'figures')
PAIRS = (('glean', 'pd_glean'), ('panini', 'pd_panini'))
LABELS = dict(glean='GLEAN', pd_glean='GLEAN + PD', panini='Panini', pd_panini='Panini + PD',
              pdn='PDN')
CASES = ('bicubic(antialias)', 'bilinear(antialias)', 'box(antialias)', 'lanczos(antialias)')
# of the LR, and what noise_std is told: sigma, and the root mean square error of JPEG of this
# quality in docs/noise.md
DEGRADED = dict(noise=10, jpeg=9)
JPEG_QUALITY = 50
TRANSFORMS = dict(
    noise=f"dict(type='RandomNoise', keys=['img'], params=dict(noise_type=['gaussian'], "
          f"noise_prob=[1], gaussian_sigma=[{DEGRADED['noise']}, {DEGRADED['noise']}], "
          f"gaussian_gray_noise_prob=0))",
    jpeg=f"dict(type='RandomJPEGCompression', keys=['img'], color_type='color', "
         f"params=dict(quality=[{JPEG_QUALITY}, {JPEG_QUALITY}]))")
# of scikit-image's astronaut (public domain), placed as the faces of training are
FACE = dict(top=68, left=164, side=112)


@dataclasses.dataclass(frozen=True)
class Profile:
    """Sizes and budgets of a profile."""
    name: str
    seeds: tuple  # of the restorers
    prior_iters: int
    prior_save: int  # every so many iterations
    iters: int  # of the restorers in Tables 2 and 3
    short_iters: int  # of the further trainings
    val_interval: int
    val_images: int  # the first so many of the validation faces, for the curve
    scales: tuple  # of Tables 2 and 3
    prior: str
    suffix: str  # of the configs of restorers
    out_size: int
    threads: int  # of each training


PROFILES = dict(
    # 2 cores shared with others: an iteration takes 0.4 to 0.6 (prior, batch 8) and 0.3 to 0.5
    # (restorers, batch 4) seconds of a core
    cpu=Profile('cpu', (0, 1), 1500, 100, 800, 300, 20, 32, (8, ),
                'stylegan2_64_1xb8-1500_faces', 'in8out64_1xb4-800_faces', 64, 1),
    # not run yet
    gpu=Profile('gpu', (0, 1, 2), 6000, 500, 1500, 750, 75, 100, (8, 16),
                'stylegan2_128_1xb16-6k_faces', 'in16out128_1xb4-1500_faces', 128, 4))


@dataclasses.dataclass(frozen=True)
class Job:
    """One tool run, or one measurement; its result is a JSON file."""
    name: str
    stage: str
    tool: str  # a script of the repository, or 'measure.FUNCTION'
    arguments: tuple
    after: tuple = ()
    cost: float = 1.0  # for the time that is left, in training iterations

    @property
    def trains(self):
        return self.tool == 'tools/train.py'


class Plan:
    """The jobs of a profile, in the order of their importance.

    Args:
        profile (Profile): Budgets.
        data (str | Path): Folder with ``train`` and ``val``.
        out (str | Path): Folder of all results.
    """

    def __init__(self, profile, data, out):
        self.profile, self.data, self.out = profile, Path(data), Path(out)
        self.jobs = []
        self._prior()
        for scale in profile.scales:
            self._tables(scale)
        self._convergence()
        self._appendix()
        self._beyond()
        self._table4()
        self._figures()
        names = [job.name for job in self.jobs]
        assert len(set(names)) == len(names)

    # paths ------------------------------------------------------------------------------------
    def config(self, method):
        return CONFIGS / f'{method}_{self.profile.suffix}.py'

    @property
    def prior_checkpoint(self):
        return self.out / f'prior/iter_{self.profile.prior_iters}.pth'

    def checkpoint(self, run, iters=None):
        return self.out / run / f'iter_{iters or self._iters[run]}.pth'

    def result(self, name):
        return self.out / 'results' / f'{name}.json'

    # jobs -------------------------------------------------------------------------------------
    _iters = {}

    def _add(self, *args, **kwargs):
        self.jobs.append(Job(*args, **kwargs))

    def _prior(self):
        p = self.profile
        self._add('prior', 'prior', 'tools/train.py', (
            str(CONFIGS / f'{p.prior}.py'), '--resume', '--work-dir', str(self.out / 'prior'),
            '--cfg-options', f'train_cfg.max_iters={p.prior_iters}',
            f'train_dataloader.dataset.data_root={self.data}',
            f'default_hooks.checkpoint.interval={p.prior_save}',
            'default_hooks.logger.interval=25', 'randomness.seed=2023'), cost=1.4 * p.prior_iters)
        self._add('prior_samples', 'prior', 'measure.prior', (
            str(CONFIGS / f'{p.prior}.py'), str(self.prior_checkpoint), str(self.data),
            str(p.out_size), str(self.out / 'prior')), after=('prior', ), cost=80)

    def _train(self, run, stage, method, seed, iters, options=(), keep=False):
        p = self.profile
        self._iters = {**self._iters, run: iters}
        saved = max(1, iters // 10) if keep else max(1, iters // 5)
        self._add(run, stage, 'tools/train.py', (
            str(self.config(method)), '--resume', '--work-dir', str(self.out / run),
            '--cfg-options', f'train_cfg.max_iters={iters}',
            f'train_cfg.val_interval={p.val_interval}', f'param_scheduler.T_max={iters}',
            f'train_dataloader.dataset.data_root={self.data}',
            f'val_dataloader.dataset.data_root={self.data}',
            f'val_dataloader.dataset.indices={p.val_images}',
            f'default_hooks.checkpoint.interval={saved}',
            f'default_hooks.checkpoint.max_keep_ckpts={-1 if keep else 2}',
            'default_hooks.logger.interval=25', f'randomness.seed={2023 + seed}',
            *self._prior_options(), *options), after=('prior', ), cost=1.2 * iters + 60)

    def _prior_options(self):
        return tuple(f'model.{part}.init_cfg.checkpoint={self.prior_checkpoint}'
                     for part in ('generator', 'discriminator'))

    def _test(self, name, stage, method, run, options=(), iters=None, config=None, images=None):
        options = (f'test_dataloader.dataset.data_root={self.data}', 'randomness.seed=2023',
                   *self._prior_options(), *options)
        if images:
            options += (f'test_dataloader.dataset.indices={images}', )
        self._add(name, stage, 'tools/test.py', (
            str(config or self.config(method)), str(self.checkpoint(run, iters)), '--work-dir',
            str(self.out / 'tests' / name), '--out', str(self.result(name)), '--cfg-options',
            *options), after=(run, ), cost=(images or 400) / 8)

    def _scaled(self, scale):
        """Options that turn the configs of 8x into others; none at 8x."""
        if scale == 8:
            return ()
        return (f'model.generator.in_size={self.profile.out_size // scale}', *(
            f'{part}_dataloader.dataset.pipeline.{self._place(part)}.scale={scale}'
            for part in ('train', 'val', 'test')))

    def _place(self, part):
        """Of LRSynthesis in a pipeline: after loading, pooling (of 128 px to 64), flipping."""
        return (1 if part != 'train' else 2) + (self.profile.out_size == 64)

    @staticmethod
    def run_name(method, seed, scale=8):
        return f'{method}_x{scale}_s{seed}'

    def _tables(self, scale):
        p = self.profile
        runs = []
        for seed in p.seeds:
            for method in (method for pair in PAIRS for method in pair):
                run = self.run_name(method, seed, scale)
                keep = seed == p.seeds[0] and method in ('glean', 'pd_glean') and scale == 8
                options = self._scaled(scale)
                self._train(run, 'tables', method, seed, p.iters, options, keep)
                self._test(f'{run}_test', 'tables', method, run, options)
                runs.append(f'{run}_test')
        self._add(f'fid_x{scale}', 'tables', 'measure.fid', (
            str(self.data), str(p.out_size), str(scale),
            *(f'{name}={self.out / "tests" / name}' for name in runs)),
            after=tuple(runs), cost=25 * (len(runs) + 3))

    def _convergence(self):
        p = self.profile
        for scale in p.scales:
            for seed in p.seeds:
                for pair in PAIRS:
                    runs = [self.run_name(method, seed, scale) for method in pair]
                    self._add(f'curves_{pair[0]}_x{scale}_s{seed}', 'convergence',
                              'measure.convergence', (
                                  str(p.iters), *(str(self.out / run) for run in runs),
                                  *(LABELS[method] for method in pair),
                                  str(self.out / 'figures' /
                                      f'convergence_{pair[0]}_x{scale}_s{seed}.png')),
                              after=tuple(runs), cost=8)

    def _appendix(self):
        """At 16x: weights of the GAN loss and of the pixel loss, bounds, quantisation."""
        p, seed = self.profile, self.profile.seeds[0]
        scale = self._scaled(16)
        variants = {
            'glean_x16_gan1e-2': ('glean', ()),
            'pd_x16_gan1e-2': ('pd_glean', ()),
            'pd_x16_gan1e-3': ('pd_glean', ('model.gan_loss.loss_weight=0.001', )),
            'pd_x16_gan1e-2_bounds': ('pd_glean', ('model.pd_head.bounds=[0,255]', )),
            'pd_x16_gan1e-2_pixel0.1': ('pd_glean', ('model.pixel_loss.loss_weight=0.1', )),
        }
        for run, (method, options) in variants.items():
            self._train(run, 'appendix', method, seed, p.short_iters, (*scale, *options))
            options = (*scale, *options)
            self._test(f'{run}_test', 'appendix', method, run, options)
            if method == 'pd_glean':
                self._test(f'{run}_clip', 'appendix', method, run,
                           (*options, 'model.test_cfg.quantize=clip'))
        self._add('stability_x16', 'appendix', 'measure.stability',
                  tuple(f'{run}={self.out / run}' for run in variants), after=tuple(variants),
                  cost=5)

    def _beyond(self):
        p, seed = self.profile, self.profile.seeds[0]
        bicubic = ('model.pd_head.operator.type=SeparableResize',
                   'model.pd_head.operator.kernel=bicubic', 'model.pd_head.operator.scale=8')
        glean, pd, panini = (self.run_name(method, seed)
                             for method in ('glean', 'pd_glean', 'panini'))
        self._train('pd_bicubic', 'beyond', 'pd_glean', seed, p.iters, bicubic, keep=True)
        self._test('pd_bicubic_test', 'beyond', 'pd_glean', 'pd_bicubic', bicubic)
        self._test('pd_bicubic_only_at_test', 'beyond', 'pd_glean', pd, bicubic)
        self._test('glean_pd_only_at_test', 'beyond', 'pd_glean', glean)
        self._test('glean_bicubic_only_at_test', 'beyond', 'pd_glean', glean, bicubic)
        self._test('panini_pd_only_at_test', 'beyond', 'pd_panini', panini)
        self._test('panini_bicubic_only_at_test', 'beyond', 'pd_panini', panini, bicubic)
        early = max(1, p.iters // 10)
        for run, method, options in ((glean, 'glean', ()), (pd, 'pd_glean', ()),
                                     ('pd_bicubic', 'pd_glean', bicubic)):
            for iters, when in ((early, 'early'), (None, 'end')):
                self._test(f'{run}_{when}', 'beyond', method, run, options, iters, images=48)
        blocks = [f'{run}_{when}' for run in (glean, pd, 'pd_bicubic') for when in ('early', 'end')]
        self._add('blocks', 'beyond', 'measure.blocks', (
            str(self.data), str(p.out_size), *(f'{name}={self.out / "tests" / name}'
                                               for name in blocks)), after=tuple(blocks), cost=10)
        for kind, sigma in DEGRADED.items():
            for name, run, method, options in (
                    ('glean', glean, 'glean', ()),
                    ('pd', pd, 'pd_glean', ('model.test_cfg.quantize=clip', )),
                    ('pd_noise_std', pd, 'pd_glean', (f'model.pd_head.noise_std={sigma}', ))):
                self._test(f'{kind}_{name}', 'beyond', method, run, options,
                           config=self.degraded_config(method, kind))

    def _table4(self):
        p, seed = self.profile, self.profile.seeds[0]
        options = tuple(f'{part}_dataloader.dataset.pipeline.{self._place(part)}.antialias=False'
                        for part in ('train', 'val', 'test'))
        for method in ('pdn', 'glean', 'panini'):
            run = f'alias_{method}'
            self._train(run, 'table4', method, seed, p.short_iters, options)
            self._test(f'{run}_test', 'table4', method, run,
                       (*options, 'test_cfg.type=DownsamplingTestLoop'))
            self.jobs[-1] = dataclasses.replace(self.jobs[-1], cost=250)
        # looked into after PDN had come to nothing at the learning rate of the paper's text
        slow = 'alias_pdn_lr1e-4'
        self._train(slow, 'table4', 'pdn', seed, p.short_iters, (
            *options, 'optim_wrapper.generator.optimizer.lr=1e-4'))
        self._test(f'{slow}_test', 'table4', 'pdn', slow,
                   (*options, 'test_cfg.type=DownsamplingTestLoop'))
        draws = []
        for draw in range(3):
            self._test(f'pdn_draw{draw}', 'table4', 'pdn', 'alias_pdn',
                       (*options, f'model.test_cfg.seed={draw}'), images=48)
            draws.append(f'pdn_draw{draw}')
        self._add('diversity', 'table4', 'measure.diversity', tuple(
            str(self.out / 'tests' / name) for name in draws), after=tuple(draws), cost=5)

    def _figures(self):
        """Of the astronaut: Figs. 4, 6, 9 at the end, Fig. 10 half-way."""
        seed, tests = self.profile.seeds[0], []
        for method in (method for pair in PAIRS for method in pair):
            run = self.run_name(method, seed)
            for when in ('end', 'half') if method in PAIRS[0] else ('end', ):
                name = f'astronaut_{method}_{when}'
                self._test(name, 'figures', method, run, (
                    f'test_dataloader.dataset.data_root={self.out / "astronaut"}',
                    'test_dataloader.dataset.data_prefix.gt=GT'),
                    self.profile.iters // 2 if when == 'half' else None)
                job = self.jobs[-1]
                self.jobs[-1] = dataclasses.replace(
                    job, arguments=(*job.arguments[:2], '--panels', '1', *job.arguments[2:]),
                    cost=30)
                tests.append(name)
        self._add('figures', 'figures', 'measure.figures', (
            str(self.out), *tests), after=tuple(tests), cost=5)

    # files that the jobs read -----------------------------------------------------------------
    def degraded_config(self, method, kind):
        return self.out / 'configs' / f'{method}_{kind}.py'

    def prepare(self):
        """Write the configs with degraded LR, and the astronaut."""
        import cv2
        import numpy as np
        import skimage
        from PIL import Image
        for folder in ('configs', 'results', 'done', 'logs', 'figures', 'astronaut/GT'):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        for kind, transform in TRANSFORMS.items():
            for method in ('glean', 'pd_glean'):
                self.degraded_config(method, kind).write_text(
                    f"_base_ = '{self.config(method)}'\n\n"
                    f'degrade = {transform}\n'
                    'pipeline = [*_base_.test_pipeline[:-1], degrade, _base_.test_pipeline[-1]]\n'
                    'test_dataloader = dict(dataset=dict(pipeline=pipeline))\n')
        picture = np.asarray(Image.open(
            Path(skimage.__file__).parent / 'data/astronaut.png').convert('RGB'))
        top, left, side = FACE['top'], FACE['left'], FACE['side']
        face = cv2.resize(picture[top:top + side, left:left + side], (128, 128),
                          interpolation=cv2.INTER_CUBIC)
        Image.fromarray(face).save(self.out / 'astronaut/GT/astronaut.png')

    # identity ---------------------------------------------------------------------------------
    @functools.cache  # noqa: B019  one plan per process
    def key(self, job):
        """What a result depends on: arguments, configs, data, and the jobs before."""
        texts = [job.tool, *job.arguments]
        texts = [text.replace(str(self.out), 'OUT').replace(str(self.data), 'DATA')
                 .replace(str(ROOT), 'ROOT') for text in texts]
        before = [self.key(self[name]) for name in job.after]
        config = None
        if job.arguments[0].endswith('.py'):
            from mmengine.config import Config
            config = Config.fromfile(job.arguments[0]).to_dict()
            config = repr(config).replace(str(ROOT), 'ROOT').replace(str(self.out), 'OUT')
        facts = json.dumps([texts, before, config, self.data_facts])
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    @functools.cached_property
    def data_facts(self):
        """Numbers and total sizes of the images."""
        return [[split, len(files), sum(file.stat().st_size for file in files)]
                for split in ('train', 'val')
                for files in [sorted((self.data / split).glob('*.jpg'))]]

    def __getitem__(self, name):
        return next(job for job in self.jobs if job.name == name)
