"""mmpd-test: its result file, and LR images alone as a test set."""
import pytest
from mmagic.engine.hooks import BasicVisualizationHook
from mmengine.config import Config
from refusals import refused

from mmpd.cli import test as test_tool


@pytest.mark.parametrize('out', ['a.csv', 'folder.json'])
def test_results_of_a_test_are_json_files(tmp_path, out):
    (tmp_path / 'folder.json').mkdir()
    refused(test_tool.check_out, str(tmp_path / out), match='a file name that ends in .json')


def test_lr_images_alone_are_a_test_set(tmp_path):
    from PIL import Image
    for name in ('a.Png', 'c.WEBP', 'd.ppm'):
        Image.new('RGB', (8, 8)).save(tmp_path / name)
    cfg = Config(dict(
        model=dict(generator=dict(in_size=8), data_preprocessor=dict(), pd_head=dict(
            operator=dict(type='CEM', scale=4))),
        custom_hooks=[dict(type='BasicVisualizationHook'), dict(type=BasicVisualizationHook),
                      dict(type='Other')]))
    test_tool.use_lr_only(cfg, str(tmp_path))
    dataset = cfg.test_dataloader.dataset
    assert dataset.data_root == str(tmp_path) and dataset.data_prefix == dict(img='')
    assert list(dataset.img_suffix) == ['.Png', '.WEBP']  # all that was checked, nothing else
    assert cfg.test_dataloader.sampler.shuffle is False and cfg.test_dataloader.batch_size == 1
    assert cfg.test_dataloader.num_workers == 0
    assert cfg.test_evaluator[0] == dict(type='LRConsistency', operator=dict(type='CEM', scale=4))
    assert cfg.model.data_preprocessor.data_keys == []
    assert [hook.type for hook in cfg.custom_hooks] == ['Other']
    for size in ((8, 9), (9, 8)):
        Image.new('RGB', size).save(tmp_path / 'b.png')
        refused(test_tool.use_lr_only, cfg, str(tmp_path),
                match=f'b.png: {size[0]}x{size[1]}, but this config takes 8x8 only')
    cfg.model.generator.in_size = None  # any size
    test_tool.use_lr_only(cfg, str(tmp_path))
    refused(test_tool.use_lr_only, cfg, str(tmp_path / 'none'), match='expected a folder')
