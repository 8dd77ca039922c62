"""Mixed precision: the generators and the models around them under autocast, on the CPU."""
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, gan_parts, lr_batch, tiny_model
from mmagic.registry import MODELS
from mmagic.structures import DataSample

TYPES = ('GLEANNet', 'PaniniNet', 'PDNNet')
HALF = (torch.bfloat16, torch.float16)


def generator(type, **kwargs):
    torch.manual_seed(0)
    cfg = dict(TINY, type=type, **kwargs)
    if type == 'PaniniNet':
        cfg.update(latent_channels=8, representation_channels=8)
    return MODELS.build(cfg)


@pytest.mark.parametrize('dtype', HALF, ids=str)
@pytest.mark.parametrize('type', TYPES)
@pytest.mark.parametrize('bgr2rgb', (False, True))
def test_generators_under_autocast(type, dtype, bgr2rgb):
    net = generator(type, bgr2rgb=bgr2rgb).eval()
    lr = (lr_batch(1) - 127.5) / 127.5
    options = dict(z=torch.randn(1, net.noise_size)) if type == 'PDNNet' else {}
    expected = net(lr, **options)
    with torch.autocast('cpu', dtype=dtype):
        result = net(lr, **options)
    error = (result.float() - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.1  # it did run in less precision
    result.float().square().sum().backward()
    grads = [p.grad for p in net.parameters() if p.requires_grad]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    assert all(grad.dtype == torch.float32 for grad in grads)


@pytest.mark.parametrize('dtype', HALF, ids=str)
@pytest.mark.parametrize('type, net', [('PDGLEAN', 'GLEANNet'), ('PDPanini', 'PaniniNet'),
                                       ('PDN', 'PDNNet'), ('GANPriorSR', 'GLEANNet')])
def test_models_train_under_autocast_and_stay_consistent(type, net, dtype):
    cfg = dict(TINY, type=net)
    if net == 'PaniniNet':
        cfg.update(latent_channels=8, representation_channels=8)
    options = dict(gan_parts(), discriminator=dict(
        type='StyleGAN2Discriminator', in_size=32, channels={4: 4, 8: 4, 16: 4, 32: 4}))
    if type == 'PDN':
        options.update(pixel_loss=None)
    model = tiny_model(type, cfg, **options).train()
    lr = lr_batch(2)
    with torch.autocast('cpu', dtype=dtype):
        samples = [DataSample(gt_img=image) for image in lr_batch(2, 32)]
        data = model.data_preprocessor(dict(inputs=list(lr), data_samples=samples), True)
        fake = model.forward_train(data['inputs'], data['data_samples'])
        real = data['data_samples'].gt_img
        losses = model.g_step(fake, real) if hasattr(model, 'g_step') else {}
        losses = losses if isinstance(losses, dict) else dict(loss=losses)
    assert losses
    if type == 'GANPriorSR':  # without PD the discriminator sees what autocast leaves
        assert fake.dtype == dtype or dtype == torch.float16  # not on every CPU
    else:
        assert fake.dtype == torch.float32
        assert (F.avg_pool2d(fake, 4) - data['inputs']).abs().max() < 1e-5
    sum(loss for loss in losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.generator.parameters() if p.grad is not None)

