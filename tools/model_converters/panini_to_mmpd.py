"""Convert checkpoints of the official Panini-Net (MMEditing 0.x) for PaniniNet.

    python tools/model_converters/panini_to_mmpd.py panini_sr_latest.pth panini_x16.pth

Takes the SR variant (64 -> 1024), the multi-degradation variant (MFR, 512 -> 1024) and the
degradation encoder of its MoCo training, finds out which it is, and writes a checkpoint for
GANPriorSR or PDPanini, or DegradationMoCo. Every tensor must find its place, with its shape.
"""
import argparse
import re
import sys
from pathlib import Path

from mmengine.registry import init_default_scope

from mmpd.cli import file_argument, run_tool
from mmpd.cli.model_converter import ConversionError, check, check_target, rename, write
from mmpd.utils.checkpoint import read_state_dict

# official name -> ours, inside the generator
RENAMED = (
    (r'^choice_vector$', 'vector'),
    (r'^AFS_maskGen\.mapping\.', 'mask_generator.'),
    (r'^encoder\.0\.1\.fea_preprocess\.', 'encoder.0.1.conv.'),
    (r'^encoder\.0\.1\.ChannelGate\.mlp\.1\.', 'encoder.0.1.channel_gate.0.'),
    (r'^encoder\.0\.1\.ChannelGate\.mlp\.3\.', 'encoder.0.1.channel_gate.2.'),
    (r'^encoder\.0\.1\.SpatialGate\.spatial\.conv\.', 'encoder.0.1.spatial_gate.0.'),
    (r'^encoder\.0\.1\.SpatialGate\.spatial\.bn\.', 'encoder.0.1.spatial_gate.1.'),
    (r'^deg_encoder\.E\.', 'degradation_encoder.body.'),
)
# the degradation encoder's projection serves its contrastive training only
UNUSED = r'^deg_encoder\.mlp\.'
# MoCo's names -> ours
RENAMED_MOCO = (
    (r'^encoder_(q|k)\.E\.', r'encoder_\1.body.'),
    (r'^encoder_(q|k)\.mlp\.', r'projection_\1.'),
)
SR = dict(type='PaniniNet', in_size=64, out_size=1024)
MFR = dict(type='PaniniNet', in_size=512, out_size=1024, fuse_size=64, rrdb_channels=8,
           num_rrdbs=2, reduction=2, degradation_encoder=dict(type='DegradationEncoder'))
MOCO = dict(type='DegradationMoCo', encoder=dict(type='DegradationEncoder'))


def convert_generator(state, sr=None, mfr=None):
    """Convert the state dict of the official generator.

    Args:
        state (dict): Official keys, without the restorer's ``generator.``.
        sr, mfr (dict, optional): Configs of the networks to compare with, in place of the
            published ones.

    Returns:
        tuple[dict, dict]: Our state dict, and the config of the network it is for.
    """
    if 'choice_vector' in state:
        cfg = sr or SR
    elif any(key.startswith('deg_encoder.') for key in state):
        cfg = mfr or MFR
    else:
        raise ConversionError('expected "choice_vector" (SR variant) or "deg_encoder." (MFR '
                              f'variant) among the keys, found e.g. "{next(iter(state))}"')
    state = {key: value for key, value in state.items() if not re.match(UNUSED, key)}
    converted = rename(state, RENAMED)
    check(converted, cfg)
    return converted, cfg


def convert_moco(state):
    """Convert the state dict of the official MoCo training."""
    converted = rename(state, RENAMED_MOCO)
    cfg = dict(MOCO)
    if 'queue' in converted and converted['queue'].ndim == 2:
        cfg['queue_size'] = converted['queue'].shape[1]
    check(converted, cfg)
    return converted, cfg


def convert(state, **cfgs):
    """Convert the state dict of an official checkpoint: restorer, bare generator or MoCo.

    Args:
        state (dict): Its keys, of a whole restorer (``generator.``, ``discriminator.``,
            ``perceptual_loss.``), of a generator alone, or of MoCo.
        cfgs: See :func:`convert_generator`.

    Returns:
        tuple[dict, dict]: Our state dict, and the config of the network it is for. The weights of
        the perceptual loss are left out: it loads its own.

    Raises:
        ConversionError: if it is none of these, or if a tensor has no place or another shape.
    """
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    if 'queue' in state:
        return convert_moco(state)
    parts = {key.split('.')[0] for key in state}
    if not parts & {'discriminator', 'perceptual_loss'} and 'fusion_out' in parts:
        converted, cfg = convert_generator(state, **cfgs)
        return {f'generator.{key}': value for key, value in converted.items()}, cfg
    generator = {key.removeprefix('generator.'): value for key, value in state.items()
                 if key.startswith('generator.')}
    if not generator:
        raise ConversionError(f'no keys of a generator; it has: {", ".join(sorted(parts)[:8])}')
    converted, cfg = convert_generator(generator, **cfgs)
    converted = {f'generator.{key}': value for key, value in converted.items()}
    converted.update((key, value) for key, value in state.items()
                     if key.startswith('discriminator.'))
    return converted, cfg


def run(argv=None):
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', type=Path, help='official checkpoint, .pth or .safetensors')
    parser.add_argument('target', type=file_argument, help='file to write')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing target')
    args = parser.parse_args(argv)
    check_target(args.target, args.overwrite)
    init_default_scope('mmagic')
    try:
        state, cfg = convert(read_state_dict(args.source))
    except ConversionError as error:
        raise ConversionError(f'{args.source}: {error}') from error
    args.target.parent.mkdir(parents=True, exist_ok=True)
    write(state, cfg, args.source, args.target)


def main(argv=None):
    return run_tool(run, argv)


if __name__ == '__main__':
    sys.exit(main())
