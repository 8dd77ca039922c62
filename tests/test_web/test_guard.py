"""In front of Gradio: what is turned away, and what every answer carries."""
import asyncio
from types import SimpleNamespace

import pytest

from mmpd.web.guard import SLACK, Guard
from mmpd.web.limits import Limits

MOST = 1000 + SLACK


def ask(path='/', method='GET', headers=(), body=(), full=False):
    """(status, headers, text, what the application behind received)."""
    seen, sent, parts = [], [], list(body)

    async def behind(scope, receive, send):
        while method == 'POST':
            message = await receive()
            seen.append(message)
            if message['type'] == 'http.disconnect' or not message.get('more_body'):
                break
        await send({'type': 'http.response.start', 'status': 200, 'headers': [
            (b'Content-Security-Policy', b'default-src *')]})
        await send({'type': 'http.response.body', 'body': b'behind'})

    async def receive():
        part = parts.pop(0)
        return {'type': 'http.request', 'body': part, 'more_body': bool(parts)}

    async def send(message):
        sent.append(message)

    guard = Guard(behind, Limits(upload_mb=0.001), SimpleNamespace(full=full))
    scope = dict(type='http', path=path, method=method, headers=list(headers))
    asyncio.run(guard(scope, receive, send))
    return sent[0]['status'], sent[0]['headers'], sent[1]['body'].decode(), seen


@pytest.mark.parametrize('path', ['/', '/gradio_api/file=/x/lr.png', '/gradio_api/queue/data'])
def test_pages_pass_and_load_nothing_from_elsewhere(path):
    status, headers, text, _ = ask(path)
    assert (status, text) == (200, 'behind')
    policy = [value.decode() for key, value in headers if key.lower() == b'content-security-policy']
    assert len(policy) == 1 and "default-src 'self'" in policy[0]
    assert 'http' not in policy[0] and '*' not in policy[0]


@pytest.mark.parametrize('path, status', [
    ('/gradio_api/file=http://example.org/a', 403), ('/file=https:/x', 403),
    ('/gradio_api/file=HTTP://EXAMPLE.ORG', 403), ('/gradio_api/file=data:text/html,x', 403),
    ('/gradio_api/file=ftp://x/y', 403), ('/gradio_api/proxy=https://x.hf.space/', 404),
    ('/monitoring/summary', 404), ('/openapi.json', 404), ('/gradio_api/deep_link', 404)])
def test_addresses_are_not_fetched_for_anybody(path, status):
    assert ask(path)[0] == status


@pytest.mark.parametrize('headers, status', [
    ([(b'content-length', str(MOST).encode())], 200),
    ([(b'Content-Length', str(MOST + 1).encode())], 413),
    ([], 411), ([(b'content-length', b'-5')], 411), ([(b'content-length', b'many')], 411)])
def test_size_of_a_request(headers, status):
    answer = ask('/gradio_api/upload', 'POST', headers, [b'x'])
    assert answer[0] == status
    if status == 413:
        assert answer[2].startswith('expected at most 0.001 MB, got')
    if status != 200:
        assert not answer[3]


def test_a_request_that_is_longer_than_it_says_is_cut_off():
    _, _, _, seen = ask('/gradio_api/upload', 'POST', [(b'content-length', b'10')],
                        [bytes(MOST), b'x', b'more'])
    assert [message['type'] for message in seen] == ['http.request', 'http.disconnect']


@pytest.mark.parametrize('kind', ['lifespan', 'websocket'])
def test_what_is_no_request_goes_by(kind):
    seen = []

    async def behind(*args):
        seen.append(args)
    given = ({'type': kind}, object(), object())
    asyncio.run(Guard(behind, Limits(), SimpleNamespace(full=True))(*given))
    assert seen == [given]


def test_refusals_carry_the_policy_and_their_length():
    status, headers, text, _ = ask('/docs')
    headers = dict(headers)
    assert status == 404 and headers[b'content-length'] == str(len(text)).encode()
    assert b'content-security-policy' in headers
    assert headers[b'x-content-type-options'] == b'nosniff'


def test_no_uploads_while_the_disk_is_full():
    length = [(b'content-length', b'1')]
    assert ask('/gradio_api/upload', 'POST', length, [b'x'], full=True)[0] == 507
    assert ask('/gradio_api/queue/join', 'POST', length, [b'x'], full=True)[0] == 200
    assert ask('/gradio_api/upload', 'POST', length, [b'x'])[0] == 200
