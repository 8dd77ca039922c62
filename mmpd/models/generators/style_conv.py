"""StyleGAN2's style convolution, whose inference on a CPU copies less."""
import torch
import torch.nn.functional as F
from mmagic.models.editors.esrgan.rrdb_net import RRDB
from mmagic.models.editors.stylegan2.stylegan2_modules import ModulatedStyleConv
from mmengine.runner.amp import autocast


class StyleConv(ModulatedStyleConv):
    """MMagic's ``ModulatedStyleConv``: same keys, same values; inference on a CPU is faster.

    MMagic writes each layer's weights four times for every image (equalised, modulated, squared,
    demodulated), and each layer's features for the blur, the noise, the bias and the gain. Here
    style and demodulation go to whichever is smaller, the weights or the features; the activation's
    gain goes with the demodulation, its bias with a convolution that is there anyway; noise and
    activation are in place, for what costs most is new memory. In training, on GPUs and where
    gradients are wanted it is MMagic's. Its parts are not called one by one: hooks on them are
    those of the other cases.
    """

    def forward(self, x, style, noise=None, **kwargs):
        """(N, in_channels, H, W), (N, style_channels) -> (N, out_channels, H or 2H, W or 2W)."""
        if (self.training or torch.is_grad_enabled() or noise is None or kwargs or not x.is_cpu
                or self.fp16_enabled or not self.conv.demodulate):
            return super().forward(x, style, noise=noise, **kwargs)
        with autocast(enabled=False):
            return self._infer(x, style, noise)

    def _infer(self, x, style, noise):
        conv, gain = self.conv, self.activate.scale  # gain · lrelu(x) = lrelu(gain · x)
        weight = conv.weight_orig[0]
        style = (conv.style_modulation(style) + conv.style_bias) * weight[0].numel()**-0.5
        wide = torch.promote_types(weight.dtype, torch.float32)  # halves have too few bits to sum
        power = sum(tap.to(wide).square() for tap in weight.flatten(2).unbind(2))
        demodulation = gain * torch.rsqrt(style.to(wide).square() @ power.T + conv.eps)
        demodulation = demodulation.to(weight.dtype)
        bias = gain * self.activate.bias.to(weight.dtype)
        modulated = len(x) == 1 and x.numel() > weight.numel()
        if modulated:
            weight = weight * (demodulation.T * style)[..., None, None]
        else:
            x = x * style[..., None, None]
        if conv.upsample:
            out = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        else:
            out = F.conv2d(x, weight, bias if modulated else None, padding=conv.padding)
        if not modulated:
            out.mul_(demodulation[..., None, None])
        if conv.upsample:
            out = self._blur(out, bias)
        elif not modulated:
            out.add_(bias.view(-1, 1, 1))
        out.add_(gain * self.noise_injector.weight.to(out.dtype) * noise.to(out.dtype))
        return F.leaky_relu_(out, self.activate.negative_slope)

    def _blur(self, x, bias):
        blur, channels = self.conv.blur, x.shape[1]
        kernel = blur.kernel.to(x.dtype).flip(0, 1).expand(channels, 1, -1, -1)
        # mmcv takes a pair for (x, y), each for both sides
        return F.conv2d(x, kernel, bias, padding=blur.pad[::-1], groups=channels)

    def channels_last(self):
        """Lay the weights out as convolutions on a CPU want them, once instead of every time."""
        weight = self.conv.weight_orig
        kernels = weight.data[0].transpose(0, 1) if self.conv.upsample else weight.data[0]
        kernels = kernels.contiguous(memory_format=torch.channels_last)
        weight.data = (kernels.transpose(0, 1) if self.conv.upsample else kernels)[None]


def channels_last(network):
    """Lay all filters of a network out channels-last, which its convolutions then go by.

    Only where that is known to pay, on a CPU: in networks with style convolutions or RRDBs.

    Args:
        network (nn.Module): Changed in place; values and keys are as they were.

    Returns:
        bool: Whether it is such a network.
    """
    if not any(isinstance(module, (StyleConv, RRDB)) for module in network.modules()):
        return False
    for module in network.modules():
        if isinstance(module, StyleConv):
            module.channels_last()
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return True
