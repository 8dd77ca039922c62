"""Writes RRDB networks as ncnn's param and bin files, for the tests of reading them."""
import struct

import torch
from mmagic.registry import MODELS

LRELU = '9=2 -23310=1,2.000000e-01'


def network(blocks=2, mid=6, growth=4, channels=3):
    torch.manual_seed(0)
    net = MODELS.build(dict(type='RRDBNet', in_channels=channels, out_channels=channels,
                            mid_channels=mid, num_blocks=blocks, growth_channels=growth))
    for parameter in net.parameters():  # biases are 0 otherwise
        torch.nn.init.normal_(parameter, std=0.1)
    return net


def order(net):
    """Convolutions as they are run: MMagic registers them in that order."""
    return [(name, module) for name, module in net.named_modules()
            if isinstance(module, torch.nn.Conv2d)]


class Writer:
    """A param file in the making; ``split`` gives each reader of a blob its own name, as ncnn's
    optimiser does."""

    def __init__(self, separate=False):
        self.lines, self.separate, self.count, self.blobs = [], separate, 0, 0

    def layer(self, kind, inputs, settings='', outputs=1):
        names = [f'blob{self.blobs + i}' for i in range(outputs)]
        self.blobs += outputs
        self.lines.append(f'{kind:16} {kind.lower()}_{len(self.lines)} {len(inputs)} {outputs} '
                          f'{" ".join([*inputs, *names])} {settings}'.rstrip())
        return names if outputs > 1 else names[0]

    def conv(self, module, x, activate=False):
        settings = (f'0={module.out_channels} 1=3 4=1 5=1 6={module.weight.numel()}')
        if activate and not self.separate:
            return self.layer('Convolution', [x], f'{settings} {LRELU}')
        x = self.layer('Convolution', [x], settings)
        return self.layer('ReLU', [x], '0=2.000000e-01') if activate else x

    def residual(self, branch, x):
        if not self.separate:
            return self.layer('Eltwise', [branch, x], '0=1 -23301=2,2.000000e-01,1.000000e+00')
        scaled = self.layer('BinaryOp', [branch], '0=2 1=1 2=2.000000e-01')
        return self.layer('BinaryOp', [scaled, x], '0=0')

    def text(self):
        return '\n'.join(['7767517', f'{len(self.lines)} {self.blobs}', *self.lines]) + '\n'


def write_param(net, separate=False):
    out = Writer(separate)
    modules = iter([module for _, module in order(net)])
    x = out.layer('Input', [])
    first, again = out.layer('Split', [out.conv(next(modules), x)], outputs=2)
    x = first
    for _ in net.body:
        start = x
        for _ in range(3):
            dense = [x]
            for index in range(5):
                joined = x if index == 0 else out.layer('Concat', dense)
                y = out.conv(next(modules), joined, activate=index < 4)
                dense.append(y)
            x = out.residual(y, x)
        x = out.residual(x, start)
    x = out.layer('BinaryOp', [again, out.conv(next(modules), x)])
    for _ in range(2):
        x = out.layer('Interp', [x], '0=1 1=2.000000e+00 2=2.000000e+00')
        x = out.conv(next(modules), x, activate=True)
    x = out.conv(next(modules), x, activate=True)
    out.conv(next(modules), x)
    return out.text()


def write_bin(net, half=True):
    data = b''
    for _, module in order(net):
        weight = module.weight.detach().numpy()
        if half:
            raw = weight.astype('<f2').tobytes()
            data += struct.pack('<I', 0x01306B47) + raw + b'\0' * (-len(raw) % 4)
        else:
            data += struct.pack('<I', 0) + weight.astype('<f4').tobytes()
        data += module.bias.detach().numpy().astype('<f4').tobytes()
    return data
