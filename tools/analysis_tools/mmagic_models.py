"""Which of MMagic's image restoration configs can gain PD, and why the others cannot: a page.

    python tools/analysis_tools/mmagic_models.py > docs/mmagic_models.md

Every config is built with PD as a user would write it (``type='PDModel'`` and the config's own type
as ``base``); what the model says decides. No weights are read.
"""
import copy
import re
import sys
import warnings
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmpd.errors import InputError

HEAD = """# MMagic's configs and PD

Made by `python tools/analysis_tools/mmagic_models.py > docs/mmagic_models.md`; do not edit.

Every config of MMagic whose model is of the image restoration family (`BaseEditModel`), built with
PD. Where it can, these lines are all that is needed, with the type of the table:

```python
_base_ = 'mmagic::edsr/edsr_x4c64b16_1xb16-300k_div2k.py'
custom_imports = dict(imports=['mmpd'], allow_failed_imports=False)
model = dict(type='PDModel', base='BaseEditModel')
```

PD needs one SR image for one LR image and an A that loses something. A network of scale 1
(denoising, deblurring) has none by default: with average pooling of scale 1 A is the identity and
every output would be the input. Name an operator of scale 1, such as `Masking` or `Grayscale`,
where that is the task.

| config | with PD |
| :-- | :-- |"""
# parts for training, which do not decide; some would download weights
TRAINING = ('discriminator', 'gan_loss', 'perceptual_loss', 'transferal_perceptual_loss',
            'feature_loss')


def configs(folder):
    """The configs whose model is of the image restoration family, sorted."""
    from mmagic.models.base_models import BaseEditModel
    from mmagic.registry import MODELS
    found = []
    for path in sorted(folder.glob('[!_]*/*.py')):
        name = re.search(r"^model = dict\(\s*type='(\w+)'", path.read_text(), re.M)
        kind = name and MODELS.get(name[1])
        if name is None:  # the type is inherited
            try:
                kind = MODELS.get(Config.fromfile(path).model.type)
            except Exception:  # a config for something that is not installed
                kind = None
        if isinstance(kind, type) and issubclass(kind, BaseEditModel):
            found.append(path)
    return found


def judge(path):
    """'PDModel, base=..., scale ...', or why PD is not possible.

    Args:
        path (Path): A config of MMagic.

    Returns:
        str: A cell of the table.
    """
    init_default_scope('mmagic')
    model = copy.deepcopy(Config.fromfile(path).model.to_dict())
    base = model.pop('type')
    for key in TRAINING:
        model.pop(key, None)
    _without_weights(model)
    # a plain GLEAN config is an SRGAN with a generator that has a type of its own
    glean = model['generator']['type'] == 'GLEANStyleGANv2'
    kind = dict(type='PDGLEAN') if glean else dict(type='PDModel', base=base)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            built = _build({**kind, **model})
    except (InputError, TypeError) as error:
        return 'no: ' + str(error).split('; ')[0].replace('|', '/')
    from mmpd.models.editors.probing import check_suitable
    scale = check_suitable(built.generator) or getattr(built.pd_head.operator, 'scale', None)
    name = 'PDGLEAN' if glean else f'PDModel, base={base!r}'
    return f'{name}, ' + (f'{scale}×' if scale else 'scale known at its first image only')


def _without_weights(part):
    """Remove, at whatever depth, what a constructor would read."""
    for key, value in list(part.items()):
        if key.endswith('pretrained') or key == 'init_cfg':
            part[key] = None
        elif isinstance(value, dict):
            _without_weights(value)
    if part.get('type') == 'LTE':  # TTSR's, reads a VGG unless told not to
        part['load_pretrained_vgg'] = False


def _build(model):
    """On the meta device where that is possible: no memory, no time."""
    from mmagic.registry import MODELS
    try:
        with torch.device('meta'):
            return MODELS.build(copy.deepcopy(model))
    except (RuntimeError, NotImplementedError):  # SwinIR asks for values when it is built
        return MODELS.build(model)


def read_page(text):
    """Config -> cell of a page that :func:`main` wrote."""
    return dict(re.findall(r'^\| `([\w/.+-]+\.py)` \| (.*) \|$', text, re.M))


def main():
    import mmagic
    folder = Path(mmagic.__file__).parent / '.mim' / 'configs'
    rows = []
    for path in configs(folder):
        rows.append(f'| `{path.relative_to(folder)}` | {judge(path)} |')
    print('\n'.join([HEAD, *rows]))


if __name__ == '__main__':
    sys.exit(main())
