"""FID: the arithmetic on known Gaussians, the metric with a small feature network."""
import json
from hashlib import sha256
from types import SimpleNamespace

import mmpd  # noqa: F401  isort: skip  (its stand-ins come before mmagic's models)
import numpy as np
import pytest
import torch
from mmagic.evaluation import FrechetInceptionDistance
from mmagic.registry import METRICS
from scipy.linalg import sqrtm

from mmpd.errors import InputError
from mmpd.evaluation.functional import frechet_distance
from mmpd.evaluation.metrics import fid
from mmpd.evaluation.metrics.fid import Inception, load_statistics, save_statistics, statistics


def test_diagonal_gaussians_have_a_closed_form():
    rng = np.random.default_rng(0)
    m1, m2, s1, s2 = rng.uniform(0.1, 2, (4, 20))
    want = ((m1 - m2)**2).sum() + ((s1 - s2)**2).sum()
    got = frechet_distance(m1, np.diag(s1**2), m2, np.diag(s2**2))
    assert got == pytest.approx(want, rel=1e-12)
    assert frechet_distance(m1, np.diag(s1), m1, np.diag(s1)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('count', [200, 12])  # 12 < 16 features: singular
def test_equals_the_matrix_square_root(count):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(count, 16)) @ rng.normal(size=(16, 16)), rng.normal(1, 2, (count, 16))
    (m1, c1), (m2, c2) = statistics(a), statistics(b)
    got = frechet_distance(m1, c1, m2, c2)
    root = sqrtm(c1 @ c2 + (0 if count > 16 else 1e-10) * np.eye(16)).real
    want = ((m1 - m2)**2).sum() + np.trace(c1 + c2 - 2 * root)
    assert got == pytest.approx(want, rel=1e-9 if count > 16 else 1e-3)
    assert got == pytest.approx(frechet_distance(m2, c2, m1, c1), rel=1e-9)


def test_sampled_gaussians_approach_their_distance():
    rng = np.random.default_rng(2)
    sample = [rng.normal(mean, std, (20000, 4)) for mean, std in ((0, 1), (0.5, 2))]
    got = frechet_distance(*statistics(sample[0]), *statistics(sample[1]))
    assert got == pytest.approx(4 * (0.25 + 1), rel=0.03)


class Pool(torch.nn.Module):
    """Features: means of 2 x 2 patches of the red and of the blue channel."""

    def forward(self, images):
        assert images.dtype == torch.uint8
        self.batches = [*getattr(self, 'batches', []), len(images)]
        return torch.nn.functional.adaptive_avg_pool2d(images[:, [0, 2]].float(), 2).flatten(1)


class OtherPool(Pool):
    pass


def samples(count=7, seed=0, gt=True, size=16):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (2, count, 3, size, size)).astype(np.float32))
    return [dict(output=dict(pred_img=pred - 0.3), **(dict(gt_img=real) if gt else {}))
            for pred, real in zip(*images, strict=True)]


def features(images):
    rgb = np.stack([image.numpy()[::-1].clip(0, 255).round() for image in images])[:, [0, 2]]
    return rgb.reshape(len(rgb), 2, 2, 8, 2, 8).mean((3, 5)).reshape(len(rgb), -1)


def build(**kwargs):
    return METRICS.build(dict(dict(type='SRFID', network=Pool(), device='cpu'), **kwargs))


def evaluate(metric, data):
    metric.size = len(data)
    for start in range(0, len(data), 3):
        metric.process(None, data[start:start + 3])
    return metric.evaluate()


@pytest.mark.parametrize('batch_size', [1, 4, 100])
def test_metric_equals_the_definition_for_every_batch_size(batch_size):
    data = samples()
    metric = build(batch_size=batch_size)
    got = evaluate(metric, data)
    pred = statistics(features([s['output']['pred_img'] for s in data]))
    real = statistics(features([s['gt_img'] for s in data]))
    assert got['FID'] == pytest.approx(frechet_distance(*pred, *real), rel=1e-6)
    assert got['FID_images'] == 7 and type(got['FID']) is float
    json.dumps(got, allow_nan=False)
    assert max(metric.network.batches) == min(batch_size, 7)


def test_arithmetic_equals_that_of_mmagic():
    data = samples()
    arguments = (*statistics(features([s['output']['pred_img'] for s in data])),
                 *statistics(features([s['gt_img'] for s in data])))
    try:
        theirs = FrechetInceptionDistance._calc_fid(*arguments)[0]
    except TypeError:
        pytest.skip("this SciPy's sqrtm no longer has the argument that MMagic passes")
    assert frechet_distance(*arguments) == pytest.approx(theirs, rel=1e-6, abs=1e-6)


def test_reference_is_written_once_and_used_without_gt(tmp_path):
    path, data = tmp_path / 'stats' / 'gt.npz', samples()
    first = evaluate(build(reference=str(path)), data)
    assert [p.name for p in path.parent.iterdir()] == ['gt.npz']
    stamp = path.stat().st_mtime_ns
    waiting = build(reference=str(path))
    again = evaluate(waiting, samples(gt=False))
    assert again['FID'] == pytest.approx(first['FID'], rel=1e-9)
    assert path.stat().st_mtime_ns == stamp
    assert sum(waiting.network.batches) == 7  # the GT did not go through the network again
    late = build(reference=str(tmp_path / 'late.npz'))  # built before the file exists
    evaluate(build(reference=str(tmp_path / 'late.npz')), data)
    evaluate(late, data)
    assert sum(late.network.batches) == 7


def test_a_reference_that_appears_meanwhile_changes_nothing(tmp_path):
    """Of another run beside this one: half of the GT would be of the one, half of the other."""
    path = str(tmp_path / 'gt.npz')
    metric, data = build(reference=path, batch_size=1), samples()
    metric.process(None, data[:3])
    evaluate(build(reference=path), samples(seed=1))
    metric.process(None, data[3:])
    metric.size = len(data)
    assert metric.evaluate() == evaluate(build(), data)


def test_what_is_in_mmagics_cache_is_not_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setattr('mmagic.utils.MMAGIC_CACHE_DIR', str(tmp_path))
    monkeypatch.setattr(fid, 'fetch', lambda url: 'from the net')
    assert Inception._locate(None) == 'from the net'
    (tmp_path / fid.INCEPTION_FILE).touch()
    assert Inception._locate(None) == tmp_path / fid.INCEPTION_FILE


def test_the_protocol_names_network_and_reference():
    assert build().protocol.endswith('network Pool, reference GT of this run')
    assert build(reference='gt.npz').protocol.endswith('network Pool, reference gt.npz')


def test_reference_of_other_images_is_refused(tmp_path):
    path = str(tmp_path / 'gt.npz')
    evaluate(build(reference=path), samples(5))
    with pytest.raises(ValueError, match=r'gt.npz was made from other GT images \(5\).*\(7\)'):
        evaluate(build(reference=path), samples(7))
    with pytest.raises(ValueError, match='other GT images'):
        evaluate(build(reference=path), samples(5, seed=1))
    shuffled = samples(5)[::-1]  # the order does not matter
    assert evaluate(build(reference=path), shuffled)['FID_images'] == 5


@pytest.mark.parametrize('count, told', [(8, True), (9, False)])
def test_as_few_images_as_features_are_said_to_be_too_few(count, told, monkeypatch):
    lines = []
    monkeypatch.setattr(fid, 'print_log', lambda text, logger: lines.append(text))
    evaluate(build(), samples(count))
    assert [f'FID of {count} images against {count} with 8' in line for line in lines] == [
        True] * told


def test_the_reference_knows_the_weights_of_its_network(tmp_path):
    class Weighted(Pool):
        def __init__(self, weight):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(weight, dtype=torch.bfloat16))

        def forward(self, images):
            return super().forward(images) * self.weight.float()

    path = str(tmp_path / 'gt.npz')
    first = evaluate(build(reference=path, network=Weighted(1.)), samples())
    assert evaluate(build(reference=path, network=Weighted(1.)), samples()) == first
    with pytest.raises(ValueError, match="made with the network 'Weighted-[0-9a-f]{8}', not 'Weig"):
        build(reference=path, network=Weighted(2.))  # of features twice as large


def test_a_file_that_does_not_name_its_images_serves_any(tmp_path):
    path = tmp_path / 'old.npz'
    save_statistics(tmp_path / 'new' / 'folder' / 'a.npz', np.zeros(8), np.eye(8), 5, 'Pool')
    np.savez(path, mean=np.zeros(8), cov=np.eye(8), count=5, network='Pool')
    for file in (path, tmp_path / 'new' / 'folder' / 'a.npz'):
        assert load_statistics(file, 'Pool')[2:] == (5, '')
        assert evaluate(build(reference=str(file)), samples())['FID'] > 0


def test_nan_is_no_black_image(monkeypatch):
    lines, data = [], samples()
    monkeypatch.setattr(fid, 'print_log', lambda text, *_, **__: lines.append(text))
    data[3]['output']['pred_img'][0, 0, 0] = torch.nan
    got = evaluate(build(batch_size=2), data)
    assert np.isnan(got['FID']) and got['FID_images'] == 7
    assert 'FID: 1 of 7 outputs hold NaN' in lines[-1]


def test_what_cannot_be_measured_is_refused_before_the_first_image(tmp_path):
    module, loader = SimpleNamespace(data_preprocessor=None), SimpleNamespace(dataset=[0])
    with pytest.raises(InputError, match='FID needs at least 2 images, got 1'):
        build().prepare(module, loader)
    path, data = str(tmp_path / 'gt.npz'), samples(5)
    evaluate(build(reference=path), data)
    metric, loader.dataset = build(reference=path), [0] * 7
    metric.prepare(module, loader)
    with pytest.raises(InputError, match=r'other GT images \(5\) than those of this run \(7\)'):
        metric.process(None, data[:1])
    metric.process(None, samples(1, gt=False))  # which are not known


def test_images_of_several_sizes():
    data = samples(3) + samples(3, 1, size=32)
    assert evaluate(build(), data)['FID_images'] == 6


def test_inception_file(tmp_path, monkeypatch):
    class Fake(torch.nn.Module):
        def forward(self, images: torch.Tensor, return_features: bool = False):
            return images.float().mean([2, 3]) if return_features else images.float()

    path = tmp_path / 'inception-2015-12-05.pt'
    torch.jit.script(Fake()).save(str(path))
    with pytest.raises(RuntimeError, match='is not inception-2015-12-05.pt: its SHA-256 is'):
        Inception(path)  # a program, and not the one that is known
    monkeypatch.setattr(fid, 'INCEPTION_SHA256', sha256(path.read_bytes()).hexdigest())
    metric = METRICS.build(dict(type='SRFID', inception=str(path), device='cpu'))
    assert metric.network_name == 'inception-2015-12-05'
    assert evaluate(metric, samples())['FID'] >= 0
    with pytest.raises(FileNotFoundError, match='nowhere.pt'):
        Inception('nowhere.pt')

    def offline(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr('mmpd.utils.download.urlopen', offline)
    monkeypatch.setattr('mmagic.utils.MMAGIC_CACHE_DIR', str(tmp_path / 'none'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(FileNotFoundError,
                       match='inception-2015-12-05.pt.*put the file at.*inception='):
        Inception()


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="'gt_img'"):
        evaluate(build(), samples(gt=False))
    with pytest.raises(ValueError, match='at least 2 images, got 1'):
        evaluate(build(), samples(1))
    for wrong in (dict(batch_size=0), dict(network=3), dict(inception=3), dict(reference='')):
        with pytest.raises(ValueError, match=f'^{next(iter(wrong))}: expected'):
            build(**wrong)
    broken = tmp_path / 'broken.npz'
    broken.write_bytes(b'no zip')
    with pytest.raises(ValueError, match='broken.npz holds no reference statistics'):
        build(reference=str(broken))
    save_statistics(tmp_path / 'a.npz', np.zeros(8), np.eye(8), 5, 'OtherPool')
    assert load_statistics(tmp_path / 'a.npz', 'OtherPool')[2] == 5
    with pytest.raises(ValueError, match="'OtherPool', not 'Pool'"):
        build(reference=str(tmp_path / 'a.npz'))
    gaussian = np.zeros(3), np.eye(3), np.zeros(3), np.eye(3)
    for wrong, value in ((1, np.eye(2)), (2, np.zeros(2)), (3, np.eye(2))):
        with pytest.raises(ValueError, match=r'expected means of \(3,\).*\(3, 3\), got'):
            frechet_distance(*(value if i == wrong else x for i, x in enumerate(gaussian)))
    for i, x in enumerate(gaussian):
        with pytest.raises(ValueError, match='not finite'):
            frechet_distance(*gaussian[:i], x + np.nan, *gaussian[i + 1:])
