"""opensr-test's split into improvement, omission and hallucination."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmpd.evaluation.functional import correctness


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(3, 24, 32, generator=generator, dtype=torch.float64) * 255
    lr = F.avg_pool2d(gt[None], 4)[0]
    return gt, lr, F.interpolate(lr[None], scale_factor=4, mode='bilinear')[0]


def test_extremes():
    gt, lr, enlarged = images()
    shares = {name: correctness(image, lr, gt) for name, image in
              dict(gt=gt, lr=enlarged, noise=images(1)[0] * 40).items()}
    for share in shares.values():
        assert sum(share.values()) == pytest.approx(1)
    assert shares['gt']['improvement'] > 0.9
    assert shares['lr']['omission'] > 0.9
    assert shares['noise']['hallucination'] > max(
        shares['gt']['hallucination'], shares['lr']['hallucination'])
    assert all(share['hallucination'] < 0.05 for share in (shares['gt'], shares['lr']))


@pytest.mark.parametrize('kwargs', (
    dict(), dict(gamma=0.8), dict(temperature=0.5), dict(threshold=0.4)))
def test_pixel_by_pixel(kwargs):
    """The documented formulas in plain Python; with every option, and each changes the result."""
    gt, lr, enlarged = images()
    sr = (0.6 * gt + 0.4 * enlarged) * 1.2
    sr[:, :3] = 0
    gt[:, 0, 0] = sr[:, 0, 0] = 0
    settings = dict(gamma=0.05, temperature=0.25, threshold=0.1) | kwargs
    enlarged, found = F.interpolate(lr[None], scale_factor=4, mode='bilinear')[0], []

    def apart(a, b):
        return np.mean([abs(p - q) / (p + q) if p + q else 0
                        for p, q in zip(a.tolist(), b.tolist(), strict=True)])

    for i, j in np.ndindex(*gt.shape[1:]):
        x, z, t = (image[:, i, j] for image in (sr, enlarged, gt))
        d = np.array([apart(z, t), apart(x, t), apart(x, z)])
        if (d > settings['threshold']).any():
            d_im, d_om = d[1:] / d[0]
            rest = 1 - np.exp(-settings['gamma'] * (d_im + d_om - 1))
            scores = np.array([d_im + d_om * rest, d_om + d_im * rest,
                               np.exp(-settings['gamma'] * d_im * d_om)])
            e = np.exp(-scores / settings['temperature'])
            found.append(e / e.sum())
    shares = correctness(sr, lr, gt, **kwargs)
    assert list(shares.values()) == pytest.approx(np.mean(found, 0).tolist(), rel=1e-9)
    if kwargs:
        assert list(shares.values()) != pytest.approx(list(correctness(sr, lr, gt).values()))


def test_where_nothing_was_to_be_done():
    flat, lr = torch.full((3, 8, 8), 100.), torch.full((3, 2, 2), 100.)
    for threshold in (0.1, 0):
        shares = correctness(flat, lr, flat, threshold=threshold)
        assert all(np.isnan(list(shares.values())))
    assert correctness(flat * 2, lr, flat)['hallucination'] == pytest.approx(1)
    black = torch.zeros(3, 8, 8)
    assert all(np.isnan(list(correctness(black, torch.zeros(3, 2, 2), black).values())))
    as_files = (np.full((3, 8, 8), 200, np.uint8), lr.byte().numpy(), flat.byte().numpy())
    assert correctness(*as_files)['hallucination'] == pytest.approx(1)


@pytest.mark.parametrize('change,message', (
    (dict(sr=torch.ones(3, 8, 4)), 'one shape'), (dict(lr=torch.ones(1, 2, 2)), 'channels'),
    (dict(sr=-torch.ones(3, 8, 8)), 'sr: expected finite values of at least 0'),
    (dict(gt=torch.full((3, 8, 8), torch.nan)), 'gt: expected finite'),
    (dict(gamma=0), 'gamma'), (dict(temperature=0), 'temperature'), (dict(threshold=1), 'thresh'),
))
def test_refuses(change, message):
    given = dict(sr=torch.ones(3, 8, 8), lr=torch.ones(3, 2, 2), gt=torch.ones(3, 8, 8))
    with pytest.raises(ValueError, match=message):
        correctness(**(given | change))
