"""Every variant trains under MMSeparateDistributedDataParallel (one gloo process, no launch)."""
import pytest
import torch
import torch.distributed as dist
from conftest import gan_parts, lr_batch, pdn, tiny_model
from mmengine.model import MMSeparateDistributedDataParallel
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mmagic.structures import DataSample  # isort: skip

VARIANTS = {
    'pd_glean': lambda: tiny_model(**gan_parts()),
    'no pixel loss': lambda: tiny_model(pixel_loss=None, **gan_parts()),
    'averaged': lambda: tiny_model(use_ema=True, **gan_parts()),
    'r1': lambda: tiny_model(train_cfg=dict(r1_weight=5.0), **gan_parts()),
    'pdn': pdn,
}


@pytest.fixture(scope='module')
def gloo(tmp_path_factory):
    store = tmp_path_factory.mktemp('gloo') / 'store'
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('name', VARIANTS)
def test_trains_without_looking_for_unused_parameters(name, gloo):
    model = VARIANTS[name]()
    keys = list(model.state_dict())
    wrapped = MMSeparateDistributedDataParallel(model, find_unused_parameters=False)
    wrappers = OptimWrapperDict(**{
        part: OptimWrapper(torch.optim.SGD(getattr(model, part).parameters(), lr=1e-3))
        for part in ('generator', 'discriminator')})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert list(before) == keys  # no "module."
    for step in range(2):
        samples = [DataSample(gt_img=image) for image in lr_batch(2, 32, seed=step)]
        log = wrapped.train_step(dict(inputs=list(lr_batch(2, 8, seed=step)),
                                      data_samples=samples), wrappers)
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in log.values())
    after = model.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in keys
               if key.startswith('generator.'))
    lr = (lr_batch() - 127.5) / 127.5
    with torch.no_grad():
        assert model.eval()(lr).shape == (2, 3, 32, 32)
