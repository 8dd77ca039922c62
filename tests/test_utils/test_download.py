"""Downloads against a server on this machine that breaks off, cuts short, and lies."""
import hashlib
import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch

from mmpd.errors import WeightsMismatch, WeightsNotFound
from mmpd.utils import download
from mmpd.utils.download import cache_path, fetch, hash_in

BODY = bytes(range(256)) * 4000


class Server(BaseHTTPRequestHandler):
    """Serves ``files``; the first ``breaks`` answers end in the middle of the body."""

    files, breaks, etag, asked, length = {}, 0, '"1"', [], True

    def do_GET(self):
        cls = type(self)
        cls.asked.append((self.path, self.headers.get('Range')))
        if self.path not in cls.files:
            self.send_error(404)
            return
        body, start = cls.files[self.path], 0
        ranged = self.headers.get('Range')
        if ranged and self.headers.get('If-Range') == cls.etag:
            start = int(ranged.removeprefix('bytes=').removesuffix('-'))
        self.send_response(206 if start else 200)
        if cls.length:
            self.send_header('Content-Length', str(len(body) - start))
        if cls.etag:
            self.send_header('ETag', cls.etag)
        self.end_headers()
        end = len(body)
        if cls.breaks:
            cls.breaks -= 1
            end = start + (len(body) - start) // 2
        self.wfile.write(body[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    for variable in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(variable, raising=False)
    handler = type('Handler', (Server,), dict(files={}, asked=[]))
    httpd = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01, ), daemon=True)
    thread.start()
    handler.url = f'http://127.0.0.1:{httpd.server_port}'
    yield handler
    httpd.shutdown()
    httpd.server_close()


def whole_files(folder):
    """All files in the cache but locks."""
    return [path for path in folder.rglob('*') if path.is_file() and path.suffix != '.lock']


def test_the_cache_is_keyed_by_the_full_address(server, tmp_path):
    server.files.update({'/a/x.pth': b'first', '/b/x.pth': b'second', '/a/x.pth?v=2': b'third'})
    for _ in range(2):
        assert fetch(f'{server.url}/a/x.pth').read_bytes() == b'first'
        assert fetch(f'{server.url}/b/x.pth').read_bytes() == b'second'
        assert fetch(f'{server.url}/a/x.pth?v=2').read_bytes() == b'third'
    assert len(server.asked) == 3  # each once
    assert all(path.name == 'x.pth' for path in whole_files(tmp_path))
    # torch's own cache of that name is another file, perhaps
    torchs = tmp_path / 'home' / 'hub' / 'checkpoints' / 'x.pth'
    torchs.write_bytes(b'of some other address')
    assert fetch(f'{server.url}/a/x.pth').read_bytes() == b'first'


def named(body, stem='net'):
    return f'{stem}-{hashlib.sha256(body).hexdigest()[:8]}.pth'


def test_the_hash_in_a_name_is_verified(server, tmp_path):
    good = named(BODY)
    server.files[f'/{good}'] = BODY
    path = fetch(f'{server.url}/{good}')
    assert path == tmp_path / 'home/hub/checkpoints' / good  # torch's own place
    server.files['/net-00000000.pth'] = BODY
    with pytest.raises(WeightsMismatch, match='net-00000000.pth.*its name says 00000000'):
        fetch(f'{server.url}/net-00000000.pth')
    assert whole_files(tmp_path) == [path]


def test_a_cached_file_with_another_hash_is_replaced(server, monkeypatch):
    """What torch left of an interrupted or changed download, which it would take for whole."""
    said = []
    monkeypatch.setattr(download, 'print_log', lambda text, **_: said.append(text))
    good = named(BODY)
    server.files[f'/{good}'] = BODY
    target = cache_path(f'{server.url}/{good}')
    target.parent.mkdir(parents=True)
    target.write_bytes(BODY[:1000])
    assert fetch(f'{server.url}/{good}').read_bytes() == BODY
    assert 'is not the one in its name' in said[0]


@pytest.mark.parametrize('terminal', [True, False])
def test_a_terminal_shows_how_far_it_is(server, monkeypatch, terminal):
    shown = io.StringIO()
    shown.isatty = lambda: terminal
    monkeypatch.setattr(download, 'sys', SimpleNamespace(stderr=shown))
    monkeypatch.setattr(download, 'CHUNK', len(BODY) // 2)
    server.files['/x.pth'] = BODY
    fetch(f'{server.url}/x.pth')
    assert shown.getvalue() == '\r50 %\r100 %\n' * terminal


@pytest.mark.parametrize('length', [len(BODY), None])
def test_the_size_is_said_once_if_the_server_tells_it(server, monkeypatch, length):
    said = []
    monkeypatch.setattr(download, 'print_log', lambda text, **_: said.append(text))
    server.files['/x.pth'], server.breaks, server.length = BODY, 1 if length else 0, length
    path = fetch(f'{server.url}/x.pth')
    assert path.read_bytes() == BODY
    size = ' (1.0 MiB)' if length else ''
    assert said == [f'downloading {server.url}/x.pth{size} to {path}']


def test_a_file_put_there_by_hand_is_taken_without_asking(server):
    for name in ('x.pth', named(BODY)):
        url = f'{server.url}/{name}'
        with pytest.raises(WeightsNotFound, match='404') as stop:
            fetch(url)
        assert f'cannot download {url}' in str(stop.value)
        assert f'put the file at {cache_path(url)}' in str(stop.value)
        cache_path(url).write_bytes(BODY)  # the folder is there already
        count = len(server.asked)
        assert fetch(url).read_bytes() == BODY and len(server.asked) == count


@pytest.mark.parametrize('etag', ['"1"', None], ids=['resumed', 'from the beginning'])
def test_a_broken_connection_is_taken_up_again(server, etag, tmp_path):
    server.files['/x.pth'], server.breaks, server.etag = BODY, 2, etag
    assert fetch(f'{server.url}/x.pth').read_bytes() == BODY
    ranges = [ranged for _, ranged in server.asked]
    half, more = len(BODY) // 2, len(BODY) // 2 + len(BODY) // 4
    assert ranges == ([None, f'bytes={half}-', f'bytes={more}-'] if etag else [None] * 3)
    assert len(whole_files(tmp_path)) == 1


def test_a_file_that_changed_meanwhile_is_not_pieced_together(server, monkeypatch):
    server.files['/x.pth'], server.breaks = BODY, 1
    receive = download.urlopen

    def change(request, **options):
        if request.has_header('Range'):
            server.files['/x.pth'], server.etag = BODY[::-1], '"2"'
        return receive(request, **options)

    monkeypatch.setattr(download, 'urlopen', change)
    assert fetch(f'{server.url}/x.pth').read_bytes() == BODY[::-1]


@pytest.mark.parametrize('etag', ['"1"', None])
def test_one_that_never_comes_whole_leaves_nothing(server, etag, tmp_path):
    """torch.hub keeps such a file, and loads it the next time."""
    server.files['/x.pth'], server.breaks, server.etag = BODY, 100, etag
    with pytest.raises(WeightsNotFound, match=r'after \d+ of 1024000 bytes'):
        fetch(f'{server.url}/x.pth')
    assert not whole_files(tmp_path)


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(WeightsNotFound, match=r'expected an address, got http://\[::1/x.pth'):
        fetch('http://[::1/x.pth')
    with pytest.raises(WeightsNotFound, match='cannot download http://127.0.0.1:9/x.pth'):
        fetch('http://127.0.0.1:9/x.pth')
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    with pytest.raises(WeightsNotFound, match='cannot download.*x.pth'):
        fetch('http://127.0.0.1:9/x.pth')


@pytest.mark.parametrize('name, expected', [
    ('net-5bff5b44.pth', '5bff5b44'), ('net_20210407_150045-618c9024.pth', '618c9024'),
    ('net-5bff5b44.pth.tar', '5bff5b44'), ('net-12345678.pth', '12345678'),
    ('net-20230412.pth', ''), ('net-abc.pth', ''), ('inception-2015-12-05.pt', ''),
    ('net-5bff5b44-v2.pth', ''), ('net.pth', '')])
def test_hashes_and_dates_in_names(name, expected):
    assert hash_in(name) == expected


@pytest.mark.parametrize('path, name', [
    ('/a%2F..%2Fb.pth', 'b.pth'), ('/..', 'download'), ('/', 'download'),
    ('/%00x.pth', '_x.pth'), ('/net.pth#part', 'net.pth')])
def test_no_address_leads_out_of_the_cache(path, name, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    found = cache_path(f'http://host{path}')
    assert found.name == name and found.parents[1] == tmp_path / 'hub' / 'checkpoints'


def test_processes_that_want_the_same_file_get_it_once(server):
    server.files['/x.pth'] = BODY
    results = []
    threads = [threading.Thread(target=lambda: results.append(fetch(f'{server.url}/x.pth')))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len(server.asked) == 1
    assert results[0].read_bytes() == BODY and torch.hub.get_dir() in str(results[0])
