"""Accumulated gradients are those of the large batch; latents and keys do not depend on ranks."""
import pytest
import torch
from conftest import TINY, lr_batch, tiny_model
from mmagic.models.editors.srgan import SRGAN
from mmagic.structures import DataSample
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mmpd.errors import BadSample
from mmpd.models.editors import degradation_moco, pdn
from mmpd.models.editors.training import TrainingMixin

# without statistics of the batch, and without a power iteration in every forward pass
DISCRIMINATOR = dict(type='MultiLayerDiscriminator', in_channels=3, max_channels=8, num_convs=2)

SRRESNET = dict(type='MSRResNet', in_channels=3, out_channels=3, mid_channels=4, num_blocks=1,
                upscale_factor=4)


def build(kind):
    generator = dict(TINY, type='PDNNet' if kind == 'PDN' else 'GLEANNet', freeze_prior=False)
    if kind in ('PDSRGAN', 'PDESRGAN'):
        generator = SRRESNET
    return tiny_model(kind, generator, discriminator=DISCRIMINATOR, gan_loss=dict(
        type='GANLoss', gan_type='lsgan', loss_weight=0.1),
        pixel_loss=None if kind == 'PDN' else dict(type='L1Loss'))


def trained(kind, batch, counts, steps=8):
    """``steps`` images in batches; the weights that come out."""
    model = build(kind).train()
    hub = MessageHub.get_current_instance()
    wrappers = OptimWrapperDict(**{
        name: OptimWrapper(torch.optim.SGD(getattr(model, name).parameters(), lr=0.05),
                           accumulative_counts=counts) for name in ('generator', 'discriminator')})
    lr, gt = lr_batch(steps, 8, seed=1), lr_batch(steps, 32, seed=2)
    for iteration in range(steps // batch):
        hub.update_info('iter', iteration)
        part = slice(iteration * batch, (iteration + 1) * batch)
        model.train_step(dict(inputs=list(lr[part]), data_samples=[
            DataSample(gt_img=image) for image in gt[part]]), wrappers)
    hub.update_info('iter', 0)
    return model.state_dict()


@pytest.mark.parametrize('kind', ['PDGLEAN', 'PDN', 'PDSRGAN'])
def test_accumulation_is_the_large_batch(kind):
    large, small = trained(kind, 4, 1), trained(kind, 2, 2)
    torch.testing.assert_close(dict(small), dict(large), rtol=1e-4, atol=1e-6)
    first = build(kind).state_dict()
    assert any(not torch.allclose(large[key], first[key], atol=1e-4) for key in large
               if key.startswith('discriminator.'))


def test_mmagic_counts_the_two_passes_of_the_discriminator_twice(monkeypatch):
    """The fault: each batch is an update of half the gradient."""
    monkeypatch.setattr(TrainingMixin, 'd_step_with_optim', SRGAN.d_step_with_optim)
    large, small = trained('PDGLEAN', 4, 1), trained('PDGLEAN', 2, 2)
    assert not all(torch.allclose(small[key], large[key], rtol=1e-4, atol=1e-6) for key in large)


def test_two_batches_are_one_update_of_a_relativistic_discriminator():
    """ESRGAN's loss depends on the batch, so only the number of updates is that of two."""
    model = build('PDESRGAN').train()
    updates = dict(generator=0, discriminator=0)
    wrappers = OptimWrapperDict(**{
        name: OptimWrapper(torch.optim.SGD(getattr(model, name).parameters(), lr=0.05),
                           accumulative_counts=2) for name in updates})
    for name, wrapper in wrappers.items():
        wrapper.optimizer.register_step_post_hook(
            lambda *_, name=name: updates.update({name: updates[name] + 1}))
    found = []
    for seed in range(4):
        model.train_step(dict(inputs=list(lr_batch(2, 8, seed)), data_samples=[
            DataSample(gt_img=image) for image in lr_batch(2, 32, seed)]), wrappers)
        found.append(tuple(updates.values()))
    assert found == [(0, 0), (1, 1), (1, 1), (2, 2)]


@pytest.mark.parametrize('kind', ['PDGLEAN', 'GANPriorSR', 'PDEdit'])
@pytest.mark.parametrize('key, sizes', [('LR', (8, 12, 32, 32)), ('gt_img', (8, 8, 32, 48))])
def test_images_of_two_sizes_in_a_batch_are_named(kind, key, sizes):
    """MMagic pads the LR in silence, and ends in torch.stack at the GT."""
    model = build(kind) if kind != 'PDEdit' else tiny_model(kind, SRRESNET)
    samples = [DataSample(gt_img=torch.zeros(3, 32, size), metainfo=dict(gt_path=f'{index}.png'))
               for index, size in enumerate((32, *sizes[2:]))]
    data = dict(inputs=[torch.zeros(3, 8, size) for size in (8, *sizes[:2])], data_samples=samples)
    with pytest.raises(BadSample) as caught:
        model.train_step(data, None)
    small, large = (8, 12) if key == 'LR' else (32, 48)
    assert str(caught.value).startswith(
        f'a training batch: expected {key} images of one size, got 3x{small}x{small} (0.png) and '
        f'3x{small}x{large} (2.png); crop')


def test_latents_of_two_ranks_are_those_of_one(monkeypatch):
    model, hub = build('PDN'), MessageHub.get_current_instance()
    hub.update_info('iter', 5)
    one = model.draw_latents(6, training=True)
    ranks = []
    for rank in (0, 1):
        monkeypatch.setattr(pdn, 'get_dist_info', lambda rank=rank: (rank, 2))
        ranks.append(model.draw_latents(3, training=True))
    monkeypatch.undo()
    assert torch.equal(torch.stack(ranks, 1).flatten(0, 1), one)
    assert len(one.unique(dim=0)) == 6
    hub.update_info('iter', 10)
    assert torch.equal(model.draw_latents(3, training=True), one[:3])  # images 30 to 32
    hub.update_info('iter', 0)
    assert not torch.equal(model.draw_latents(6, training=True, seed=1),
                           model.draw_latents(6, training=True, seed=2))


def test_the_queue_of_two_ranks_is_that_of_one(monkeypatch):
    """MoCo puts the keys of all ranks into every rank's queue; here in the order of the images."""
    from mmagic.registry import MODELS
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='DegradationMoCo', encoder=dict(type='DegradationEncoder', channels=(4, 8)),
        projection_channels=4, queue_size=10))
    keys, start = torch.randn(6, 4), model.queue.clone()
    model.enqueue(keys)
    one = model.queue.clone()
    model.queue.copy_(start)
    model.queue_ptr.zero_()
    monkeypatch.setattr(degradation_moco, 'get_world_size', lambda: 2)
    monkeypatch.setattr(degradation_moco, 'all_gather', lambda own: [keys[0::2], keys[1::2]])
    model.enqueue(keys[1::2])
    assert torch.equal(model.queue, one) and int(model.queue_ptr) == 6
