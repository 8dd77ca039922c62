"""FID between outputs and GT images."""
import hashlib
import io
import logging
import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from mmagic.evaluation.metrics.base_sample_wise_metric import BaseSampleWiseMetric
from mmagic.registry import METRICS, MODELS
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from ...errors import ArgumentError, WeightsMismatch, WeightsNotFound
from ...utils.download import fetch, sha256_of
from ...utils.files import write_atomically
from ...utils.model import check_part
from ...utils.validation import check_path, check_positive_int, optional
from ..functional import as_tensor, check_keys_of, frechet_distance, resolve_device, to_saved

INCEPTION_URL = ('https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/'
                 'inception-2015-12-05.pt')
INCEPTION_FILE = INCEPTION_URL.rsplit('/', 1)[1]
INCEPTION_SHA256 = 'f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4'


class Inception(torch.nn.Module):
    """NVIDIA's TorchScript of the FID Inception: uint8 RGB images of any size to 2048 features.

    A TorchScript file is a program. This one file is run, known by its SHA-256, and no other; a
    network of one's own goes to :class:`SRFID` as ``network``.

    Args:
        path (str, optional): The file ``inception-2015-12-05.pt``. Defaults to None: download it
            into torch's hub folder, or take it from MMagic's cache folder.

    Raises:
        WeightsNotFound: If it is neither there nor can be downloaded, naming what to put where.
        WeightsMismatch: If the file is not that one.
    """

    def __init__(self, path=None):
        super().__init__()
        path = self._locate(path)
        digest = sha256_of(path)
        if digest != INCEPTION_SHA256:
            raise WeightsMismatch(f'FID: {path} is not {INCEPTION_FILE}: its SHA-256 is {digest}, '
                                  f'expected {INCEPTION_SHA256}')
        self.network = torch.jit.load(str(path), map_location='cpu').eval()

    @staticmethod
    def _locate(path):
        if path is not None:
            if not Path(path).is_file():
                raise WeightsNotFound(f'inception: no file {path}')
            return path
        from mmagic.utils import MMAGIC_CACHE_DIR
        cached = Path(MMAGIC_CACHE_DIR) / INCEPTION_FILE
        if cached.is_file():
            return cached
        try:
            return fetch(INCEPTION_URL)
        except WeightsNotFound as error:
            raise WeightsNotFound(f"FID needs {INCEPTION_FILE}: {error} (dict(type='SRFID', "
                                  'inception=FILE))') from error

    def forward(self, images):
        """(N, 3, H, W) uint8 RGB -> (N, 2048)."""
        return self.network(images, return_features=True)


def name_of(network):
    """The class of a network, and a digest of its weights if it has any: others, other features."""
    digest, state = hashlib.sha256(), network.state_dict()
    for key, value in sorted(state.items()):
        if torch.is_tensor(value):
            plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(key.encode() + plain.numpy().tobytes())
    name = type(network).__name__
    return f'{name}-{digest.hexdigest()[:8]}' if state else name


def statistics(features):
    """Mean and covariance of (N, D) features, in float64.

    Raises:
        ValueError: For fewer than two images.
    """
    features = np.asarray(features, np.float64)
    if len(features) < 2:
        raise ArgumentError(f'FID needs at least 2 images, got {len(features)}')
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def digest_of(hashes):
    """One digest of a set of images, whatever their order."""
    return hashlib.sha256(''.join(sorted(hashes)).encode()).hexdigest()


def save_statistics(path, mean, cov, count, network, digest=''):
    """Write statistics to an ``.npz`` file, atomically; ``digest`` names the images."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    np.savez(data, mean=mean, cov=cov, count=count, network=network, digest=digest)
    write_atomically(path, data.getvalue())


def load_statistics(path, network):
    """Read (mean, cov, count, digest) of a file written by :func:`save_statistics`.

    The digest is '' in files that do not name their images.

    Raises:
        ValueError: If it is no such file or belongs to another network.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, cov, count, name = (file[key] for key in ('mean', 'cov', 'count', 'network'))
            digest = str(file['digest']) if 'digest' in file else ''
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f'FID: {path} holds no reference statistics ({error}); delete it to '
                         'compute them anew') from error
    if str(name) != network:
        raise ValueError(f"FID: {path} was made with the network '{name}', not '{network}'")
    return mean, cov, int(count), digest


@METRICS.register_module()
class SRFID(BaseSampleWiseMetric):
    """Fréchet Inception distance between the saved outputs and reference images.

    MMagic's ``FID`` is made for unconditional generators, downloads on construction and reads the
    training set; this one takes the images of the test run. The reference is the GT of the same
    run, or a file of statistics, which is written on first use: it serves every run on the same
    images.

    Protocol: 8-bit images as saved, RGB, whole images, NVIDIA's Inception (the resize to 299 px is
    part of it), covariance with N - 1. FID depends on the number of images: the paper uses 1,000;
    figures from other numbers do not compare.

    Args:
        inception (str, optional): Local ``inception-2015-12-05.pt``. Defaults to None: it is
            downloaded on first use, and its hash verified.
        reference (str, optional): ``.npz`` of reference statistics; made from the GT of this run
            if it does not exist, and refused if it was made from other GT images. Defaults to None:
            GT of this run, nothing is kept.
        network (nn.Module | dict, optional): Another feature network: (N, 3, H, W) uint8 RGB ->
            (N, D). Defaults to None: Inception.
        batch_size (int): Images per pass of the network. Defaults to 16.
        device (str): 'auto' (CUDA if there is any), 'cpu', 'cuda' ... Defaults to 'auto'.
        gt_key (str): Defaults to 'gt_img'.
        pred_key (str): Defaults to 'pred_img'.
        collect_device (str): See mmengine's ``BaseMetric``. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric name. Defaults to None.

    Metrics:
        - FID (float): NaN if an output holds NaN, for no image could be saved of it
        - FID_images (int): number of outputs it was computed from

    Example:
        >>> import torch
        >>> from mmpd.evaluation.metrics import SRFID
        >>> class Means(torch.nn.Module):  # by default: Inception, downloaded on first use
        ...     def forward(self, images):
        ...         return images.float().mean((2, 3))
        >>> metric, images = SRFID(network=Means(), device='cpu'), torch.randint(256, (8, 3, 8, 8))
        >>> metric.size = len(images)  # the Runner's evaluator does that, and the rest
        >>> metric.process(None, [dict(gt_img=x, output=dict(pred_img=x)) for x in images])
        >>> found = metric.evaluate()
        >>> round(found['FID'], 6), found['FID_images']
        (0.0, 8)
    """

    metric = 'FID'
    names = ('FID', 'FID_images')

    def __init__(self, inception=None, reference=None, network=None, batch_size=16, device='auto',
                 gt_key='gt_img', pred_key='pred_img', collect_device='cpu', prefix=None):
        check_keys_of(prefix, collect_device, gt_key=gt_key, pred_key=pred_key)
        super().__init__(gt_key=gt_key, pred_key=pred_key, collect_device=collect_device,
                         prefix=prefix)
        check_positive_int(batch_size, 'batch_size')
        for name, value in (('inception', inception), ('reference', reference)):
            optional(check_path, value, name)
        optional(check_part, network, 'network')
        self.network_device = resolve_device(device)
        if network is None:
            self.network_name, network = 'inception-2015-12-05', Inception(inception)
        else:
            network = MODELS.build(network) if isinstance(network, dict) else network
            self.network_name = name_of(network)
        self.network = network.eval().to(self.network_device)
        self.batch_size, self.reference = batch_size, reference
        self._known = None
        self._load_reference()
        self._waiting = []

    @property
    def protocol(self):
        """What is measured, for the log."""
        reference = self.reference or 'GT of this run'
        return f'saved 8-bit RGB image, network {self.network_name}, reference {reference}'

    def _load_reference(self):
        if self._known is None and self.reference and Path(self.reference).exists():
            self._known = load_statistics(self.reference, self.network_name)

    def prepare(self, module, dataloader):
        """Refuse a data set that is too small before the first image, not after the last."""
        super().prepare(module, dataloader)
        self._waiting = []
        if self.size < 2:
            raise ArgumentError(f'FID needs at least 2 images, got {self.size}')

    def _check_reference(self, same, count):
        if self._known is not None and self._known[3] and not same:
            raise ArgumentError(f'FID: {self.reference} was made from other GT images '
                                f'({self._known[2]}) than those of this run ({count}): give '
                                'another file name, or delete it to compute the statistics anew')

    def process(self, data_batch, data_samples):
        """Queue the images of a batch; the network runs whenever ``batch_size`` have come."""
        if not self.results and not self._waiting:
            self._load_reference()  # another evaluator of this run may have written it
        for sample in data_samples:
            pred = self._pixels(sample['output'], self.pred_key)
            nan = bool(torch.as_tensor(sample['output'][self.pred_key]).isnan().any())
            if self._known is None:
                if self.gt_key not in sample:
                    raise ValueError(f"SRFID needs '{self.gt_key}' in the samples, or a file of "
                                     'reference statistics')
                gt = self._pixels(sample, self.gt_key)
            digest = None
            if self.reference and self.gt_key in sample:
                if self._known is not None and hasattr(self, 'size'):
                    self._check_reference(self._known[2] == self.size, self.size)
                gt = self._pixels(sample, self.gt_key)
                digest = hashlib.sha256(gt.numpy().tobytes()).hexdigest()
            self._waiting.append((pred, None if self._known else gt, digest, nan))
            if len(self._waiting) >= self.batch_size:
                self._flush()

    @staticmethod
    def _pixels(holder, key):
        return to_saved(as_tensor(holder[key], key)).to(torch.uint8)

    def _flush(self):
        waiting, self._waiting = self._waiting, []
        columns = [self._features([row[i] for row in waiting]) for i in (0, 1)]
        self.results += [dict(pred=pred, gt=gt, digest=digest, nan=nan)
                         for pred, gt, (*_, digest, nan) in zip(*columns, waiting, strict=True)]

    @torch.no_grad()
    def _features(self, images):
        if not images or images[0] is None:
            return [None] * len(images)
        same = all(image.shape == images[0].shape for image in images)
        features = []
        for batch in ([images] if same else [[image] for image in images]):
            stack = torch.stack(batch).flip(1).to(self.network_device)
            features += list(self.network(stack).double().cpu().numpy())
        return features

    def evaluate(self):
        """Collect the features of all processes and compute the distance."""
        self._flush()
        return super().evaluate()

    def compute_metrics(self, results):
        """Distance between the Gaussians of all outputs and of the reference."""
        predicted = np.stack([row['pred'] for row in results])
        known = self._known
        hashes = [row['digest'] for row in results]
        digest = digest_of(hashes) if all(hashes) else ''
        if digest:
            self._check_reference(known is None or known[3] == digest, len(results))
        if known is None:
            known = *statistics([row['gt'] for row in results]), len(results), digest
            if self.reference and is_main_process():
                save_statistics(self.reference, *known[:3], self.network_name, digest)
                print_log(f'FID: reference statistics written to {self.reference}', 'current')
        if min(len(results), known[2]) <= predicted.shape[1]:
            print_log(f'FID of {len(results)} images against {known[2]} with {predicted.shape[1]} '
                      'features: too few for comparison with published figures', 'current')
        nan = sum(row['nan'] for row in results)
        if nan:  # which pixels of 8 bits cannot hold: it would be counted as black
            print_log(f'FID: {nan} of {len(results)} outputs hold NaN', 'current', logging.WARNING)
            return dict(FID=math.nan, FID_images=len(results))
        distance = frechet_distance(*statistics(predicted), *known[:2])
        return dict(FID=distance, FID_images=len(results))
