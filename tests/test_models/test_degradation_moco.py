"""DegradationMoCo: its loss, queue and key encoder; training by its config."""
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

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/panini/panini_degradation-moco_1xb32-438k_ffhq.py'
ENCODER = dict(type='DegradationEncoder', channels=(4, 6), image_size=16)


def build(**kwargs):
    torch.manual_seed(0)
    cfg = dict(type='DegradationMoCo', encoder=ENCODER, projection_channels=5, queue_size=7,
               data_preprocessor=dict(type='DataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3,
                                      data_keys=[]))
    model = MODELS.build({**cfg, **kwargs}).train()
    model.init_weights()
    return model


def crops(n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(n, 3, 16, 16, generator=generator) * 2 - 1 for key in
            ('img', 'key_img')}


def test_loss_is_cross_entropy_against_pair_and_queue():
    model, inputs = build(temperature=0.5), crops()
    queue = model.queue.clone()
    reference = build().requires_grad_(False)
    query = F.normalize(reference.projection_q(reference.encoder_q(inputs['img'])), dim=1)
    key = F.normalize(reference.projection_k(reference.encoder_k(inputs['key_img'])), dim=1)
    expected, hits = 0, 0
    for q, k in zip(query, key, strict=True):
        scores = [float(q @ k)] + [float(q @ queue[:, i]) for i in range(7)]
        scores = np.exp(np.array(scores) / 0.5)
        expected -= np.log(scores[0] / scores.sum()) / 3
        hits += scores.argmax() == 0
    losses = model(inputs, mode='loss')
    assert losses['loss_contrast'].item() == pytest.approx(expected, rel=1e-4)
    assert float(losses['accuracy']) == pytest.approx(100 * hits / 3)


def test_queue_takes_the_keys_in_place_of_the_oldest():
    model = build()
    before = model.queue.clone()
    stored = []
    for _ in range(3):
        keys = F.normalize(torch.randn(3, 5), dim=1)
        model.enqueue(keys)
        stored += list(keys)
    expected = before.clone()
    for index, key in enumerate(stored):
        expected[:, index % 7] = key
    assert torch.equal(model.queue, expected) and int(model.queue_ptr) == 9 % 7
    with pytest.raises(ValueError, match='queue_size.*batch size of 8, got 7'):
        model.enqueue(torch.zeros(8, 5))


@pytest.mark.parametrize('rank', [0, 1])
def test_keys_of_several_ranks_are_made_in_another_order(rank, monkeypatch):
    """And each rank gets those of its own images back, which two ranks normalised together."""
    from mmpd.models.editors import degradation_moco
    model, seen = build(), []
    model.encoder_k = torch.nn.Flatten()
    model.encoder_k.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    model.projection_k = torch.nn.Identity()
    images = torch.randn(2, 3, 1, 1, 5, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([4, 0, 5, 2, 3, 1])  # that of rank 0
    shuffled = images.flatten(0, 1)[order]
    gathered = iter((list(images), list(F.normalize(shuffled.flatten(1)).split(3))))
    monkeypatch.setattr(degradation_moco, 'get_world_size', lambda: 2)
    monkeypatch.setattr(degradation_moco, 'get_rank', lambda: rank)
    monkeypatch.setattr(degradation_moco, 'all_gather', lambda own: next(gathered))
    monkeypatch.setattr(degradation_moco, 'broadcast', lambda tensor: tensor.copy_(order))
    keys = model.keys(images[rank])
    assert torch.equal(seen[0], shuffled[3 * rank:3 * rank + 3])
    assert torch.equal(keys, F.normalize(images[rank].flatten(1)))


def test_key_encoder_follows_slowly_and_without_gradients():
    model = build(momentum=0.75)
    with torch.no_grad():
        for parameter in model.encoder_q.parameters():
            parameter.add_(1)
    before = [p.clone() for p in model.encoder_k.parameters()]
    model(crops(), mode='loss')['loss_contrast'].backward()
    for old, new, query in zip(before, model.encoder_k.parameters(), model.encoder_q.parameters(),
                               strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * query)
        assert new.grad is None and query.grad is not None
    assert all(p.grad is not None for p in model.projection_q.parameters())


def test_key_encoder_begins_as_the_query_encoder(tmp_path):
    source = MODELS.build(ENCODER)
    state = {f'encoder_q.{key}': value for key, value in source.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'encoder.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'encoder.pth'), prefix='encoder_q')
    model = build(encoder=dict(ENCODER, init_cfg=init_cfg))
    for query, key in model._pairs():
        for one, two in zip(query.parameters(), key.parameters(), strict=True):
            assert torch.equal(one, two) and not two.requires_grad
    assert torch.equal(model.encoder_k.body[0].weight, source.body[0].weight)


def test_it_learns_to_recognise_the_degradation():
    """What is shown is noise, different in each crop: only its blur tells images apart."""
    generator = torch.Generator().manual_seed(0)

    def crops_of(blurs):
        images = torch.randn(len(blurs), 3, 16, 16, generator=generator)
        blurred = F.avg_pool2d(images, 3, 1, 1)
        return images + blurs[:, None, None, None] * (blurred - images)

    def hits(model):
        """Share of 8 blurs for which the nearest of 8 other crops is the one with that blur."""
        blurs = torch.linspace(0, 1, 8).repeat(8)
        with torch.no_grad():
            one, two = (F.normalize(model.projection_q(model(crops_of(blurs)))) for _ in range(2))
        nearest = torch.stack([(q @ k.T).argmax(1) for q, k in
                               zip(one.split(8), two.split(8), strict=True)])
        return (nearest == torch.arange(8)).float().mean().item()

    model = build(queue_size=64, momentum=0.9, temperature=0.2)
    before = hits(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(40):
        blurs = torch.rand(8, generator=generator)
        pair = dict(img=crops_of(blurs), key_img=crops_of(blurs))
        loss = model(pair, mode='loss')['loss_contrast']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert hits(model) > max(0.5, before + 0.15)


def test_representation_is_that_of_the_query_encoder():
    model, image = build().eval(), crops()['img']
    assert torch.equal(model(image), model.encoder_q(image))
    assert torch.equal(model(dict(img=image)), model.encoder_q(image))


@pytest.mark.parametrize('kwargs, message', [
    (dict(momentum=1.5), r'momentum: expected a number in \[0, 1\], got 1.5'),
    (dict(temperature=0), 'temperature: expected a positive number, got 0'),
])
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_missing_pairs_and_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="'img' and 'key_img'"):
        build()(crops()['img'], mode='loss')
    with pytest.raises(ValueError, match="mode: expected 'loss' or 'tensor', got 'predict'"):
        build()(crops(), mode='predict')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('moco') / 'GT'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{index}.png'), cv2.resize(coarse, (64, 64)))
    (folder.parent / 'meta_info_train.txt').write_text(
        ''.join(f'{index}.png (64,64,3)\n' for index in range(4)))
    return folder.parent


def test_both_stages_see_degradations_at_the_same_size():
    """The restorer's encoder pools its images: what it was pretrained on is pooled as much."""
    first = Config.fromfile(CONFIG)
    second = Config.fromfile(CONFIG.with_name('panini_mfr-in512out1024_1xb1-800k_ffhq.py'))
    crops = {step.crop_size for step in first.train_dataloader.dataset.pipeline
             if step.type == 'Crop'}
    assert crops == {(256, 256)} and second.model.generator.in_size == 512
    ratios = [side / MODELS.build(dict(cfg, init_cfg=None)).image_size for side, cfg in (
        (256, first.model.encoder), (512, second.model.generator.degradation_encoder))]
    assert ratios == [2, 2]


def shrunken(pictures, work_dir):
    """The config at 32 px, two iterations."""
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir, cfg.experiment_name = str(work_dir), work_dir.name
    cfg.model.update(encoder=ENCODER, queue_size=8, projection_channels=8)
    loader = cfg.train_dataloader
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loader.dataset.data_root = str(pictures)
    for step in loader.dataset.pipeline:
        if step.type == 'Crop':
            step.crop_size = (16, 16)
        if step.get('params', {}).get('target_size'):
            step.params.target_size = (32, 32)
    cfg.train_cfg.max_iters = 2
    return cfg


def test_config_gives_two_crops_of_one_degraded_image(pictures, tmp_path):
    from mmagic.registry import DATASETS
    dataset = DATASETS.build(shrunken(pictures, tmp_path).train_dataloader.dataset)
    for transform in dataset.pipeline.transforms:
        if type(transform).__name__ == 'Crop':
            transform.crop_size = (32, 32)
    same = dataset[0]['inputs']
    assert torch.equal(same['img'], same['key_img']) and same['img'].shape == (3, 32, 32)
    dataset = DATASETS.build(shrunken(pictures, tmp_path).train_dataloader.dataset)
    np.random.seed(0)
    pairs = [dataset[index % 4]['inputs'] for index in range(8)]
    assert all(pair['img'].shape == pair['key_img'].shape == (3, 16, 16) for pair in pairs)
    assert any(not torch.equal(pair['img'], pair['key_img']) for pair in pairs)


def test_config_trains_resumes_and_serves_panini(pictures, tmp_path):
    runner = Runner.from_cfg(shrunken(pictures, tmp_path))
    runner.train()
    trained = {key: value.clone() for key, value in runner.model.state_dict().items()}
    assert int(trained['queue_ptr']) == 4
    checkpoint = tmp_path / 'iter_2.pth'

    cfg = shrunken(pictures, tmp_path)
    cfg.update(resume=True, experiment_name='resumed')
    cfg.train_cfg.max_iters = 3
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    assert int(resumed.model.queue_ptr) == 6
    assert torch.equal(resumed.model.queue[:, :4], trained['queue'][:, :4])

    panini = MODELS.build(dict(
        type='PaniniNet', in_size=8, out_size=16, style_channels=8, num_mlps=1, rrdb_channels=4,
        num_rrdbs=1, channels={4: 4, 8: 4, 16: 4}, degradation_encoder=dict(
            ENCODER, init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint),
                                   prefix='encoder_q'))))
    panini.init_weights()
    for key, value in panini.degradation_encoder.state_dict().items():
        assert torch.equal(value, trained[f'encoder_q.{key}'])


def test_published_size_trains_the_query_side_only():
    with torch.device('meta'):
        model = MODELS.build(Config.fromfile(CONFIG).model)
    assert model.queue.shape == (256, 8192)
    trained = {name.split('.')[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {'encoder_q', 'projection_q'}
