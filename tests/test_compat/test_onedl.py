"""onedl-mmengine reads a refused checkpoint again without protection; here it does not."""
import pickle

import pytest
import torch
from mmengine.runner import checkpoint

from mmpd.compat import onedl


class Harmful:

    def __reduce__(self):
        return print, ('code of the checkpoint ran', )


def falls_back(file, map_location=None, weights_only=None):
    """What onedl-mmengine's own function does."""
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        return torch.load(file, map_location=map_location, weights_only=False)


def test_what_torch_refuses_stays_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, '_safe_torch_load', falls_back, raising=False)
    torch.save(dict(state_dict=Harmful()), tmp_path / 'bad.pth')
    torch.save(dict(state_dict=dict(w=torch.ones(2))), tmp_path / 'good.pth')
    checkpoint._safe_torch_load(tmp_path / 'bad.pth')
    assert 'ran' in capsys.readouterr().out
    onedl.block_unsafe_reload()
    assert checkpoint._safe_torch_load is onedl.load
    with pytest.raises(pickle.UnpicklingError):
        checkpoint._safe_torch_load(tmp_path / 'bad.pth', weights_only=True)
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # torch >= 2.6
        with pytest.raises(pickle.UnpicklingError):
            checkpoint._safe_torch_load(tmp_path / 'bad.pth')
    assert 'ran' not in capsys.readouterr().out
    loaded = checkpoint._safe_torch_load(tmp_path / 'good.pth', map_location='cpu')
    assert torch.equal(loaded['state_dict']['w'], torch.ones(2))


def test_mmengine_itself_is_left_alone(monkeypatch):
    monkeypatch.delattr(checkpoint, '_safe_torch_load', raising=False)
    onedl.block_unsafe_reload()
    assert not hasattr(checkpoint, '_safe_torch_load')


@pytest.mark.parametrize('installed', [True, False])
def test_tensors_say_that_they_are_no_musa_tensors_to_onedl_mmcv(monkeypatch, installed):
    def version(name):
        assert name == 'onedl-mmcv'
        if not installed:
            raise onedl.PackageNotFoundError(name)
        return '2.3.6'

    monkeypatch.setattr(onedl, 'version', version)
    monkeypatch.delattr(torch.Tensor, 'is_musa', raising=False)
    onedl.tell_tensors_from_musa()
    assert hasattr(torch.ones(1), 'is_musa') is installed
    if installed:
        assert torch.ones(1).is_musa is False
        del torch.Tensor.is_musa
