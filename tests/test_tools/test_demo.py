"""What the demo says and draws; ``make demo`` itself trains for minutes."""
import importlib.util
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmpd.models.heads import PDHead

ROOT = Path(__file__).resolve().parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/demo/{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


run, real, twins = load('run'), load('real_weights'), load('twins')


class Stub(nn.Module):
    """Enlarges by copying and adds a pattern that is not consistent with the LR."""

    def __init__(self, operator):
        super().__init__()
        self.pd_head = PDHead(operator=operator, mean=0, std=255)

    def generator(self, lr):
        sr = nn.functional.interpolate(lr, scale_factor=real.SCALE)
        return sr + torch.linspace(-0.2, 0.2, sr[0, 0].numel()).view(sr.shape[-2:])


@pytest.mark.parametrize('kind', real.OPERATORS)
def test_files_are_consistent_as_the_lr_was_made(kind):
    gt = np.random.default_rng(0).integers(40, 200, (32, 48, 3), dtype=np.uint8)
    lr = real.degrade(gt, kind)
    assert lr.shape == (8, 12, 3) and lr.dtype == np.uint8
    plain, pd = real.super_resolve(lr, Stub(real.OPERATORS[kind]), real.MADE_BY[kind])
    before, after = (real.measure(image, gt, lr, kind) for image in (plain, pd))
    assert before['MaxErr_LR'] > 20
    assert after['MaxErr_LR'] <= (0 if kind == 'average pooling' else 2)
    assert after['PSNR_LR'] > before['PSNR_LR'] + 20


def test_the_picture_shows_the_part_with_errors_of_the_whole():
    gt = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    kind = 'bicubic, PIL'
    lr = real.degrade(gt, kind)
    wrong = 255 - gt
    panel = real.panel(lr, {'GT again': gt, 'wrong': wrong}, gt, kind, (16, 16, 32, 32))
    height, width = panel.shape[:2]
    assert panel.dtype == np.uint8 and width > 3 * 192 and height > 2 * 192
    # second row: black where A x is the LR, bright where it is not
    row = panel[-100]
    cell = 198
    assert row[cell + 20:cell + 180].max() < 20 and row[2 * cell + 20:2 * cell + 180].max() > 100


def test_a_table_counts_wins_and_names_exact_files():
    rows = {(kind, method): [dict(PSNR=p, SSIM=p / 100, PSNR_LR=200., MaxErr_LR=0.)]
            for kind in real.OPERATORS for method, p in zip(real.METHODS, (3, 1, 2), strict=True)}
    assert real.better(rows) == dict(PSNR=2, SSIM=2)
    text = real.table(dict(rows=[dict(lr='x', method='m', PSNR=1., SSIM=.5, PSNR_LR=200.,
                                      MaxErr_LR=0.)]))
    assert '| x | m | 1.00 | 0.5000 | exact | 0 / 255 |' in text


LINE = ('11/24 23:18:58 - mmengine - INFO - Iter(train) [ {}/20]  generator.lr: 1.0e-03  '
        'loss_pix: 0.{}351  loss_gan: 0.0007  time: 3.1\n')


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize('stream, expected', [
    (io.StringIO, 'GLEAN: training 10% 50% 100%, loss 0.2351, 7 s\n'), (Terminal, None)])
def test_a_training_takes_one_line(stream, expected):
    out = stream()
    progress = twins.ProgressLine('GLEAN', 20, out)
    for done in (2, 3, 10, 20):
        progress(LINE.format(done, done // 10))
        progress('another line of the log\n')
    progress.finish(7)
    text = out.getvalue()
    assert text.count('\n') == 1 and text.endswith('\n')
    if expected:
        assert text == expected
    else:
        assert '\rGLEAN: 10/20 iterations, loss 0.1351, 0 s left' in text


def test_logs_go_to_files_and_failures_are_shown(tmp_path, capfd):
    script = tmp_path / 'tool.py'
    script.write_text('import sys; print("line", sys.argv[1]); sys.exit(int(sys.argv[1]))')
    lines = []
    assert twins.run_tool([script, 0], tmp_path / 'a/log', lines.append) > 0
    assert (tmp_path / 'a/log').read_text() == ''.join(lines) == 'line 0\n'
    with pytest.raises(twins.ToolFailed, match='ended with 3, its log is .*\nline 3'):
        twins.run_tool([script, 3], tmp_path / 'log')
    assert capfd.readouterr().out == ''


def test_threads_sleep_while_they_wait_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    run.share_the_machine()
    assert os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'
    monkeypatch.delenv('OMP_WAIT_POLICY')
    run.share_the_machine()
    assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'


def test_the_readme_picture_is_small_enough():
    path = ROOT / 'docs/real_esrgan.png'
    assert path.stat().st_size <= 800_000 and Image.open(path).size[0] > 800
