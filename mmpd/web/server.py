"""Serves the page: Gradio behind the guard, uvicorn in front."""
import os
import signal
import sys
from contextlib import contextmanager

from ..errors import InputError, MissingPackage
from .guard import Guard
from .storage import Storage
from .worker import Worker

__all__ = ['application', 'serve']


def _import_page(root):
    """``page``, after telling Gradio where files lie and that it calls nobody."""
    os.environ.update(
        GRADIO_TEMP_DIR=str(root), GRADIO_EXAMPLES_CACHE=str(root / 'examples'),
        GRADIO_ANALYTICS_ENABLED='False', HF_HUB_OFFLINE='1', HF_HUB_DISABLE_TELEMETRY='1')
    try:
        import gradio
    except ImportError as error:
        raise MissingPackage('the web page needs Gradio: pip install "mmpd[web]", in an '
                             'environment of its own ("make web" in a clone)') from error
    from . import page
    return gradio, page


@contextmanager
def application(models, limits):
    """The page as an ASGI application, with its process and folder, which go at the end.

    Args:
        models (dict[str, str]): Of :func:`mmpd.web.catalogue.find_models`.
        limits (Limits): What a visitor may ask for.

    Yields:
        Callable: ASGI.
    """
    storage, worker = Storage(limits), Worker(limits, bool(models))
    try:
        gradio, page = _import_page(storage.root)
        from fastapi import FastAPI
        inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        gradio.mount_gradio_app(
            inner, page.build_page(worker, storage, models, limits), path='/', footer_links=[],
            run_history=False, show_error=False, max_file_size=limits.upload_bytes,
            ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
            theme=page.theme(), css=page.CSS)
        worker.start()
        storage.start()
        yield Guard(inner, limits, storage)
    finally:
        worker.close()
        storage.close()


def serve(models, limits, host='127.0.0.1', port=7860):
    """Serve until interrupted.

    Args:
        models (dict[str, str]): Of :func:`mmpd.web.catalogue.find_models`.
        limits (Limits): What a visitor may ask for.
        host (str): Address to listen at; 0.0.0.0 for everybody.
        port (int): Its port; 0 for a free one.

    Raises:
        InputError: The address cannot be had.
        MissingPackage: Gradio is not installed.
    """
    import socket
    listening = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(f'cannot listen at {host}:{port}: {error}') from None
    # uvicorn hands signals on once it has ended; this one would end the process on the spot
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with listening, application(models, limits) as app:
        import uvicorn
        shown = f'[{host}]' if ':' in host else host
        print(f'mmpd-web: http://{shown}:{listening.getsockname()[1]} (Ctrl-C ends it)', flush=True)
        config = uvicorn.Config(app, log_level='warning', access_log=False, ws='none',
                                timeout_keep_alive=30, timeout_graceful_shutdown=3,
                                server_header=False)
        uvicorn.Server(config).run(sockets=[listening])
