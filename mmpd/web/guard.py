"""What stands in front of Gradio: sizes of requests, paths, and what a browser may load."""

__all__ = ['Guard']

# nothing from elsewhere: no font, script, picture or call, whatever Gradio's page asks for
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
          "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
          "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
          "base-uri 'self'; form-action 'self'; frame-ancestors 'self'")
HEADERS = ((b'content-security-policy', POLICY.encode()), (b'x-content-type-options', b'nosniff'),
           (b'referrer-policy', b'no-referrer'))
SLACK = 64 * 1024  # of a request beside its file: the form around it, settings
# Gradio fetches an address for whoever asks, and keeps pages that the visitor never opened here
CLOSED = ('/gradio_api/proxy=', '/proxy=', '/gradio_api/deep_link', '/monitoring',
          '/gradio_api/runs', '/gradio_api/reload', '/docs', '/redoc', '/openapi.json',
          '/gradio_api/openapi.json')
FILES = ('/gradio_api/file=', '/file=')


class Guard:
    """ASGI middleware.

    Args:
        app (Callable): The ASGI application behind it.
        limits (Limits): ``upload_mb``.
        storage (Storage): Whose ``full`` closes the door to uploads.
    """

    def __init__(self, app, limits, storage):
        self.app, self.limits, self.storage = app, limits, storage

    async def __call__(self, scope, receive, send):
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        most, seen = self.limits.upload_bytes + SLACK, 0

        async def counted():
            nonlocal seen
            message = await receive()
            seen += len(message.get('body', b''))
            if seen > most:  # whatever the header said
                return {'type': 'http.disconnect'}
            return message

        async def marked(message):
            if message['type'] == 'http.response.start':
                kept = [header for header in message.get('headers', ())
                        if header[0].lower() != b'content-security-policy']
                message = {**message, 'headers': [*kept, *HEADERS]}
            await send(message)

        await self.app(scope, counted, marked)

    def refusal(self, scope):
        """(status, message) if a request is turned away, else None."""
        path = scope.get('path', '').lower()
        headers = {key.lower(): value for key, value in scope.get('headers', ())}
        if path.startswith(CLOSED):
            return 404, 'there is no such page'
        for prefix in FILES:
            target = path[len(prefix):] if path.startswith(prefix) else ''
            if '://' in target or target.startswith(('http:', 'https:', 'data:')):
                return 403, 'this page hands out its own files only'
        if scope['method'] in ('GET', 'HEAD', 'OPTIONS'):
            return None
        length = headers.get(b'content-length', b'')
        if not length.isdigit():
            return 411, 'expected a request that says how long it is'
        if int(length) > self.limits.upload_bytes + SLACK:
            return 413, (f'expected at most {self.limits.upload_mb:g} MB, got '
                         f'{int(length) / 1e6:.3g} MB')
        if self.storage.full and 'upload' in path:
            return 507, 'too many files of other visitors are here; come back in some minutes'
        return None


async def _answer(send, status, message):
    body = message.encode()
    await send({'type': 'http.response.start', 'status': status, 'headers': [
        (b'content-type', b'text/plain; charset=utf-8'),
        (b'content-length', str(len(body)).encode()), *HEADERS]})
    await send({'type': 'http.response.body', 'body': body})
