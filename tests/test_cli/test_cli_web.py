"""mmpd-web: ports and limits are options."""
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from refusals import refused

from mmpd.cli import web as web_tool
from mmpd.web.limits import Limits


@pytest.mark.parametrize('argv, match', [
    (['--port', '65536'], '--port: expected 0 to 65535, got 65536'),
    (['--port', '-1'], '--port: expected 0 to 65535, got -1')])
def test_ports_of_the_page(argv, match):
    refused(web_tool._main, argv, match=match)


def test_limits_of_the_page_are_options(monkeypatch):
    served = []
    monkeypatch.setitem(sys.modules, 'mmpd.web.server', SimpleNamespace(
        serve=lambda *args: served.append(args)))
    monkeypatch.setattr(web_tool, 'find_models', lambda names, folder: (names, folder))
    web_tool._main(['--port', '65535', '--upload-mb', '0.5', '--host', '::1', '--zoo'])
    web_tool._main(['--models', 'here', '--queue', '3'])
    (models, limits, host, port), usual = served
    assert (models, limits.upload_bytes, host, port) == (([], None), 500_000, '::1', 65535)
    assert usual == ((None, Path('here')), Limits(queue=3), '127.0.0.1', 7860)
