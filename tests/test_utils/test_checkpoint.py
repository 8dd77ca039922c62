"""load_completely: everything or an error, and a line in the log."""
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel, PretrainedInit
from torch import nn

from mmpd.cli.weights import check_checkpoint
from mmpd.errors import InputError, WeightsMismatch
from mmpd.models.generators import GLEANNet, StyleGAN2Prior
from mmpd.utils import checkpoint as room
from mmpd.utils.checkpoint import compare, load_completely, match_model, sizes_of

TINY = dict(style_channels=12, num_mlps=1, channels={4: 6, 8: 4, 16: 4})


def network(seed=0, width=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))


def full_checkpoint(path, **parts):
    """As mmengine's runner saves it, with the history that torch >= 2.6 refuses by itself."""
    history = HistoryBuffer()
    history.update(0.5)
    state = {f'{prefix}.{key}': value for prefix, module in parts.items()
             for key, value in module.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(iter=3),
                    message_hub=dict(log_scalars=dict(loss=history))), path)
    return str(path)


def bare_checkpoint(path, module):
    torch.save(module.state_dict(), path)
    return str(path)


def same(one, other):
    return all(torch.equal(a, b) for a, b in
               zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize('prefix', ['ema', 'ema.'])
def test_one_part_of_a_full_checkpoint(tmp_path, prefix, monkeypatch):
    lines = []
    monkeypatch.setattr(room, 'print_log',
                        lambda message, logger: lines.append((message, logger)))
    source, other = network(1), network(2)
    path = full_checkpoint(tmp_path / 'a.pth', gen=other, ema=source)
    target = network(3)
    load_completely(target, path, prefix)
    assert same(target, source)
    assert lines == [(f'prior: 7 of 7 tensors loaded from {path} (prefix "{prefix}")', 'current')]


def test_the_averaged_generator_of_mmagics_stylegan2_training(tmp_path):
    """Its keys are ``generator_ema.module.x``, beside a counter ``generator_ema.steps``."""
    from mmagic.models.base_models import ExponentialMovingAverage
    source, target = StyleGAN2Prior(16, **TINY), StyleGAN2Prior(16, **TINY)
    path = full_checkpoint(tmp_path / 'a.pth', generator_ema=ExponentialMovingAverage(source))
    assert 'generator_ema.steps' in torch.load(path)['state_dict']
    load_completely(target, path, 'generator_ema')
    assert same(target, source)


def test_safetensors(tmp_path):
    from safetensors.torch import save_file
    source, target = network(1), network(2)
    save_file(source.state_dict(), tmp_path / 'a.safetensors')
    load_completely(target, str(tmp_path / 'a.safetensors'))
    assert same(target, source)


def test_a_bare_state_dict_and_one_of_a_ddp_run(tmp_path):
    source, target = network(1), network(2)
    load_completely(target, bare_checkpoint(tmp_path / 'a.pth', source))
    assert same(target, source)
    wrapped = {f'ema.module.{key}': value for key, value in source.state_dict().items()}
    torch.save(wrapped, tmp_path / 'b.pth')
    target = network(2)
    load_completely(target, str(tmp_path / 'b.pth'), 'ema')
    assert same(target, source)


def test_incomplete_or_differing_checkpoints_change_nothing(tmp_path):
    source = network(1)
    partial = {key: value for key, value in source.state_dict().items() if key != '1.weight'}
    torch.save(partial, tmp_path / 'partial.pth')
    torch.save({**source.state_dict(), '2.weight': torch.ones(1)}, tmp_path / 'more.pth')
    bare_checkpoint(tmp_path / 'wide.pth', network(1, width=5))
    for name, message in (
            ('partial.pth', '6 of 7 tensors match.*"1.weight" is not in the file'),
            ('more.pth', '"2.weight" of the file is not in the model'),
            ('wide.pth', r'"0.weight" is \(5, 3, 3, 3\) in the file and \(3, 3, 3, 3\) in the')):
        target = network(2)
        with pytest.raises(RuntimeError, match=message):
            load_completely(target, str(tmp_path / name))
        assert same(target, network(2)), name


def test_a_prefix_that_matches_nothing_names_those_there_are(tmp_path):
    path = full_checkpoint(tmp_path / 'a.pth', generator=network(), discriminator=network())
    with pytest.raises(RuntimeError, match='begin with "generator_ema.".*discriminator, generator'):
        load_completely(network(), path, 'generator_ema')
    with pytest.raises(RuntimeError, match='begin with "gen."'):  # not a part of a name
        load_completely(network(), path, 'gen')


def test_missing_file_and_unreachable_address(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match='no file .*nothing.pth'):
        load_completely(network(), str(tmp_path / 'nothing.pth'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    for variable in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(FileNotFoundError, match='cannot download http://127.0.0.1:9/prior.pth'
                                                '.*Without a network put the file at .*hub'):
        load_completely(network(), 'http://127.0.0.1:9/prior.pth')


class Payload:
    """Unpickling it without torch's protection would run code."""

    def __reduce__(self):
        return (exec, ('raise SystemExit("executed")',))


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / 'text.pth').write_text('hello')
    (tmp_path / 'empty.pth').write_bytes(b'')
    torch.save(dict(state_dict={'w': torch.ones(1)}, meta=Payload()), tmp_path / 'evil.pth')
    (tmp_path / 'old.pth').write_bytes(pickle.dumps(Payload()))
    for name in ('text.pth', 'empty.pth', 'evil.pth', 'old.pth'):
        with pytest.raises(RuntimeError, match=f'{name} cannot be read'):
            load_completely(network(), str(tmp_path / name))
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(RuntimeError, match='holds no state dict'):
        load_completely(network(), str(tmp_path / 'list.pth'))


class Restorer(BaseModel):
    """Stands for a model type: mmengine's runner calls its init_weights before training."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.generator(inputs)


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
def test_init_cfg_of_a_restorer_loads_its_prior_once(tmp_path, kind):
    source = StyleGAN2Prior(16, **TINY)
    path = full_checkpoint(tmp_path / 'prior.pth', generator_ema=source)
    init_cfg = dict(type=kind, checkpoint=path, prefix='generator_ema')
    assert room.pretrained_cfg(init_cfg) is init_cfg
    model = Restorer(GLEANNet(8, 16, rrdb_channels=4, num_rrdbs=1, init_cfg=init_cfg, **TINY))
    prior = model.generator.generator
    assert not same(prior, source)  # not by construction: testing needs no prior
    encoder = {key: value.clone() for key, value in model.generator.encoder.state_dict().items()}
    model.init_weights()
    assert same(prior, source)
    assert all(torch.equal(encoder[key], value)
               for key, value in model.generator.encoder.state_dict().items())
    with torch.no_grad():
        prior.constant_input.input.add_(1)
    for module in (model, model.generator, prior):
        module.init_weights()  # must not undo training
        assert not same(prior, source)


def test_constructing_needs_no_file_but_initialising_does(tmp_path):
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth'))
    net = GLEANNet(8, 16, rrdb_channels=4, num_rrdbs=1, init_cfg=init_cfg, **TINY)
    with pytest.raises(FileNotFoundError, match='none.pth'):
        net.init_weights()


def test_a_prior_for_another_size_is_named(tmp_path):
    path = bare_checkpoint(tmp_path / 'a.pth', StyleGAN2Prior(8, **TINY))
    with pytest.raises(RuntimeError, match='prior: the checkpoint has out_size 8, the model '
                                           'out_size 16; .* of .* tensors match'):
        load_completely(StyleGAN2Prior(16, **TINY), path)
    with pytest.raises(RuntimeError, match='out_size 8, num_mlps 1, style_channels 12, the model '
                                           'out_size 32, num_mlps 2, style_channels 8; '):
        load_completely(StyleGAN2Prior(32, style_channels=8, num_mlps=2, channels={
            4: 6, 8: 4, 16: 4, 32: 4}), path)


def test_a_discriminator_for_another_size_is_named():
    from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator
    with torch.device('meta'):
        nets = {size: StyleGAN2Discriminator(size) for size in (8, 32)}
    assert {size: sizes_of(net.state_dict()) for size, net in nets.items()} == {
        8: dict(in_size=8), 32: dict(in_size=32)}


@pytest.mark.parametrize('size', [8, 16, 64])
def test_sizes_of_priors(size):
    with torch.device('meta'):
        prior = StyleGAN2Prior(size, style_channels=12, num_mlps=3)
    assert sizes_of(prior.state_dict()) == {
        'out_size': size, 'num_mlps': 3, 'style_channels': 12, 'width at 4 px': 512}


def test_infinite_weights_are_named(tmp_path):
    source = network(1)
    source[0].bias.data[1] = torch.inf
    path = bare_checkpoint(tmp_path / 'a.pth', source)
    with pytest.raises(RuntimeError, match='prior: .*1 of 3 values of "0.bias" are infinite'):
        load_completely(network(), path)


def test_parts_that_training_alone_needs_are_compared_when_it_does():
    model = nn.ModuleDict(dict(generator=nn.Linear(1, 1), discriminator=nn.Linear(1, 1),
                               perceptual_loss=nn.Linear(1, 1)))
    state = {f'generator.module.{key}': torch.zeros(1) for key in ('weight', 'bias')}
    averaged = {f'generator_ema.{key}': torch.zeros(1) for key in ('weight', 'bias', 'steps')}

    def found(state, **kwargs):
        differences, compared = match_model(model, state, **kwargs)
        return sorted(differences.missing), differences.unexpected, len(compared)

    lacking = [f'discriminator.{key}' for key in ('bias', 'weight')]
    assert found(dict(state)) == found({**state, **averaged}) == ([], [], 2)
    assert found(dict(state), training=True) == ([], [], 2)  # a discriminator may begin anew
    assert found(dict(state), training=True, resuming=True) == (lacking, [], 4)
    half = {**state, 'discriminator.weight': torch.zeros(1)}
    assert found(half) == ([], [], 2) and found(half, training=True) == (lacking[:1], [], 4)
    model['generator_ema'] = nn.Linear(1, 1)
    assert found({**state, **averaged}) == ([], [], 4)
    assert found(dict(state)) == (['generator_ema.bias', 'generator_ema.weight'], [], 4)


NO_STATE_DICTS = dict(
    nothing=(dict(), 'state_dict is empty'),
    number=(dict(a=3), "has 'a' of the type int"),
    list=([1], 'state_dict is a list'),
    names=({'a': torch.ones(1), 3: torch.ones(1)}, 'has the int 3 for a name'),
    numpy=(dict(a=torch.ones(2).numpy()), "has 'a' of the type ndarray"),
    sparse=(dict(a=torch.eye(2).to_sparse()), "has a sparse tensor as 'a'"),
    meta=(dict(a=torch.ones(2, device='meta')), "has a tensor without data as 'a'"))


@pytest.mark.parametrize('kind', NO_STATE_DICTS)
def test_what_holds_no_state_dict(tmp_path, kind):
    """mmengine would load what it can, without a word, and go on with random weights."""
    content, reason = NO_STATE_DICTS[kind]
    torch.save(dict(state_dict=content, meta={}), tmp_path / 'a.pth')
    found = f'a.pth.* holds no state dict: expected names and dense tensors, .*{reason}'
    with pytest.raises(WeightsMismatch, match=found):
        room.read_state_dict(tmp_path / 'a.pth')
    with pytest.raises(InputError, match=found):
        check_checkpoint(str(tmp_path / 'a.pth'), 'load_from')


@pytest.mark.filterwarnings('ignore:.*quantize')
def test_quantised_weights_are_none():
    bad = torch.quantize_per_tensor(torch.ones(2), .1, 0, torch.qint8)
    with pytest.raises(WeightsMismatch, match="has a quantised tensor as 'a'"):
        room.state_dict_in(dict(a=bad), 'a.pth')


def test_what_differs_and_what_stays_random():
    own = {'a.b.w': torch.ones(2), 'a.b.v': torch.ones(1), 'a.c.w': torch.ones(1),
           'a.n.num_batches_tracked': torch.tensor(0), 'd': torch.ones(1)}
    found = {'a.b.w': torch.ones(3), 'd': torch.zeros(1), 'e': torch.ones(1)}
    differences = compare(own, found)
    assert differences == (['a.b.v', 'a.c.w'], ['e'], {'a.b.w': ((3,), (2,))})
    assert differences.count == 4 and differences.unloaded == 'a.b (2), a.c (1)'
    assert differences.first == ('"a.b.w" is (3,) in the file and (2,) in the model; "a.b.v" is '
                                 'not in the file; "e" of the file is not in the model')
    assert not compare(own, own).count
    for kind in (torch.int8, torch.bool, torch.complex64):  # copied, they would be cut off
        differences = compare(own, {**own, 'd': own['d'].to(kind)})
        assert differences.first == f'"d" is {kind} in the file and torch.float32 in the model'
    for kind in (torch.half, torch.bfloat16, torch.double):
        assert not compare(own, {**own, 'd': own['d'].to(kind)}).count
