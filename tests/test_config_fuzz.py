"""Wrong values for every argument of every public type: refused when built, by the name of the
argument.

A quick sample runs in the suite, everything with ``make test-all``;
``python tests/test_config_fuzz.py`` prints the figures.
"""
import collections
import contextlib
import copy
import functools
import inspect
import random
import signal
import sys

import pytest
import torch

import mmpd  # noqa: F401

NAN, INF = float('nan'), float('inf')
ANY = ['text', NAN, INF, -INF, {}, [], object, b'1', 1j]
KINDS = {  # what no argument of the kind can be
    'size': [*ANY, -8, 0, 7, 48, 8.0, '8', True, None, [8], 2**40, 2],
    'count': [*ANY, -1, 0, 1.5, '3', True, None, [3], 10**9, (1, 2)],
    'count0': [*ANY, -1, 1.5, '3', True, None, [3], 10**9, (1, 2)],
    'seed': [*ANY, -1, 1.5, '3', True, None, [3], 10**30],
    'steps-1': [*ANY, -2, 1.5, '3', True, None, [3]],
    'positive': [*ANY, -1, 0, '0.1', True, None, [1.0], {'a': 1}],
    'not_negative': [*ANY, -1, '0.1', True, None, [1.0]],
    'fraction': [*ANY, -0.1, 1.5, '0.1', True, None, [0.5]],
    'minus': [*ANY, 0.1, -1.5, '0.1', True, None, [0.5]],
    'share': [*ANY, -0.1, 0, 1.5, '0.1', True, None, [0.5]],
    'flag': [*ANY, 'True', 'False', 'yes', 2, None, [True], 0.5],
    'name': [*ANY, 3, True, None, [3], 'TEXT', 'nosuch', ''],
    'text': [3, NAN, [], {}, True, '', ' ', object, 1.5, ['a']],
    'config': [*ANY, 3, True, [3], dict(type='NoSuchType'), dict(type=3), dict(typ='x'), ''],
    'cfg': ['text', 3, NAN, [1], True, 1.5, object, dict(nosuch=1), dict(quantise='clip')],
    'init': ['text', 3, NAN, [1], True, 1.5, object],
    'widths': [*(v for v in ANY if v != {}), 3, True, {4: 'a'}, {4: 0}, {4: -1}, {4: NAN}, {4: 1.5},
               {'a': 8}, {4: None}, {3: 8}, {4: 10**9}],
    'layers': [*(v for v in ANY if v != []), 3, True, None, [-1], [1.5], ['a'], [NAN], [None]],
    'number': [*ANY, '0.1', True, None, [1.0]],
    'counts': [*ANY, 3, True, None, [0], [-1], [1.5], ['a'], [NAN], [None], [10**9]],
    'numbers': ['text', NAN, INF, {}, [], object, True, None, [NAN], [INF], ['a'], [None], [[1]]],
    'positives': ['text', NAN, INF, {}, [], object, True, None, -1, 0, [NAN], [0], ['a'], [-1.0]],
    'range': ['text', NAN, {}, [], object, True, 3, [0], [1, 0], [0, NAN], ['a', 'b'], [0, 1, 2],
              [-1, 300], [None, 1]],
    'kernel': [*ANY, 3, True, None, ['a'], [NAN], [None], [0, 0], [INF, 1]],
    'mask': ['text', NAN, {}, [], object, None, [1, 0], [[2]], [[0, 0]], [[NAN]], [['a']], 3],
    'operators': ['text', NAN, {}, [], object, None, 3, [3], [dict(type='NoSuchType')], [None]],
    'operator': ['text', NAN, [], 3, True, object, {}, dict(type='NoSuchType'), dict(type=3),
                 dict(type='AveragePooling', scale=0), dict(type='AveragePooling', skale=8)],
    'keys': ['text', NAN, [], {}, 3, True, {'gt': 3}, {3: 'img'}, ['gt'], {'gt': ''}],
    'cases': ['text', NAN, [], {}, 3, True, None, ['bicubic', 'bicubic'], ['nosuch'], [3],
              'bicubic(alas)', 'average_pooling(alias)'],
    'metrics': ['Nosuch', NAN, 3, True, None, ['Nosuch'], [3], {'a': 1}, dict(type=3), 'FIDD',
                dict(type='Nosuch')],
}
for kind in ('count', 'count0'):  # where many are slow, but not wrong
    KINDS[kind.replace('count', 'steps')] = [value for value in KINDS[kind] if value != 10**9]
KINDS.update({f'{kind}?': [value for value in values if value is not None]
              for kind, values in KINDS.items()})

MODEL = dict(pixel_loss=dict(type='L1Loss'))
TINY = dict(in_size=8, out_size=32, style_channels=16, num_mlps=1, rrdb_channels=8, num_rrdbs=1,
            growth_channels=4, channels={4: 8, 8: 8, 16: 8, 32: 8})
PRIOR = {'style_channels': 'count', 'num_mlps': 'count0', 'channel_multiplier': 'count',
         'channels': 'widths?', 'blur_kernel': 'kernel', 'lr_mlp': 'positive',
         'fp16_enabled': 'flag', 'bgr2rgb': 'flag', 'init_cfg': 'init'}
CP = {'with_cp': 'flag'}
NETWORK = {'in_size': 'size', 'out_size': 'size', 'img_channels': 'count',
           'rrdb_channels': 'count', 'num_rrdbs': 'count0', 'growth_channels': 'count',
           'default_style_mode': 'name', 'eval_style_mode': 'name', 'mix_prob': 'fraction',
           'freeze_prior': 'flag', **CP, **PRIOR}
EDIT = {'generator': 'config', 'pixel_loss': 'config', 'train_cfg': 'cfg', 'test_cfg': 'cfg',
        'init_cfg': 'init', 'data_preprocessor': 'config?', 'pd_head': 'cfg'}
GAN = {'discriminator': 'config?', 'gan_loss': 'config?', 'perceptual_loss': 'config?'}
FIXED = {'in_size': 'count', 'out_size': 'count', 'in_kernel': 'name', 'out_kernel': 'name'}
PAIR = {'gt_key': 'text', 'pred_key': 'text', 'collect_device': 'name', 'prefix': 'text'}
HEAD = {'operator': 'operator', 'strength': 'fraction', 'mean': 'numbers', 'std': 'positives',
        'noise_std': 'not_negative?', 'bounds': 'range'}
OPERATOR = {'scale': 'count', 'kernel': 'name', 'antialias': 'flag', 'border': 'name'}
TEST = {'quantize': 'name', 'keep_raw': 'flag'}


def registered(name, **defaults):
    def build(**given):
        from mmagic.registry import HOOKS, METRICS, MODELS, TRANSFORMS
        registry = next(r for r in (MODELS, TRANSFORMS, METRICS, HOOKS) if r.get(name))
        cfg = copy.deepcopy({**defaults, **given})
        if registry is MODELS and name != 'PDHead':
            with torch.device('meta'):
                return registry.build(dict(type=name, **cfg))
        return registry.build(dict(type=name, **cfg))
    return build


def operator(name, **defaults):
    def build(**given):
        from mmpd.operators import build_operator
        return build_operator(dict(type=name, **{**defaults, **given}))
    return build


def inside(build, key):
    """A builder for the keys of a dict argument."""
    return lambda **given: build(**{key: given})


def loop(**given):
    from mmpd.engine.loops import DownsamplingTestLoop

    class Runner:
        seed = 0

        def build_dataloader(self, cfg, seed=None):
            return cfg

        def build_evaluator(self, cfg):
            from mmagic.evaluation import Evaluator
            return Evaluator(cfg['metrics'])

    pipeline = [dict(type='LoadImageFromFile', key='gt'), dict(type='PackInputs')]
    given = {'scale': 4, **given}
    return DownsamplingTestLoop(Runner(), dict(dataset=dict(pipeline=pipeline)),
                                [dict(type='LRConsistency')], **given)


def inferencer(**given):
    from mmengine.config import Config

    from mmpd.apis import PDInferencer
    config = Config(dict(model=dict(type='PDGLEAN', generator=dict(type='GLEANNet', **TINY),
                                    **MODEL)))
    return PDInferencer(**{'model': config, 'checkpoint': 'nothing.pth', **given})


def parts():
    """Name -> builder, kinds of its arguments."""
    glean = dict(type='GLEANNet', **TINY)
    rrdb = dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
                growth_channels=2, upscale_factor=4)
    gan_prior = registered('GANPriorSR', generator=glean, **MODEL)
    pd_glean = registered('PDGLEAN', generator=glean, **MODEL)
    pdn = registered('PDN', generator=dict(glean, type='PDNNet'))
    edit = registered('PDEdit', generator=rrdb, **MODEL)
    moco = registered('DegradationMoCo', encoder=dict(type='DegradationEncoder', channels=(4, 8)),
                      projection_channels=4, queue_size=8)
    widths = {4: 8, 8: 8, 16: 8, 32: 8}
    fixed = dict(in_size=8, out_size=32, style_channels=8, num_mlps=1, channels=widths)
    search = dict(type='PULSENet', in_size=8, out_size=32, style_channels=8, channels=widths)
    pulse_net = registered('PULSENet', **{k: v for k, v in search.items() if k != 'type'})
    pulse = registered('PULSE', generator=search)
    prior = dict(out_size=16, style_channels=8, num_mlps=1, channels={4: 8, 8: 8, 16: 8})
    return {
        'StyleGAN2Prior': (registered('StyleGAN2Prior', **prior), {
            'out_size': 'size', 'noise_size': 'count?', 'out_channels': 'count',
            'norm_eps': 'positive', **CP, **PRIOR}),
        'GLEANNet': (registered(**{'name': 'GLEANNet', **TINY}), {'decoder': 'flag', **NETWORK}),
        'PDNNet': (registered('PDNNet', **TINY), NETWORK),
        'PaniniNet': (registered('PaniniNet', **TINY), {
            'reduction': 'count', 'fuse_size': 'size?', 'stem_channels': 'count',
            'latent_channels': 'count', 'representation_channels': 'count',
            'degradation_encoder': 'config?', **NETWORK}),
        'StyleGAN2Discriminator': (registered('StyleGAN2Discriminator', in_size=8), {
            'in_size': 'size', 'channels': 'widths?', **CP}),
        'StyleGANv2Discriminator': (registered('StyleGANv2Discriminator', in_size=8), {
            'in_size': 'size', 'channels': 'widths?', **CP}),
        'DegradationEncoder': (registered('DegradationEncoder', channels=(4, 8)), {
            'in_channels': 'count', 'channels': 'counts', 'image_size': 'steps',
            'init_cfg': 'init'}),
        'GANPriorSR': (gan_prior, {'use_ema': 'flag', **GAN, **{
            key: kind for key, kind in EDIT.items() if key != 'pd_head'},
            'pixel_loss': 'config?'}),
        'GANPriorSR.train_cfg': (inside(gan_prior, 'train_cfg'), {
            'r1_weight': 'not_negative', 'disc_steps': 'steps', 'disc_repeat': 'steps0',
            'disc_init_steps': 'steps0'}),
        'PDGLEAN': (pd_glean, {'use_ema': 'flag', **GAN, **EDIT, 'pixel_loss': 'config?'}),
        'PDGLEAN.pd_head': (inside(pd_glean, 'pd_head'), HEAD),
        'PDGLEAN.test_cfg': (inside(pd_glean, 'test_cfg'), TEST),
        'PDN': (pdn, {'use_ema': 'flag', **GAN, **EDIT, 'pixel_loss': 'config?'}),
        'PDN.test_cfg': (inside(pdn, 'test_cfg'), {'num_samples': 'steps', 'seed': 'seed?',
                                                   **TEST}),
        'PDN.train_cfg': (inside(pdn, 'train_cfg'), {'seed': 'seed',
                                                     'r1_weight': 'not_negative'}),
        'PDEdit': (edit, EDIT),
        'PDModel': (registered('PDModel', base='ESRGAN', generator=rrdb, **MODEL), {
            'base': 'text', **GAN, **EDIT}),
        'DegradationMoCo': (moco, {
            'encoder': 'config', 'projection_channels': 'count', 'queue_size': 'count',
            'momentum': 'fraction', 'temperature': 'positive', 'data_preprocessor': 'config?',
            'init_cfg': 'init'}),
        'PDHead': (registered('PDHead'), HEAD),
        'PerceptualLoss': (registered('PerceptualLoss', layer_weights={'0': 1.0}), {
            'layer_weights': 'keys', 'vgg_type': 'name', 'pretrained': 'text', **CP}),
        'LRSynthesis': (registered('LRSynthesis', scale=4), {
            'quantize': 'flag', 'keys': 'keys?', 'made_by': 'name?', **OPERATOR}),
        'LRConsistency': (registered('LRConsistency'), {
            'operator': 'operator?', 'input_key': 'text', 'pred_key': 'text',
            'collect_device': 'name', 'prefix': 'text'}),
        'SRFID': (registered('SRFID', network=dict(type='RRDBNet', in_channels=3, out_channels=3,
                                                   mid_channels=4, num_blocks=1)), {
            'inception': 'text', 'reference': 'text', 'network': 'config?', 'batch_size': 'steps',
            'device': 'text', **PAIR}),
        'LPIPS': (registered('LPIPS', backbone='nothing.pth'), {
            'net': 'name', 'backbone': 'text', 'device': 'text', **PAIR}),
        'PairedMSSSIM': (registered('PairedMSSSIM'), {'scales': 'count?', **PAIR}),
        'PanelHook': (registered('PanelHook'), {
            'interval': 'steps', 'max_images': 'steps-1', 'operator': 'operator?',
            'gain': 'positive', 'cell': 'count?', 'raw': 'flag', 'on_val': 'flag',
            'on_test': 'flag', 'out_dir': 'text'}),
        'NaNHook': (registered('NaNHook'), {'on_nan': 'name', 'max_skips': 'steps'}),
        'CheckpointHook': (registered('CheckpointHook'), {'on_full_disk': 'name'}),
        'DownsamplingTestLoop': (loop, {'cases': 'cases', 'metrics': 'metrics', 'scale': 'count?',
                                        'fp16': 'flag'}),
        'PDInferencer': (inferencer, {
            'model': 'text', 'checkpoint': 'text', 'device': 'text', 'cfg_options': 'init',
            'operator': 'operator?', 'strength': 'fraction?', 'quantize': 'name?',
            'tile': 'count?', 'tile_overlap': 'steps0', 'batch_size': 'steps',
            'dtype': 'name'}),
        'GPENNet': (registered('GPENNet', **fixed, net_size=32), {
            'net_size': 'size', 'narrow': 'positive', **FIXED, **{
                key: kind for key, kind in PRIOR.items() if key not in (
                    'fp16_enabled', 'bgr2rgb')}}),
        'GFPGANNet': (registered('GFPGANNet', **fixed, net_size=32), {
            'net_size': 'size', 'fir': 'flag', 'freeze_prior': 'flag', **FIXED, **{
                key: PRIOR[key] for key in ('style_channels', 'num_mlps', 'channel_multiplier',
                                            'channels', 'init_cfg')}}),
        'PSPNet': (registered('PSPNet', **fixed, prior_size=32, encoder_size=32,
                              encoder_channels=(4, 4, 4, 4), encoder_depths=(1, 1, 1, 1)), {
            'prior_size': 'size', 'encoder_size': 'size', 'encoder_channels': 'counts',
            'encoder_depths': 'counts', 'freeze_prior': 'flag', 'prior_init_cfg': 'init',
            **FIXED, **{key: kind for key, kind in PRIOR.items() if key != 'fp16_enabled'}}),
        'PULSENet': (pulse_net, {
            'in_size': 'count', 'out_size': 'size', 'style_channels': 'count',
            'channels': 'widths?', 'steps': 'steps', 'optimizer': 'name',
            'learning_rate': 'positive', 'lr_schedule': 'name', 'losses': 'keys?',
            'eps': 'not_negative', 'noise_type': 'name', 'num_trainable_noise_layers': 'steps0',
            'bad_noise_layers': 'layers', 'tile_latent': 'flag', 'seed': 'seed', 'keep': 'name',
            'init_cfg': 'init'}),
        'PULSE': (pulse, {**{key: kind for key, kind in EDIT.items() if key != 'pd_head'},
                          'pixel_loss': 'config?'}),
        'PDPULSE': (registered('PDPULSE', generator=search), {
            'pd_inside': 'flag', **EDIT, 'pixel_loss': 'config?'}),
        'SpandrelGenerator': (registered('SpandrelGenerator', checkpoint='nothing.pth'), {
            'checkpoint': 'text', 'mean': 'number', 'std': 'positive'}),
        'OnnxGenerator': (registered('OnnxGenerator', checkpoint='nothing.onnx'), {
            'checkpoint': 'text'}),
        'AveragePooling': (operator('AveragePooling', scale=4), {'scale': 'count'}),
        'SeparableResize': (operator('SeparableResize', scale=4), OPERATOR),
        'CEM': (operator('CEM', scale=4), {'scale': 'count', 'bound': 'share', 'a': 'minus'}),
        'Grayscale': (operator('Grayscale'), {'weights': 'numbers'}),
        'BlockCompressedSensing': (operator('BlockCompressedSensing'), {
            'ratio': 'share', 'block': 'count', 'seed': 'seed'}),
        'Masking': (operator('Masking'), {'mask': 'mask'}),
        'Compose': (operator('Compose'), {'operators': 'operators'}),
    }


EXTRA = {  # arguments with a test of their own
    'LRSynthesis': {'operator'}, 'PDInferencer': {'made_by'},
    'PerceptualLoss': {'criterion', 'layer_weights_style', 'norm_img', 'perceptual_weight',
                       'style_weight', 'use_input_norm'}}


def stopped(*_):
    raise TimeoutError('still building after 5 s')


def outcome(build, name, value):
    """'refused', or what is wrong: 'accepted', 'obscure: ...'."""
    signal.signal(signal.SIGALRM, stopped)
    signal.alarm(5)
    try:
        build(**{name: value})
    except (ValueError, TypeError) as error:
        named = name in str(error)
        return 'refused' if named else f'obscure: {type(error).__name__}: {error}'[:150]
    except Exception as error:
        from mmpd.errors import InputError
        if isinstance(error, InputError) and name in str(error):
            return 'refused'
        return f'obscure: {type(error).__name__}: {error}'[:150]
    finally:
        signal.alarm(0)
    return 'accepted'


@functools.cache
def cases():
    return [(part, name, index) for part, (_, arguments) in parts().items()
            for name, kind in arguments.items() for index in range(len(KINDS[kind]))]


def fuzz(chosen):
    """(part, argument, value, outcome) of what is accepted or obscure."""
    built, found = parts(), []
    for build, _ in built.values():  # the first one of its kind imports much
        with contextlib.suppress(Exception):
            build()
    for part, name, index in chosen:
        build, arguments = built[part]
        value = KINDS[arguments[name]][index]
        result = outcome(build, name, value)
        if result != 'refused':
            found.append((part, name, value, result))
    return found


def report(found, count):
    lines = [f'{part}({name}={value!r}): {result}' for part, name, value, result in found]
    return '\n'.join([f'{len(found)} of {count} wrong values accepted or obscure', *lines])


def test_a_sample_of_wrong_values_is_refused_by_name():
    chosen = random.Random(0).sample(cases(), 400)
    found = fuzz(chosen)
    assert len(found) <= 0.01 * len(chosen), report(found, len(chosen))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_wrong_values_are_refused_by_name():
    found = fuzz(cases())
    assert len(found) <= 0.01 * len(cases()), report(found, len(cases()))


def test_every_argument_is_fuzzed():
    """Of the types that name their arguments themselves."""
    from mmagic.registry import HOOKS, METRICS, MODELS, TRANSFORMS

    from mmpd.operators import OPERATORS
    registries = (MODELS, TRANSFORMS, METRICS, HOOKS, OPERATORS)
    for registry, name in zip(registries, ('PDN', 'LRSynthesis', 'SRFID', 'PanelHook', 'CEM'),
                              strict=True):
        assert registry.get(name)  # imports them
    own = {name: cls for registry in registries for name, cls in registry.module_dict.items()
           if cls.__module__.startswith('mmpd.')}
    assert len(parts()) > 21
    for name, cls in own.items():
        if name in parts():
            given = {parameter.name for parameter in inspect.signature(cls).parameters.values()
                     if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD,
                                           parameter.KEYWORD_ONLY)}
            assert given - EXTRA.get(name, set()) <= parts()[name][1].keys(), name
        else:
            # no arguments, or those of their twins or of MMagic's
            assert name in ('CleanCheckpointHook', 'LoadImageFromFile', 'PDPanini', 'PDSRGAN',
                            'PDESRGAN', 'PDRealESRGAN'), name


@pytest.mark.parametrize('part', list(parts()))
def test_the_right_values_are_accepted(part):
    if part in ('LPIPS', 'PDInferencer', 'PerceptualLoss', 'Masking', 'Compose',
                'OnnxGenerator', 'SpandrelGenerator'):
        pytest.skip('needs a download or an argument')
    parts()[part][0]()


if __name__ == '__main__':
    from mmengine.registry import init_default_scope
    init_default_scope('mmagic')
    torch.set_num_threads(1)
    everything = fuzz(cases())
    if '-v' in sys.argv:
        print(report(everything, len(cases())))
    kinds = collections.Counter(result.split(':')[0] for *_, result in everything)
    print(f'{len(parts())} types and settings, {len(cases())} wrong values: '
          f'{kinds["accepted"]} accepted, {kinds["obscure"]} obscure '
          f'({100 * len(everything) / len(cases()):.1f} %)')
