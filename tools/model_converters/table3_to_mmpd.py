"""Convert official checkpoints of the systems of the paper's Table 3 for mmpd.

    python tools/model_converters/table3_to_mmpd.py GPEN-BFR-512.pth gpen_bfr-512.pth
    python tools/model_converters/table3_to_mmpd.py GFPGANv1.3.pth gfpgan_v1.3.pth
    python tools/model_converters/table3_to_mmpd.py psp_celebs_super_resolution.pt psp.pth
    python tools/model_converters/table3_to_mmpd.py synthesis.pt pulse.pth --mapping mapping.pt

Finds out which system it is from the names in the file: GPEN (yangxy/GPEN), GFP-GAN 1 to 1.4
(TencentARC/GFPGAN), pSp (eladrich/pixel2style2pixel) or PULSE's StyleGAN1 (adamian98/pulse).
Nothing but tensors is unpickled, and every tensor must find its place, with its shape.
"""
import argparse
import re
import sys
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from mmpd.cli import file_argument, run_tool
from mmpd.cli.model_converter import ConversionError, check, check_target, rename, write
from mmpd.errors import InputError
from mmpd.models.generators.stylegan1 import StyleGAN1Mapping, latent_statistics
from mmpd.utils.reader import read_checkpoint

# StyleGAN2 in PyTorch as rosinality wrote it -> MMagic's names
STYLEGAN2 = (
    (r'^style\.(\d+)\.weight$', r'style_mapping.\1.linear.weight_orig'),
    (r'^style\.(\d+)\.bias$', r'style_mapping.\1.bias'),
    (r'^input\.input$', 'constant_input.input'),
    (r'\.conv\.modulation\.weight$', '.conv.style_modulation.linear.weight_orig'),
    (r'\.conv\.modulation\.bias$', '.conv.style_modulation.bias'),
    (r'\.conv\.weight$', '.conv.weight_orig'),
    (r'\.noise\.weight$', '.noise_injector.weight'),
    (r'^noises\.noise_(\d+)$', r'injected_noise_\1'),
)
# the same as BasicSR and GFP-GAN name it
BASICSR = (
    (r'^style_mlp\.(\d+)\.weight$', r'style_mapping.\1.linear.weight_orig'),
    (r'^style_mlp\.(\d+)\.bias$', r'style_mapping.\1.bias'),
    (r'^constant_input\.weight$', 'constant_input.input'),
    (r'^style_conv', 'conv'),
    (r'\.modulated_conv\.modulation\.weight$', '.conv.style_modulation.linear.weight_orig'),
    (r'\.modulated_conv\.modulation\.bias$', '.conv.style_modulation.bias'),
    (r'\.modulated_conv\.weight$', '.conv.weight_orig'),
    (r'^(conv1|convs\.\d+)\.weight$', r'\1.noise_injector.weight'),
    (r'^(conv1|convs\.\d+)\.bias$', r'\1.activate.bias'),
    (r'^noises\.noise(\d+)$', r'injected_noise_\1'),
)
GPEN = (
    (r'^ecd(\d+)\.0\.(\d+)\.weight$', r'encoder.\1.\2.conv.weight_orig'),
    (r'^ecd(\d+)\.0\.(\d+)\.', r'encoder.\1.\2.'),
    (r'^final_linear\.0\.weight$', 'final_linear.linear.weight_orig'),
    (r'^final_linear\.0\.bias$', 'final_linear.bias'),
)
GFPGAN = (
    (r'^conv_body_first\.', 'first.'),
    (r'^conv_body_down\.', 'down.'),
    (r'^conv_body_up\.', 'up.'),
    (r'^final_conv\.', 'last.'),
    (r'^final_linear\.', 'to_latents.'),
    (r'^condition_scale\.', 'gains.'),
    (r'^condition_shift\.', 'shifts.'),
)
# PULSE's StyleGAN1 uses a transposed convolution from this size on, unflipped
FUSED_FROM = 128


def below(state, prefix):
    """The part of a state dict below ``prefix``, without it."""
    return {key[len(prefix):]: value for key, value in state.items() if key.startswith(prefix)}


def count(state, pattern):
    """How many different matches of ``pattern`` are among the keys."""
    return len({match[0] for match in map(re.compile(pattern).match, state) if match})


def size_of(state, key, dimension):
    """Length of a dimension of a tensor that has to be there."""
    if key not in state or state[key].ndim <= dimension:
        raise ConversionError(f'"{key}" is missing or has another shape')
    return state[key].shape[dimension]


def prior_cfg(state):
    """Arguments of the StyleGAN2 whose MMagic state dict ``state`` is, and its size."""
    levels = count(state, r'to_rgbs\.\d+\.')
    channels = {4: size_of(state, 'constant_input.input', 1)}
    for level in range(levels):
        channels[2**(level + 3)] = size_of(state, f'convs.{2 * level}.conv.weight_orig', 1)
    return dict(style_channels=size_of(state, 'conv1.conv.style_modulation.linear.weight_orig', 1),
                num_mlps=count(state, r'style_mapping\.\d+\.'), channels=channels), 2**(levels + 2)


def convert_gpen(state):
    """GPEN's FullGenerator."""
    state = rename(state, GPEN)
    generator = rename(below(state, 'generator.'), STYLEGAN2)
    prior, size = prior_cfg(generator)
    if count(state, r'encoder\.\d+\.') != size.bit_length() - 2:
        raise ConversionError(f'its encoder is not for {size} px, the size of its generator: only '
                              'GPEN of one size (FullGenerator) is supported')
    converted = {key: value for key, value in state.items() if not key.startswith('generator.')}
    converted.update((f'generator.{key}', value) for key, value in generator.items())
    return converted, dict(type='GPENNet', in_size=size // 2, out_size=size, net_size=size, **prior)


def fold(state, prefix, bias, weight, gain):
    """Multiply an equalised convolution's scale and its activation's gain into the weights."""
    kernel = state.pop(f'{prefix}.{weight}')
    state[f'{prefix}.weight'] = kernel * (gain / kernel[0].numel()**0.5)
    if bias:
        state[f'{prefix}.bias'] = state.pop(f'{prefix}.{bias}') * gain


def fold_unet(state):
    """The U-Net of version 1, equalised, with gains of sqrt(2), as plain convolutions."""
    state = {re.sub(r'\.activation\.bias$', '.1.bias', key): value
             for key, value in state.items()}
    for prefix in sorted({re.sub(r'(\.\d)?\.(weight|bias)$', '', key) for key in state
                          if not key.startswith(('gains', 'shifts'))}):
        inside = prefix.split('.')[-1]
        weight = next(name for name in ('weight', '0.weight', '1.weight')
                      if f'{prefix}.{name}' in state)
        bias = next((name for name in ('bias', '1.bias', '2.bias')
                     if f'{prefix}.{name}' in state), None)
        # the sum of both ways is divided by sqrt(2), after a gain of sqrt(2) on one of them
        gain = dict(to_latents=1, conv2=1, skip=0.5**0.5).get(inside, 2**0.5)
        fold(state, prefix, bias, weight, gain)
    for prefix in sorted({key.rsplit('.', 2)[0] for key in state
                          if key.startswith(('gains', 'shifts'))}):
        fold(state, f'{prefix}.0', 'bias', 'weight', 2**0.5)
        fold(state, f'{prefix}.2', 'bias', 'weight', 1)
    return state


def blur_kernels(levels):
    """StyleGAN2's filters, which BasicSR does not keep in checkpoints."""
    kernel = torch.tensor([1., 3., 3., 1.])
    kernel = kernel[:, None] * kernel / 64
    state = {f'generator.convs.{2 * level}.conv.blur.kernel': 4 * kernel for level in range(levels)}
    for level in range(levels):
        state[f'generator.to_rgbs.{level}.upsample.kernel'] = 4 * kernel
        state[f'down.{level}.blur2.kernel'] = state[f'down.{level}.blur_skip.kernel'] = kernel
    return state


def unfold_prior(state):
    """The StyleGAN2 of the clean versions with MMagic's equalised learning rates."""
    unfolded = {}
    for key, value in state.items():
        if key.startswith('style_mapping.'):
            layer = int(key.split('.')[1])
            key = key.replace(f'.{layer}.', f'.{(layer + 1) // 2}.', 1)
            if value.ndim == 2:
                value = value * (value.shape[1]**0.5 / 0.01 / 2**0.5)
            else:
                value = value / (0.01 * 2**0.5)
        elif key.endswith('.weight_orig'):  # of a convolution or a modulation
            value = value * (value[0, 0] if value.ndim == 5 else value[0]).numel()**0.5
        elif key.endswith('.noise_injector.weight'):
            value = value / 2**0.5
        elif key.endswith('.activate.bias'):
            value = value.flatten() / 2**0.5
        unfolded[key] = value
    return unfolded


def convert_gfpgan(state):
    """GFPGANv1 (the paper's) or GFPGANv1Clean (1.2 to 1.4); without the heads of its training."""
    fir = 'conv_body_first.0.weight' in state
    if any('conv_body_down.0.conv2.weight' == key for key in state) == fir:
        raise ConversionError('neither GFPGANv1 nor GFPGANv1Clean (is it the bilinear '
                              'architecture? convert it with the official script first)')
    generator = rename(below(state, 'stylegan_decoder.'), BASICSR)
    if not fir:
        generator = unfold_prior(generator)
    prior, size = prior_cfg(generator)
    unet = rename({key: value for key, value in state.items()
                   if not key.startswith(('stylegan_decoder.', 'toRGB.'))}, GFPGAN)
    converted = {**fold_unet(unet), **blur_kernels(size.bit_length() - 3)} if fir else unet
    converted.update((f'generator.{key}', value) for key, value in generator.items())
    return converted, dict(type='GFPGANNet', in_size=size // 2, out_size=size, net_size=size,
                           fir=fir, **prior)


def convert_psp(content):
    """pSp with its GradualStyleEncoder; the average latent is in the file beside the weights."""
    state, options = content['state_dict'], content.get('opts') or {}
    kind = options.get('encoder_type', 'GradualStyleEncoder')
    if kind != 'GradualStyleEncoder' or options.get('learn_in_w'):
        raise ConversionError(f'its encoder is {kind}{", learnt in w" * bool(options)}: only '
                              'GradualStyleEncoder is supported')
    generator = rename(below(state, 'decoder.'), STYLEGAN2)
    prior, size = prior_cfg(generator)
    encoder = {re.sub(r'^(styles\.\d+\.linear)\.weight$', r'\1.linear.weight_orig',
                      re.sub(r'\.res_layer\.5\.fc', '.res_layer.5.fc', key)): value
               for key, value in below(state, 'encoder.').items()}
    latents = 2 * size.bit_length() - 4
    average = content.get('latent_avg')
    if options.get('start_from_latent_avg', True):
        if average is None:
            raise ConversionError('it counts from an average latent, but has no "latent_avg"')
        average = average.expand(latents, -1) if average.ndim == 2 else average[None].expand(
            latents, -1)
    else:
        average = torch.zeros(latents, prior['style_channels'])
    converted = {f'generator.{key}': value for key, value in generator.items()}
    converted.update((f'encoder.{key}', value) for key, value in encoder.items())
    converted['latent_avg'] = average.clone()
    widths, depths = [size_of(encoder, 'input_layer.0.weight', 0)], []
    for index in range(count(encoder, r'body\.\d+\.')):
        width = size_of(encoder, f'body.{index}.res_layer.3.weight', 0)
        if f'body.{index}.shortcut_layer.0.weight' in encoder or not depths:
            widths.append(width)
            depths.append(0)
        depths[-1] += 1
    return converted, dict(
        type='PSPNet', in_size=16, out_size=max(size, 32), prior_size=size,
        encoder_size=2**(count(encoder, r'styles\.0\.convs\.\d+\.weight') + 4),
        encoder_channels=widths[:4], encoder_depths=depths, **prior)


def upsampling_kernel(weight, flip):
    """A 3 x 3 convolution behind a doubling of the pixels, as a transposed 4 x 4 one."""
    weight = weight.transpose(0, 1)
    weight = torch.nn.functional.pad(weight.flip(2, 3) if flip else weight, (1, 1, 1, 1))
    return (weight[..., 1:, 1:] + weight[..., 1:, :-1] + weight[..., :-1, 1:]
            + weight[..., :-1, :-1])


def convert_mapping(state):
    """The mapping network of StyleGAN1, its learning rates folded in."""
    layers = count(state, r'dense\d+\.')
    width = size_of(state, 'dense0.weight', 0)
    mapping = StyleGAN1Mapping(width, layers)
    wanted = mapping.state_dict()
    folded = {}
    for key, value in state.items():
        match = re.fullmatch(r'dense(\d+)\.(weight|bias)', key)
        ours = match and f'{2 * int(match[1])}.{match[2]}'
        if ours not in wanted or wanted[ours].shape != value.shape:
            raise ConversionError(f'"{key}" {tuple(value.shape)} is not of StyleGAN1\'s mapping')
        folded[ours] = value * (0.01 * (2 / width)**0.5 if value.ndim == 2 else 0.01)
    if len(folded) != len(wanted):
        raise ConversionError('the mapping network is not complete')
    mapping.load_state_dict(folded)
    return mapping


def convert_pulse(state, statistics):
    """The synthesis network of StyleGAN1 and the Gaussian fitted to its latents.

    Args:
        state (dict): Of the official G_synthesis.
        statistics (tuple[Tensor, Tensor]): Mean and standard deviation of the latents.
    """
    def styled(name, layer):
        gain = size_of(state, f'{name}.style_mod.lin.weight', 1)**-0.5
        return {f'{layer}.style.weight': state.pop(f'{name}.style_mod.lin.weight') * gain,
                f'{layer}.style.bias': state.pop(f'{name}.style_mod.lin.bias'),
                f'{layer}.noise_weight': state.pop(f'{name}.noise.weight')}

    def scaled(name, gain=2**0.5):
        weight = state.pop(f'{name}.weight')
        return weight * gain / weight[0].numel()**0.5

    state, converted, channels = dict(state), {}, {}
    size = 2**(count(state, r'blocks\.\d+x\d+\.') + 1)
    try:
        style_channels = size_of(state, 'blocks.4x4.epi1.style_mod.lin.weight', 1)
        for level in range(2, size.bit_length()):
            block = f'blocks.{2**level}x{2**level}'
            layer = f'synthesis.layers.{2 * level - 4}'
            if level == 2:
                channels[4] = state[f'{block}.const'].shape[1]
                converted[f'{layer}.weight'] = state.pop(f'{block}.const')
                converted[f'{layer}.bias'] = state.pop(f'{block}.bias')
            else:
                weight = scaled(f'{block}.conv0_up')
                channels[2**level] = weight.shape[0]
                converted[f'{layer}.weight'] = upsampling_kernel(weight, flip=2**level < FUSED_FROM)
                converted[f'{layer}.bias'] = state.pop(f'{block}.conv0_up.bias')
                state.pop(f'{block}.conv0_up.intermediate.kernel')
            converted.update(styled(f'{block}.epi1', layer))
            layer = f'synthesis.layers.{2 * level - 3}'
            name = f'{block}.conv' if level == 2 else f'{block}.conv1'
            converted[f'{layer}.weight'] = scaled(name)
            converted[f'{layer}.bias'] = state.pop(f'{name}.bias')
            converted.update(styled(f'{block}.epi2', layer))
        converted['synthesis.to_rgb.weight'] = scaled('torgb', 1)
        converted['synthesis.to_rgb.bias'] = state.pop('torgb.bias')
    except KeyError as error:
        raise ConversionError(f'"{error.args[0]}" of StyleGAN1 is missing') from error
    if state:
        raise ConversionError(f'"{next(iter(state))}" is not of StyleGAN1')
    converted['latent_mean'], converted['latent_std'] = (
        value.reshape(-1) for value in statistics)
    return converted, dict(type='PULSENet', in_size=size // 4, out_size=size,
                           style_channels=style_channels, channels=channels)


def read(path):
    """The content of a checkpoint file, tensors and plain values only."""
    try:
        content = read_checkpoint(path)
    except InputError as error:
        raise ConversionError(str(error)) from error
    if not content:
        raise ConversionError(f'{path.name} holds no state dict')
    return content


def tensors_of(content, *names):
    """The state dict below the first of ``names`` that is there, or the content itself."""
    state = next((content[name] for name in names if name in content), content)
    if not isinstance(state, dict) or not state or not all(
            isinstance(value, torch.Tensor) for value in state.values()):
        raise ConversionError('holds no state dict')
    return {key.removeprefix('module.'): value for key, value in state.items()}


def pulse_statistics(path, samples, seed):
    """Mean and standard deviation of the latents, from mapping.pt or gaussian_fit.pt."""
    if path is None:
        raise ConversionError('PULSE also needs its mapping network: --mapping mapping.pt (or the '
                              'gaussian_fit.pt that the official code wrote)')
    content = tensors_of(read(path))
    if content.keys() == {'mean', 'std'}:
        return content['mean'], content['std']
    return latent_statistics(convert_mapping(content), samples, seed)


def convert(content, mapping=None, samples=1_000_000, seed=0):
    """Convert the content of an official checkpoint.

    Args:
        content (dict): What :func:`read` gave.
        mapping (Path, optional): PULSE's second file.
        samples (int), seed (int): See :func:`latent_statistics`.

    Returns:
        tuple[dict, dict]: Our state dict of the whole model (keys ``generator.``), and the config
        of the network it is for.

    Raises:
        ConversionError: if it is none of these, or if a tensor has no place or another shape.
    """
    state = tensors_of(content, 'g_ema', 'params_ema', 'params', 'state_dict')
    if 'stylegan_decoder.constant_input.weight' in state:
        converted, cfg = convert_gfpgan(state)
    elif 'ecd0.0.0.weight' in state:
        converted, cfg = convert_gpen(state)
    elif 'decoder.input.input' in state:
        converted, cfg = convert_psp(dict(content, state_dict=state))
    elif 'blocks.4x4.const' in state:
        converted, cfg = convert_pulse(state, pulse_statistics(mapping, samples, seed))
    else:
        raise ConversionError('is of none of GPEN, GFP-GAN, pSp and PULSE; it has '
                              f'{", ".join(list(state)[:3])} ...')
    check(converted, cfg)
    return {f'generator.{key}': value for key, value in converted.items()}, cfg


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='official checkpoint')
    parser.add_argument('target', type=file_argument, help='file to write')
    parser.add_argument('--mapping', type=Path, help='PULSE: mapping.pt or gaussian_fit.pt')
    parser.add_argument('--samples', type=int, default=1_000_000,
                        help='PULSE: random latents to which the Gaussian is fitted')
    parser.add_argument('--seed', type=int, default=0, help='PULSE: their seed')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing target')
    return parser.parse_args(argv)


def run(argv=None):
    """Convert one file."""
    args = parse_args(argv)
    if args.samples < 2:
        raise InputError(f'--samples: expected at least 2, got {args.samples}')
    check_target(args.target, args.overwrite)
    if not args.target.parent.is_dir():
        raise InputError(f'no folder {args.target.parent}')
    init_default_scope('mmagic')
    try:
        state, cfg = convert(read(args.source), args.mapping, args.samples, args.seed)
    except ConversionError as error:
        raise ConversionError(f'{args.source}: {error}') from error
    write(state, cfg, args.source, args.target)


def main(argv=None):
    return run_tool(run, argv)


if __name__ == '__main__':
    sys.exit(main())
