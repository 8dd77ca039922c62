"""What the configs of all models have in common, checked before anything is built."""
from mmengine.model import BaseModel

from ..operators.library_resize import LIBRARIES
from ..utils.model import check_part
from ..utils.validation import (
    check_bool,
    check_choice,
    check_dict,
    check_keys,
    check_number,
    check_positive_int,
    did_you_mean,
    optional,
    refuse,
)

__all__ = ['QUANTIZE', 'check_init_cfg', 'check_model_parts', 'check_settings']

QUANTIZE = ('consistent', 'clip', 'none')
MOST_SEED = 2**63 - 1


def _count(value, name):
    return check_positive_int(value, name, most=MOST_SEED)


def _count_from_0(value, name):
    return check_positive_int(value, name, least=0, most=MOST_SEED)


def _any(value, name):
    return value


# key -> check; MMagic's own are those that its model types read, and those that its configs name
# though nothing reads them any more (metrics, crop_border)
SETTINGS = {
    'BaseEditModel': (dict(), dict(metrics=_any, crop_border=_any)),
    'SRGAN': (dict(disc_steps=_count, disc_repeat=_count_from_0, disc_init_steps=_count_from_0),
              dict()),
    'RealESRGAN': (dict(start_iter=lambda value, name: check_positive_int(value, name, least=-1)),
                   dict()),
    'GANPriorSR': (dict(r1_weight=lambda value, name: check_number(value, name, least=0)), dict()),
    'PDMixin': (dict(), dict(
        quantize=lambda value, name: check_choice(value, name, QUANTIZE), keep_raw=check_bool,
        made_by=lambda value, name: optional(check_choice, value, name, LIBRARIES))),
    'PDN': (dict(seed=_count_from_0), dict(
        num_samples=_count,
        seed=lambda value, name: optional(_count_from_0, value, name))),
}
KNOWN_PACKAGES = ('mmpd', 'mmagic', 'mmengine')


def check_settings(model_type, train_cfg, test_cfg):
    """Refuse what a model type would ignore, or take wrongly, in ``train_cfg`` and ``test_cfg``.

    A type that is neither mmpd's nor MMagic's may have keys of its own: of those only such are
    refused that look like a known one.

    Args:
        model_type (type): The class that is built.
        train_cfg (dict, optional): As given to it.
        test_cfg (dict, optional): As given to it.

    Raises:
        ArgumentError: names the key, and the nearest known one.
    """
    own = any(issubclass(cls, BaseModel) and cls.__module__.split('.')[0] not in KNOWN_PACKAGES
              for cls in model_type.__mro__)
    for index, (name, cfg) in enumerate((('train_cfg', train_cfg), ('test_cfg', test_cfg))):
        known = {}
        for cls in model_type.__mro__:
            known.update(SETTINGS.get(cls.__name__, ({}, {}))[index])
        if not own:
            optional(check_keys, cfg, name, known)
        for key, value in (optional(check_dict, cfg, name) or {}).items():
            if key in known:
                known[key](value, f'{name}.{key}')
            elif did_you_mean(key, known):
                check_keys({key: value}, name, known)


def check_init_cfg(init_cfg, name='init_cfg'):
    """Return ``init_cfg`` if it is None, a dict or a list of dicts."""
    entries = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    if not all(entry is None or isinstance(entry, dict) for entry in entries):
        refuse(name, 'a dict or a list of dicts', init_cfg)
    return init_cfg


def check_model_parts(init_cfg=None, data_preprocessor=None, pixel_loss=None, **parts):
    """Refuse configs of a model's parts that are none, by the name of the part.

    Args:
        init_cfg, data_preprocessor, pixel_loss, parts: Arguments of MMagic's model types; what is
            None passes.

    Raises:
        ArgumentError: names the part.
    """
    check_init_cfg(init_cfg)
    parts = {**parts, 'data_preprocessor': data_preprocessor, 'pixel_loss': pixel_loss}
    for name in ('generator', 'discriminator', 'gan_loss', 'pixel_loss', 'perceptual_loss',
                 'data_preprocessor'):
        optional(check_part, parts.get(name), name)
