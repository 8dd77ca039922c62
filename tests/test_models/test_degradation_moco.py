"""Contrastive pre-training: two crops, momentum, queue; the trained encoder goes into Panini."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmagic.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner

import mmpd  # noqa: F401  (before mmagic: stands in for compiled ops)

CONFIG = Path(__file__).resolve().parents[2] / 'configs/panini/panini_moco_1xb32-437k_ffhq.py'
ENCODER = dict(type='DegradationEncoder', channels=(4, 6, 8))


def build(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type='DegradationMoCo', encoder=ENCODER, projection_channels=5,
                             **{'queue_size': 7, **kwargs}))


def crops(n=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(n, 3, 16, 16, generator=generator) for key in ('img_q', 'img_k')}


def test_loss_is_cross_entropy_over_the_own_key_and_the_queue():
    """Against loops over the definition (He et al. 2020, eq. 1)."""
    model, inputs = build(momentum=1.0, temperature=0.2), crops()
    queue = model.queue.clone()
    losses = model(inputs, mode='loss')
    q = model.projection_q(model.encoder_q(inputs['img_q']))
    k = model.projection_k(model.encoder_k(inputs['img_k']))
    expected, nearest = [], []
    for one, own in zip(q / q.norm(dim=1, keepdim=True), k / k.norm(dim=1, keepdim=True),
                        strict=True):
        scores = [one @ own / 0.2] + [one @ other / 0.2 for other in queue]
        total = torch.stack(scores).exp().sum()
        expected.append(-(scores[0].exp() / total).log())
        nearest.append(max(scores) == scores[0])
    torch.testing.assert_close(losses['loss_contrast'], torch.stack(expected).mean())
    assert losses['accuracy'].item() == pytest.approx(np.mean([bool(n) for n in nearest]))


def test_the_queue_is_a_ring_of_the_latest_keys():
    model = build()
    seen = []
    for _ in range(3):  # 9 keys into 7 places
        keys = F.normalize(torch.randn(3, 5))
        seen += list(keys)
        model.enqueue(keys)
    assert int(model.queue_position) == 2
    order = [7, 8, 2, 3, 4, 5, 6]
    assert torch.equal(model.queue, torch.stack([seen[index] for index in order]))
    with pytest.raises(ValueError, match='total batch size 8, got 7'):
        model.enqueue(torch.zeros(8, 5))


def test_keys_follow_by_momentum_and_get_no_gradient():
    model = build(momentum=0.75)
    before = [key.clone() for _, key in model._pairs()]
    for query, _ in model._pairs():
        query.data.add_(1)
    model(crops(), mode='loss')['loss_contrast'].backward()
    for old, (query, key) in zip(before, model._pairs(), strict=True):
        torch.testing.assert_close(key, 0.75 * old + 0.25 * query)
        assert query.grad is not None and key.grad is None
    assert {name.split('.')[0] for name, p in model.named_parameters() if p.requires_grad} == {
        'encoder_q', 'projection_q'}


def test_it_learns_to_recognise_the_degradation():
    """What is shown is noise, different in each crop: only its blur tells images apart."""
    generator = torch.Generator().manual_seed(0)

    def crops_of(blurs):
        images = torch.randn(len(blurs), 3, 16, 16, generator=generator)
        blurred = F.avg_pool2d(images, 3, 1, 1)
        return images + blurs[:, None, None, None] * (blurred - images)

    def hits(model):
        """Share of 8 blurs for which the key nearest to the query is the other crop's."""
        blurs = torch.linspace(0, 1, 8).repeat(8)
        with torch.no_grad():
            query = F.normalize(model.projection_q(model.encoder_q(crops_of(blurs))))
            key = F.normalize(model.projection_q(model.encoder_q(crops_of(blurs))))
        nearest = torch.stack([(q @ k.T).argmax(1) for q, k in
                               zip(query.split(8), key.split(8), strict=True)])
        return (nearest == torch.arange(8)).float().mean().item()

    model = build(queue_size=64, momentum=0.9, temperature=0.2)
    before = hits(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(40):
        blurs = torch.rand(8, generator=generator)
        loss = model(dict(img_q=crops_of(blurs), img_k=crops_of(blurs)), mode='loss')
        optimizer.zero_grad()
        loss['loss_contrast'].backward()
        optimizer.step()
    assert hits(model) > max(0.5, before + 0.15)


@pytest.mark.parametrize('kwargs, message', [
    (dict(momentum=1.5), r'momentum: expected a number in \[0, 1\], got 1.5'),
    (dict(temperature=0), 'temperature: expected a positive number, got 0'),
    (dict(queue_size=0), 'queue_size: expected at least 1, got 0'),
])
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


@pytest.mark.parametrize('inputs, message', [
    (torch.zeros(2, 3, 8, 8), "expected inputs with 'img_q' and 'img_k'.*got Tensor"),
    (dict(img_q=torch.zeros(2, 3, 8, 8)), r"got \['img_q'\]"),
    (dict(img_q=torch.zeros(2, 3, 8, 8), img_k=torch.zeros(1, 3, 8, 8)), 'got 2 and 1'),
])
def test_bad_inputs(inputs, message):
    with pytest.raises(ValueError, match=message):
        build()(inputs, mode='loss')


def small_config(folder):
    """The shipped config, shrunken: 2 iterations on 4 images of 64 px, crops of 32 px."""
    rng = np.random.default_rng(0)
    (folder / 'GT').mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f'GT/{index}.png'), rng.integers(0, 256, (64, 64, 3), np.uint8))
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(folder / 'work')
    cfg.model.encoder.channels = (4, 6, 8)
    cfg.model.update(queue_size=8, projection_channels=5)
    dataset = cfg.train_dataloader.dataset
    cfg.train_dataloader.update(num_workers=0, batch_size=2, persistent_workers=False)
    dataset.update(data_root=str(folder), ann_file='')
    for step in dataset.pipeline:
        if step.get('params', {}).get('target_size'):
            step.params.target_size = (64, 64)
        if step.type == 'Crop':
            step.crop_size = (32, 32)
    cfg.train_cfg.max_iters = 2
    cfg.default_hooks.checkpoint.interval = 2
    cfg.experiment_name = 'moco'
    return cfg


def test_config_trains_two_iterations_and_panini_takes_the_encoder(tmp_path):
    cfg = small_config(tmp_path)
    runner = Runner.from_cfg(cfg)
    sample = runner.train_dataloader.dataset[0]['inputs']
    assert set(sample) == {'img_q', 'img_k'}
    assert sample['img_q'].shape == sample['img_k'].shape == (3, 32, 32)
    pairs = [runner.train_dataloader.dataset[0]['inputs'] for _ in range(4)]
    assert any(not torch.equal(pair['img_q'], pair['img_k']) for pair in pairs)  # two crops
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    model = runner.train()
    after = model.state_dict()
    assert int(after['queue_position']) == 4
    for name in ('encoder_q.', 'encoder_k.', 'projection_q.', 'queue'):
        keys = [key for key in after if key.startswith(name)]
        assert keys and any(not torch.equal(before[key], after[key]) for key in keys), name
    checkpoint = tmp_path / 'work/iter_2.pth'
    encoder = MODELS.build(dict(ENCODER, init_cfg=dict(
        type='Pretrained', checkpoint=str(checkpoint), prefix='encoder_q')))
    encoder.init_weights()
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, after[f'encoder_q.{key}'])
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(encoder.eval()(image), model.eval()(image))
