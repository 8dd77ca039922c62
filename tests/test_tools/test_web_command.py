"""mmpd-web: what is wrong is one line and code 2, before anything is served."""
import socket
import sys

import pytest

from mmpd.cli import web


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as error:
        web.main(list(argv))
    message = capsys.readouterr().err
    assert error.value.code == 2
    return message


@pytest.mark.parametrize('argv, expected', [
    (['--port', '70000'], '--port: expected 0 to 65535, got 70000'),
    (['--seconds', '0'], 'seconds: expected a positive number, got 0'),
    (['--queue', '0'], 'queue: expected an integer of at least 1'),
    (['--models', 'nowhere'], '--models nowhere: expected a folder'),
    (['--zoo', 'realesrgan-x4plas'], 'did you mean realesrgan-x4plus'),
    (['--queue', 'many'], "invalid int value: 'many'")])
def test_wrong_arguments(capsys, argv, expected):
    message = refused(capsys, *argv)
    assert expected in message and 'Traceback' not in message


def test_a_port_in_use(capsys):
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = other.getsockname()[1]
        message = refused(capsys, '--zoo', '--port', str(port))
    assert f'cannot listen at 127.0.0.1:{port}' in message and message.count('\n') == 1


def test_without_gradio(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    message = refused(capsys, '--zoo', '--port', '0')
    assert 'the web page needs Gradio: pip install "mmpd[web]"' in message
    assert message.count('\n') == 1
