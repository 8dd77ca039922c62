"""The page's events and its server, without Gradio: parts that only note what they are given.

What a browser makes of the page is in test_end_to_end.py.
"""
import importlib.util
import inspect
import os
import signal
import socket
import sys
from types import ModuleType, SimpleNamespace

import pytest
from conftest import ROOT

from mmpd.errors import InputError, MissingPackage
from mmpd.web import guard, replies, server
from mmpd.web.jobs import Job, Result
from mmpd.web.limits import Limits
from mmpd.web.operators import CHOICES, USUAL


class Part:
    """A part of the page, inside which others may stand."""

    made = []

    def __init__(self, kind, args, options):
        self.kind, self.args, self.options, self.events = kind, args, options, []
        Part.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def change(self, function, inputs, outputs, **options):
        self.events.append(SimpleNamespace(function=function, inputs=inputs, outputs=outputs,
                                           options=options))

    click = change

    def queue(self, **options):
        self.queued = options


class StandIn(ModuleType):
    """Any name is a kind of part."""

    themes = SimpleNamespace(Base=lambda **options: options)
    mounted = None

    @staticmethod
    def update(**options):
        return options

    def mount_gradio_app(self, app, page, **options):
        self.mounted = app, page, options

    def __getattr__(self, kind):
        if kind.startswith('__'):
            raise AttributeError(kind)
        return lambda *args, **options: Part(kind, args, options)


def module_of_the_page():
    """``mmpd.web.page`` upon the stand-in, beside the one that Gradio's may be."""
    spec = importlib.util.spec_from_file_location('mmpd.web.page_without_gradio',
                                                  ROOT / 'mmpd' / 'web' / 'page.py')
    module, before = importlib.util.module_from_spec(spec), sys.modules.get('gradio')
    sys.modules['gradio'] = StandIn('gradio')
    try:
        spec.loader.exec_module(module)
    finally:
        if before is None:
            del sys.modules['gradio']
        else:
            sys.modules['gradio'] = before
    return module


PAGE = module_of_the_page()
MODELS = dict(small='/models/small.pth', large='/models/large.pth')
FIGURES = dict(operator='A', made_by=None, found=None, scale=4, size=(8, 8), psnr_lr_before=30.,
               psnr_lr_after=40., lr_values=12, lr_values_unmatched=3)
RESULT = Result('x.png', 'before.png', [('panel.png', 'LR, y')], FIGURES)


class Storage:
    def __init__(self):
        self.removed, self.root, self.full = [], None, False

    def new_folder(self):
        return 'folder'

    def remove(self, folder):
        self.removed.append(folder)


def handlers(answer):
    """Handlers whose worker returns, or raises, ``answer``; its jobs are in ``jobs``."""
    jobs = []

    def run(job, folder):
        jobs.append((job, folder))
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = PAGE.Handlers(SimpleNamespace(run=run), Storage(), MODELS, Limits())
    found.jobs = jobs
    return found


FIELDS = dict(lr='lr.png', sr='sr.png', source=replies.OWN, model=None, operator=USUAL,
              strength=1, noise=0, low=0, high=255)


@pytest.mark.parametrize('change, all_wanted', [
    ({}, True), (dict(strength=0.5), False), (dict(noise=2), False)])
def test_a_result_fills_the_page(change, all_wanted):
    found = handlers(RESULT)
    answer, shown, slider, download, figures, panels = found.run(*{**FIELDS, **change}.values())
    assert (answer, shown) == ('', dict(visible=True))
    assert slider == ('before.png', 'x.png') and panels == RESULT.panels
    assert download == dict(value='x.png', interactive=True)
    assert figures == replies.summary(FIGURES, all_wanted)
    assert found.jobs[0][1] == 'folder' and not found.storage.removed


@pytest.mark.parametrize('fields, error, told, removed', [
    (dict(lr=None), None, 'choose an LR picture first', []),
    ({}, InputError('the SR\n  is smaller'), 'the SR is smaller', ['folder']),
    ({}, ValueError('no such scale'), 'no such scale', ['folder']),
    ({}, RuntimeError('/root/secret'), PAGE.BROKEN, ['folder'])])
def test_a_refusal_empties_it(fields, error, told, removed, caplog):
    found = handlers(error)
    answer, shown, slider, download, figures, panels = found.run(*{**FIELDS, **fields}.values())
    assert answer == replies.message(told, 'refused') and shown == dict(visible=False)
    assert slider is panels is None and figures == ''
    assert download == dict(value=None, interactive=False)
    assert found.storage.removed == removed
    assert ('/root/secret' in caplog.text) == isinstance(error, RuntimeError)  # for the host


def test_a_preview_that_breaks_tells_the_visitor_nothing(tmp_path, monkeypatch, caplog):
    found = handlers(RESULT)
    assert 'role="alert"' in found.look(tmp_path / 'none.png')
    assert found.look(None) == ''

    def broken(path, limits):
        raise RuntimeError('/root/secret')
    monkeypatch.setattr(PAGE, 'preview', broken)
    assert found.look('x.png') == replies.message(PAGE.BROKEN, 'refused')
    assert '/root/secret' in caplog.text


def built(models=MODELS, limits=None):
    """(page, its parts by elem_id or label)."""
    Part.made.clear()
    page = PAGE.build_page(SimpleNamespace(run=lambda job, folder: RESULT), Storage(), models,
                           limits or Limits())
    return page, {part.options.get('elem_id') or part.options.get('label') or part.args: part
                  for part in Part.made}


@pytest.mark.parametrize('models', [MODELS, {}], ids=['models', 'none'])
def test_where_there_are_models_one_is_chosen_first(models):
    _, parts = built(models)
    source, model, own = parts['source'], parts['model'], parts['own']
    assert source.args[0] == ([replies.MODEL, replies.OWN] if models else [replies.OWN])
    assert source.options['value'] == source.args[0][0]
    assert model.args[0] == list(models) and model.options['value'] in (*models, None)
    assert model.options['visible'] == bool(models) != own.options['visible']
    event, = source.events
    assert event.outputs == [model, own]
    assert event.function(replies.MODEL) == (dict(visible=True), dict(visible=False))
    assert event.function(replies.OWN) == (dict(visible=False), dict(visible=True))
    assert event.options['queue'] is False  # it waits for no computation


def test_the_three_steps_are_named():
    built()
    headings = [part.args[0].splitlines()[0] for part in Part.made if part.kind == 'Markdown']
    assert headings[0] == '# Consistent super-resolution'
    assert [text[:5] for text in headings[1:4]] == ['## 1.', '## 2.', '## 3.']
    assert 'what was changed' in headings[4]


def fields_of(parts):
    """What the page sends when nothing was changed, by the names that the server gives them."""
    event, = parts['run'].events
    names = list(inspect.signature(replies.requested).parameters)[2:]
    values = {}
    for name, part in zip(names, event.inputs, strict=True):
        values[name] = part.options.get('value', part.args[-1] if part.args else None)
    return event, values


def test_untouched_fields_are_a_job_with_the_usual_settings():
    _, parts = built()
    event, values = fields_of(parts)
    assert [values['lr'], values['sr']] == [None, None]
    job = replies.requested(MODELS, Limits(), **{**values, 'lr': 'lr.png'})
    assert job == Job('lr.png', model='/models/small.pth')
    assert event.outputs == [parts[name] for name in (
        'message', 'results', 'slider', 'download', 'figures', 'panels')]
    filled = event.function(*{**values, 'lr': 'lr.png'}.values())
    assert len(filled) == len(event.outputs) and filled[0] == ''
    for name in ('results', 'download'):  # not before there is a result
        assert False in (parts[name].options.get('visible'), parts[name].options.get('interactive'))


def test_every_value_that_can_be_chosen_is_one_that_a_job_takes():
    _, parts = built()
    assert parts['operator'].args[0] == list(CHOICES)
    strength = parts['strength']
    low, high, _ = strength.args
    for value in (low, high, low + strength.options['step']):
        assert Job('a', 'b', strength=value)
    assert (low, high) == (0, 1) and (high - low) / strength.options['step'] >= 10
    assert Job('a', 'b', noise_std=parts['noise of the LR'].options['maximum'])
    bounds = [parts[f'{name} value'] for name in ('lowest', 'highest')]
    assert Job('a', 'b', bounds=(bounds[0].options['minimum'], bounds[1].options['maximum']))
    assert [part.options['maximum'] - part.options['minimum'] for part in bounds] == [255, 255]


def test_both_uploads_are_looked_at_as_soon_as_they_are_there(tmp_path):
    limits = Limits(upload_mb=1.5, megapixels=2.5, lr_megapixels=0.5, seconds=7, keep_minutes=9)
    _, parts = built(limits=limits)
    for name in ('lr', 'sr'):
        event, = parts[name].events
        assert (event.inputs, event.outputs) == (parts[name], parts[f'{name}-preview'])
        assert 'no longer here' in event.function(tmp_path / 'none.png')
    told, = (part.args[0] for part in Part.made if part.kind == 'HTML' and part.args)
    for text in ('1.5 MB', '2.5 megapixels', 'an LR for a model: 0.5', '7 s', '9 minutes'):
        assert text in told


def test_one_computation_at_a_time_and_nothing_for_programs():
    page, parts = built(limits=Limits(queue=3))
    assert page.queued == dict(max_size=3, api_open=False)
    assert page.options['analytics_enabled'] is False
    events = [event for part in Part.made for event in part.events]
    assert len(events) == 4
    assert {event.options['api_visibility'] for event in events} == {'private'}
    work = parts['run'].events[0].options
    assert work['concurrency_limit'] == 1 and work['show_progress_on'] == [parts['message']]
    looks = [part.events[0].options for part in (parts['lr'], parts['sr'])]
    assert looks[0] == looks[1] and looks[0]['concurrency_id'] != work['concurrency_id']
    assert 'fonts.googleapis' not in str(PAGE.theme()) and 'system-ui' in PAGE.theme()['font']


@pytest.fixture
def stack(monkeypatch):
    """Gradio, FastAPI and uvicorn as stand-ins; worker and storage that note what is done."""
    noted = SimpleNamespace(calls=[], app=None, config=None)

    class Noting:
        def __init__(self, name, args):
            self.name, self.args, self.root = name, args, ROOT / 'nowhere'

        def start(self):
            noted.calls.append(f'{self.name} starts')

        def close(self):
            noted.calls.append(f'{self.name} ends')

    class Uvicorn(ModuleType):
        @staticmethod
        def Config(app, **options):
            noted.app, noted.config = app, options
            return options

        class Server:
            def __init__(self, config):
                pass

            def run(self, sockets):
                noted.address = sockets[0].getsockname()
                sockets[0].listen()  # as uvicorn does
                with socket.create_connection(noted.address[:2], timeout=5) as client:
                    sockets[0].accept()[0].close()  # the port is then in use for a minute
                    assert client.recv(1) == b''

    noted.gradio = StandIn('gradio')
    fastapi = ModuleType('fastapi')
    fastapi.FastAPI = lambda **options: options
    for name, module in (('gradio', noted.gradio), ('fastapi', fastapi),
                         ('uvicorn', Uvicorn('uvicorn')), ('mmpd.web.page', PAGE)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr('mmpd.web.page', PAGE, raising=False)
    for name in ('Worker', 'Storage'):
        monkeypatch.setattr(server, name, lambda *args, name=name: noted.calls.append(
            (name, args[1:])) or Noting(name, args))
    for name in ('GRADIO_TEMP_DIR', 'GRADIO_EXAMPLES_CACHE', 'GRADIO_ANALYTICS_ENABLED',
                 'HF_HUB_OFFLINE', 'HF_HUB_DISABLE_TELEMETRY'):
        monkeypatch.setenv(name, 'before')
    before = signal.getsignal(signal.SIGTERM)
    yield noted
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize('models', [MODELS, {}], ids=['models', 'none'])
def test_the_application_is_the_page_behind_the_guard(stack, models):
    limits = Limits(upload_mb=3)
    with server.application(models, limits) as app:
        inner, page, options = stack.gradio.mounted
        assert isinstance(app, guard.Guard) and app.app is inner and app.limits is limits
        assert stack.calls == [('Storage', ()), ('Worker', (bool(models), )), 'Worker starts',
                               'Storage starts']
        assert set(inner.values()) == {None}  # FastAPI's own pages
        assert page.kind == 'Blocks' and options['path'] == '/'
        assert options['max_file_size'] == 3_000_000
        for name in ('run_history', 'show_error', 'ssr_mode', 'enable_monitoring', 'pwa',
                     'mcp_server'):
            assert options[name] is False, name
        assert os.environ['GRADIO_TEMP_DIR'] == str(ROOT / 'nowhere')
        assert os.environ['GRADIO_EXAMPLES_CACHE'].startswith(os.environ['GRADIO_TEMP_DIR'])
        assert (os.environ['HF_HUB_OFFLINE'], os.environ['GRADIO_ANALYTICS_ENABLED']) == (
            '1', 'False')
    assert stack.calls[-2:] == ['Worker ends', 'Storage ends']


def test_what_was_started_ends_where_the_page_cannot_be_built(stack, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(MissingPackage, match=r'pip install "mmpd\[web\]"'):
        with server.application({}, Limits()):
            pass
    assert stack.calls[-2:] == ['Worker ends', 'Storage ends']


@pytest.mark.parametrize('host, shown', [('127.0.0.1', '127.0.0.1'), ('::1', '[::1]')])
def test_the_server_says_its_address_and_ends_with_the_process(stack, capsys, host, shown):
    if ':' in host:
        try:
            socket.create_server((host, 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip('no IPv6 here')
    server.serve({}, Limits(), host, 0)
    assert stack.address[0] == host
    assert capsys.readouterr().out.startswith(f'mmpd-web: http://{shown}:{stack.address[1]} ')
    assert isinstance(stack.app, guard.Guard) and stack.calls[-1] == 'Storage ends'
    assert stack.config['access_log'] is stack.config['server_header'] is False
    with pytest.raises(SystemExit) as ended:
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)
    assert ended.value.code == 0


def test_an_address_that_cannot_be_had_is_named(stack):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f'cannot listen at 127.0.0.1:{port}'):
            server.serve({}, Limits(), '127.0.0.1', port)
    assert not stack.calls
    for _ in range(2):  # at once, although the port was just in use
        server.serve({}, Limits(), '127.0.0.1', port)
