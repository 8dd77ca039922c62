"""What a validation would stumble over is found before the training, by its first image."""
from types import SimpleNamespace

import pytest
import torch
from mmagic.engine.hooks import BasicVisualizationHook
from mmagic.registry import METRICS
from mmagic.structures import DataSample
from mmagic.visualization import ConcatImageVisualizer
from mmengine.dataset import pseudo_collate
from refusals import refused

from mmpd.cli.rehearsal import Rehearsal
from mmpd.engine.hooks import PanelHook


class Evaluated(torch.nn.Module):
    """A model whose prediction is the input."""

    data_preprocessor = None

    def val_step(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32  # no autocast
        sample = batch['data_samples'][0]
        sample.set_data(dict(input=sample.gt_img, output=DataSample(pred_img=sample.gt_img + 1)))
        torch.rand(1)
        return [sample]

    test_step = val_step


@pytest.mark.parametrize('split', ['val', 'test'])
@pytest.mark.parametrize('metric, message', [
    (dict(type='MAE', scaling='abc'), r"MAE\(scaling='abc'\): "),
    (dict(type='MAE', mask_key='maks'), r"MAE\.mask_key: expected one of gt_img,.* got 'maks'"),
    (dict(type='PSNR', pred_key='pred'), r"PSNR\.pred_key: .* got 'pred'; .*mean 'pred_img'"),
    (dict(type='PSNR', crop_border=8), r'PSNR\(crop_border=8\): .*image, of 16x16, got nan'),
    (dict(type='SSIM', crop_border=4), r'SSIM\(crop_border=4\): .*image, of 16x16, got nan'),
    (dict(type='SSIM', input_order='HWC'), r"SSIM\(input_order='HWC'\): .* got nan"),
    (dict(type='PSNR', crop_border='4px'), r"PSNR\(crop_border='4px'\): "),
    (dict(type='PSNR', convert_to='YUV'), r"PSNR\(convert_to='YUV'\): Wrong color model"),
    (dict(type='PSNR', collect_device='disk'), r'PSNR\.collect_device: expected one of cpu, gpu'),
    (dict(type='LRConsistency', operator=dict(type='AveragePooling', scale=3)),
     'LRConsistency: image: .*multiples of 3'),
    (dict(type='SRFID', network=torch.nn.Flatten()), 'SRFID.*: .* at least 2 images, got 1'),
    (dict(type='PSNR', crop_border=7), None)])
def test_what_the_first_validation_would_stumble_over_or_make_nan_of(metric, message, split):
    sample = DataSample(gt_img=torch.full((3, 16, 16), 100.), gt_path='a.png')
    loader = SimpleNamespace(collate_fn=pseudo_collate, dataset=[
        dict(inputs=sample.gt_img, data_samples=sample)])
    metric = METRICS.build(metric)
    loop = SimpleNamespace(dataloader=loader, evaluator=SimpleNamespace(metrics=[metric]))
    runner = SimpleNamespace(model=Evaluated(), hooks=[], visualizer=None,
                             **{f'{split}_loop': loop})
    rehearse = getattr(Rehearsal(), dict(val='before_train', test='before_test')[split])
    state = torch.get_rng_state()
    if message:
        refused(rehearse, runner, match=f'^{split}_evaluator: {message}')
    else:
        rehearse(runner)
        assert runner.model.training and not metric.results and not hasattr(metric, 'size')
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('given, message', [
    (dict(img_keys=['a', 'b']), "visualizer.img_keys: expected one of .*pred_img.*, got 'a'"),
    (dict(img_keys='pred_img'), "visualizer.img_keys: expected a sequence .* got 'pred_img'"),
    (dict(img_keys=['gt_path']), "visualizer: 'str' object has no attribute"),
    (dict(fn_key='path'), "visualizer.fn_key: .* got 'path'; did you mean 'gt_path'"),
    (dict(pixel_range=dict(pred_img=3)), 'visualizer: cannot unpack'),
    (dict(img_keys=['a', 'pred_img']), None)])
def test_pictures_that_the_first_validation_could_not_draw(given, message, tmp_path):
    sample = DataSample(gt_img=torch.full((3, 16, 16), 100.), gt_path='a.png')
    loader = SimpleNamespace(collate_fn=pseudo_collate, dataset=[
        dict(inputs=sample.gt_img, data_samples=sample)])
    loop = SimpleNamespace(dataloader=loader, evaluator=SimpleNamespace(metrics=None))
    visualizer = ConcatImageVisualizer(
        **{'fn_key': 'gt_path', 'img_keys': ['input', 'pred_img'], **given},
        vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path))
    runner = SimpleNamespace(model=Evaluated(), hooks=[BasicVisualizationHook()],
                             visualizer=visualizer, val_loop=loop)
    if message:
        refused(Rehearsal().before_train, runner, match=message)
    else:
        Rehearsal().before_train(runner)
    assert not list(tmp_path.rglob('*.png'))
    runner.hooks = [BasicVisualizationHook(on_val=False)]
    Rehearsal().before_train(runner)  # draws none
    runner.visualizer, runner.hooks = None, [PanelHook(operator=dict(
        type='AveragePooling', scale=3), out_dir=str(tmp_path / 'panels'))]
    refused(Rehearsal().before_train, runner, match='PanelHook: image: .*multiples of 3')
    (tmp_path / 'file').touch()
    runner.hooks = [PanelHook(operator=dict(type='AveragePooling', scale=1),
                              out_dir=str(tmp_path / 'file' / 'panels'))]
    refused(Rehearsal().before_train, runner, match=r'PanelHook\.out_dir.*file')
