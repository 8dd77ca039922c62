"""PanelHook in a real test and validation run of a PD model."""
import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmagic.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpd.engine.hooks import panel_hook
from mmpd.engine.hooks.panel_hook import _backends, _name, _rgb
from mmpd.operators import AveragePooling, SeparableResize
from mmpd.visualization.panels import decomposition_panel, fit


def config(root, out, hook, backends=(), **model):
    data = dict(
        num_workers=0, batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='BasicImageDataset', data_root=str(root), data_prefix=dict(gt=''),
                     metainfo=dict(dataset_type='x', task_name='sisr'),
                     pipeline=[dict(type='LoadImageFromFile', key='gt', channel_order='rgb'),
                               dict(type='LRSynthesis', scale=4), dict(type='PackInputs')]))
    evaluator = [dict(type='LRConsistency'), dict(type='PSNR')]
    return Config(dict(
        default_scope='mmagic', work_dir=str(out), log_level='WARNING',
        model=dict(dict(type='PDModel', base='BaseEditModel', pixel_loss=dict(type='L1Loss'),
                        generator=dict(type='MSRResNet', in_channels=3, out_channels=3,
                                       mid_channels=4, num_blocks=1, upscale_factor=4),
                        data_preprocessor=dict(type='DataPreprocessor', mean=[127.5] * 3,
                                               std=[127.5] * 3)), **model),
        test_dataloader=data, test_evaluator=evaluator, test_cfg=dict(type='MultiTestLoop'),
        custom_hooks=[dict(type='PanelHook', **hook)],
        visualizer=dict(type='ConcatImageVisualizer', fn_key='gt_path', img_keys=['pred_img'],
                        vis_backends=[dict(type='LocalVisBackend'), *backends])))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'gt'
    root.mkdir()
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f'face.{index}.png'), fit(noise, (32, 32)))
    return root


class Catch(Hook):
    def after_test_epoch(self, runner, metrics=None):
        self.metrics = metrics


def run(cfg, name):
    cfg.experiment_name = name
    runner, catch = Runner.from_cfg(cfg), Catch()
    runner.register_hook(catch)
    runner.test()
    return runner, catch.metrics


def test_panels_of_a_test_run(folder, tmp_path):
    runner, metrics = run(config(folder, tmp_path / 'out', {},
                                 [dict(type='TensorboardVisBackend')]), 'panel_test')
    assert metrics['PSNR_LR'] > 120
    written = sorted((tmp_path / 'out').glob('*/panels/test/*.png'))
    assert [path.name for path in written] == [f'face.{i}_0.png' for i in range(3)]
    panel = cv2.imread(str(written[0]))[..., ::-1]
    gt = cv2.imread(str(folder / 'face.0.png'))[..., ::-1]
    shown = fit(gt, (192, 192))
    score = cv2.matchTemplate(panel, np.ascontiguousarray(shown), cv2.TM_SQDIFF)
    y, x = np.unravel_index(score.argmin(), score.shape)
    assert (panel[y:y + 192, x:x + 192] == shown).all()  # right colours, right image
    assert panel.shape[1] > 6 * 192 and panel.shape[0] > 3 * 192  # x_r and δ are there
    assert not dict(runner.model.test_cfg)['keep_raw']  # restored
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(next((tmp_path / 'out').glob('*/vis_data'))),
                              size_guidance=dict(images=0))
    events.Reload()
    assert 'panel_test/face.0' in events.Tags()['images']


def test_options_change_what_is_written(folder, tmp_path):
    hook = dict(max_images=1, raw=False, out_dir=str(tmp_path / 'mine'), cell=64, gain=1)
    run(config(folder, tmp_path / 'out', hook), 'panel_options')
    written = list((tmp_path / 'mine' / 'test').iterdir())
    assert len(written) == 1
    panel = cv2.imread(str(written[0]))
    assert 64 * 4 < panel.shape[1] < 64 * 6  # without x_r and δ
    for name, off in (('panel_off', dict(on_test=False)), ('panel_interval', dict(interval=3))):
        run(config(folder, tmp_path / name, off), name)
        assert not list((tmp_path / name).glob('*/panels'))


class FakeVisualizer:
    def __init__(self):
        self.calls = []

    def get_backend(self, name):
        return self if name == 'remote' else None

    def add_image(self, name, image, step):
        self.calls.append((name, image.copy(), step))


class FakeRunner:
    def __init__(self, folder, **fields):
        self.log_dir, self.visualizer = str(folder), FakeVisualizer()
        self.cfg = dict(visualizer=dict(vis_backends=[dict(type='Mine', name='remote')]))
        self.model, self.test_loop, self.trains = torch.nn.Identity(), None, False
        for key, value in fields.items():
            setattr(self.model, key, value)

    @property
    def iter(self):
        assert self.trains, 'mmengine would build the training loop'
        return 7


class Sample(dict):
    __getattr__ = dict.__getitem__


def sample(gt=True, path=None):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 32, 32)).astype(np.float32))
    return Sample(input=image[:, ::4, ::4], output=Sample(pred_img=image),
                  **(dict(gt_img=image) if gt else {}), **(dict(gt_path=path) if path else {}))


def test_validation_of_a_plain_model_and_other_backends(tmp_path):
    hook, runner = HOOKS.build(dict(type='PanelHook')), FakeRunner(tmp_path)
    runner.trains = True
    hook.before_train(runner)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, outputs=[sample(path='a/b c.png'), sample(gt=False)])
    hook.after_val_epoch(runner)
    assert sorted(p.name for p in (tmp_path / 'panels' / 'val').iterdir()) == [
        'b c_7.png', 'image1_7.png']
    name, picture, step = runner.visualizer.calls[0]
    assert (name, step) == ('panel_val/b c', 7)
    one = sample()
    bgr = one.output.pred_img.numpy().transpose(1, 2, 0)[..., ::-1]
    want = decomposition_panel(one.input.numpy().transpose(1, 2, 0)[..., ::-1], bgr, None, bgr,
                               AveragePooling(4))
    np.testing.assert_array_equal(picture, want)
    before = len(runner.visualizer.calls)
    hook.after_train_iter(runner, 0, outputs={})
    assert len(runner.visualizer.calls) == before


@pytest.mark.parametrize('operator', [
    dict(type='SeparableResize', scale=4), dict(type='SeparableResize', scale=None),
    dict(type='SeparableResize')], ids=str)
def test_the_given_operator_is_drawn(tmp_path, operator):
    hook, runner = HOOKS.build(dict(type='PanelHook', operator=operator)), FakeRunner(tmp_path)
    one = sample(gt=False)
    hook.after_val_iter(runner, 0, outputs=[one])  # without training: step 0
    (name, picture, step), = runner.visualizer.calls
    assert step == 0 and (tmp_path / 'panels' / 'val' / 'image0_0.png').exists()
    images = [x.numpy().transpose(1, 2, 0)[..., ::-1] for x in (one.input, one.output.pred_img)]
    want = decomposition_panel(*images, operator=SeparableResize(4))
    np.testing.assert_array_equal(picture, want)
    assert (picture != decomposition_panel(*images, operator=AveragePooling(4))).any()


def test_the_given_operator_goes_before_the_models(tmp_path):
    class Head:
        def operator_for(self, image, lr):
            return AveragePooling(4)

    pictures = {}
    for name, cfg in (('given', dict(operator=dict(type='SeparableResize'))), ('own', {})):
        hook = HOOKS.build(dict(type='PanelHook', **cfg))
        runner = FakeRunner(tmp_path / name)
        object.__setattr__(runner.model, 'pd_head', Head())
        hook.after_val_iter(runner, 0, outputs=[sample(gt=False)])
        pictures[name] = runner.visualizer.calls[0][1]
    one = sample(gt=False)
    images = [x.numpy().transpose(1, 2, 0)[..., ::-1] for x in (one.input, one.output.pred_img)]
    for name, operator in (('given', SeparableResize(4)), ('own', AveragePooling(4))):
        np.testing.assert_array_equal(pictures[name], decomposition_panel(*images,
                                                                          operator=operator))


class Foreign:
    """Pools by 4, and is no module."""

    def A(self, x):
        return AveragePooling(4).A(x)

    def A_dagger(self, y):
        return AveragePooling(4).A_dagger(y)


@pytest.mark.parametrize('own, side, operator', [
    (lambda *_: Foreign(), 32, AveragePooling(4)), (None, 32, AveragePooling(4)),
    (None, 30, None)], ids=['no module', 'no head', 'no scale'])
def test_the_operator_is_the_models_or_pooling_or_none(tmp_path, own, side, operator):
    hook, runner, one = HOOKS.build(dict(type='PanelHook')), FakeRunner(tmp_path), sample(gt=False)
    one.output['pred_img'] = one.output.pred_img[:, :side, :side][None]  # with a batch axis
    if own:
        runner.model.pd_head = torch.nn.Identity()
        runner.model.pd_head.operator_for = own
    hook.after_val_iter(runner, 0, outputs=[one])
    images = (one.input, one.output.pred_img[0])
    want = decomposition_panel(*(x.numpy().transpose(1, 2, 0)[..., ::-1] for x in images),
                               operator=operator)
    np.testing.assert_array_equal(runner.visualizer.calls[0][1], want)


@pytest.mark.parametrize('mode, others', [('val', 'test'), ('test', 'val')])
@pytest.mark.parametrize('before', [{}, dict(keep_raw=True)], ids=str)
def test_the_model_keeps_x_r_while_the_hook_is_at_work_and_no_longer(tmp_path, mode, others,
                                                                     before):
    def during(cfg, mode, **fields):
        hook = HOOKS.build(dict(type='PanelHook', **cfg))
        runner = FakeRunner(tmp_path, test_cfg=dict(before), **fields)
        getattr(hook, f'before_{mode}_epoch')(runner)
        seen = dict(runner.model.test_cfg)
        getattr(hook, f'after_{mode}_epoch')(runner)
        assert runner.model.test_cfg.get('keep_raw', False) == bool(before)
        return seen

    able = dict(forward_raw=len)
    assert during({}, mode, **able) == dict(keep_raw=True)
    assert during({f'on_{others}': False}, mode, **able) == dict(keep_raw=True)
    assert during({f'on_{mode}': False}, mode, **able) == before
    assert during(dict(raw=False), mode, **able) == during({}, mode) == before
    none = FakeRunner(tmp_path, test_cfg=None, **able)
    HOOKS.build(dict(type='PanelHook')).before_val_epoch(none)
    assert none.model.test_cfg == dict(keep_raw=True)


@pytest.mark.parametrize('most, written', [(0, 0), (1, 1), (2, 2), (-1, 3)])
def test_so_many_panels_and_one_line_about_them(tmp_path, monkeypatch, most, written):
    lines = []
    monkeypatch.setattr(panel_hook, 'print_log', lambda text, logger: lines.append(text))
    hook, runner = HOOKS.build(dict(type='PanelHook', max_images=most)), FakeRunner(tmp_path)
    for start in range(2):  # each epoch counts anew
        hook.before_val_epoch(runner)
        runner.visualizer.calls.clear()
        for index in range(3):
            hook.after_val_iter(runner, index, outputs=[sample()])
        assert len(runner.visualizer.calls) == written
        assert lines == [f'panels are written to {tmp_path / "panels" / "val"}'] * (
            (start + 1) * (written > 0))


def test_every_case_of_a_test_counts_anew_and_has_a_folder(tmp_path):
    hook = HOOKS.build(dict(type='PanelHook', max_images=1, interval=2))
    runner = FakeRunner(tmp_path)
    runner.test_loop = SimpleNamespace(case=None)
    hook.before_test_epoch(runner)
    for case in ('box', 'lanczos'):
        runner.test_loop.case = case
        for index in range(4):  # the second and the fourth
            hook.after_test_iter(runner, index, outputs=[sample(path=f'{index}.png')])
    assert [name for name, _, _ in runner.visualizer.calls] == [
        'panel_test/box/1', 'panel_test/lanczos/1']
    assert (tmp_path / 'panels' / 'test' / 'lanczos' / '1_0.png').is_file()


def test_grey_images_are_drawn_and_colours_turned():
    image = torch.arange(24.).view(1, 4, 6)
    assert (_rgb(image) == image.numpy()[0, ..., None]).all() and _rgb(image).shape == (4, 6, 3)
    image = torch.arange(72.).view(1, 3, 4, 6)
    np.testing.assert_array_equal(_rgb(image), image[0].permute(1, 2, 0).numpy()[..., ::-1])


@pytest.mark.parametrize('keys, name', [
    (dict(gt_path='a/b.c.png', img_path='d.png'), 'b.c'), (dict(img_path=r'C:\d e.png'), 'd e'),
    (dict(gt_path=['a/1.png', 'a/2.png']), '1'), (dict(gt_path=('x.png', )), 'x'),
    (dict(gt_path=None), 'image5'), ({}, 'image5')])
def test_panels_have_the_names_of_their_files(keys, name):
    assert _name(keys, 5) == name


def test_panels_of_one_name_do_not_replace_each_other(tmp_path):
    hook, runner = HOOKS.build(dict(type='PanelHook')), FakeRunner(tmp_path)
    for _ in range(2):  # the next validation or test begins anew
        hook._start(runner, 'val')
        for path in ('b/x.png', 'c/x.2.png', 'd/x.png'):
            hook.after_val_iter(runner, 0, outputs=[Sample(sample(), gt_path=path)])
        written = sorted(path.name for path in tmp_path.glob('**/panels/val/*.png'))
        assert written == ['x.2_0.png', 'x.3_0.png', 'x_0.png']


@pytest.mark.parametrize('given, asked', [
    ([], []), (dict(type='Mine', name='own'), ['own']), (None, []),
    ([dict(type='Mine'), dict(type='Mine', name='b'), dict(type='Mine', name='a')], ['a', 'b'])])
def test_backends_are_asked_for_by_every_name(given, asked):
    runner = SimpleNamespace(cfg=dict(visualizer=dict(vis_backends=given)),
                             visualizer=SimpleNamespace(get_backend=lambda name: name))
    found = _backends(runner)
    assert 'TensorboardVisBackend' in found and 'ConcatImageVisualizer' not in found
    assert [name for name in found if not name.endswith('Backend')] == asked
    for cfg in ({}, dict(visualizer=None)):
        runner.cfg = cfg
        assert not [name for name in _backends(runner) if not name.endswith('Backend')]


def test_a_panel_that_cannot_be_encoded_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(panel_hook.cv2, 'imencode', lambda *_: (False, None))
    with pytest.raises(OSError, match='could not encode the panel .*image0_0.png'):
        HOOKS.build(dict(type='PanelHook')).after_val_iter(
            FakeRunner(tmp_path), 0, outputs=[sample()])


def test_bad_input_is_named(tmp_path):
    for wrong in (dict(interval=0), dict(max_images=-2), dict(gain=0), dict(cell=0),
                  dict(raw='no'), dict(on_val=2), dict(on_test='no'), dict(out_dir=3)):
        with pytest.raises(ValueError, match=f'{next(iter(wrong))}: expected'):
            HOOKS.build(dict(type='PanelHook', **wrong))
    with pytest.raises(ValueError, match="unknown type 'Nothing'"):
        HOOKS.build(dict(type='PanelHook', operator=dict(type='Nothing')))
    hook = HOOKS.build(dict(type='PanelHook'))
    with pytest.raises(ValueError, match="LR 'input'"):
        hook.after_test_iter(FakeRunner(tmp_path), 0,
                             outputs=[Sample(output=Sample(pred_img=torch.zeros(3, 8, 8)))])
