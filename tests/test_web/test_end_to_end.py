"""The page in a browser: Chromium without a window, a server as the command starts it.

``make test-web`` runs it; without Gradio, Selenium or Chromium it is skipped.
"""
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from png_bomb import bomb

pytest.importorskip('gradio', reason='Gradio is not installed (make test-web)')
webdriver = pytest.importorskip('selenium.webdriver', reason='Selenium is not installed')
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')
pytestmark = [pytest.mark.timeout(900), pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason='chromium or chromedriver is missing')]
WAIT = 240  # s; the machine may be busy
SCALE = 4


def pooled(image):
    h, w = image.shape[0] // SCALE, image.shape[1] // SCALE
    return image.astype(float).reshape(h, SCALE, w, SCALE, -1).mean((1, 3))


def read(source):
    return np.asarray(Image.open(source))


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """Address of a page with one model, a tiny network."""
    from mmagic.registry import MODELS
    models = tmp_path_factory.mktemp('models')
    torch.manual_seed(0)
    network = MODELS.build(dict(type='RRDBNet', in_channels=3, out_channels=3, mid_channels=4,
                                num_blocks=1, growth_channels=4, upscale_factor=SCALE))
    torch.save(network.state_dict(), models / 'tiny.pth')
    log = (tmp_path_factory.mktemp('log') / 'server.log').open('w+')
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'tools' / 'web.py'), '--port', '0', '--models', str(models),
         '--zoo', '--upload-mb', '1', '--megapixels', '1', '--lr-megapixels', '0.01'],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}, cwd=models,
        stdout=subprocess.PIPE, stderr=log, text=True)
    line = process.stdout.readline()
    if not line.startswith('mmpd-web: http://127.0.0.1:'):
        log.seek(0)
        pytest.fail(f'the server did not start: {line} {log.read()}')
    yield line.split()[1]
    process.terminate()
    process.wait(30)
    log.seek(0)
    text = log.read()
    log.close()
    assert 'Traceback' not in text, text


@contextmanager
def browser(folder, width=1280):
    folder.mkdir(exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage',
                     f'--user-data-dir={folder / "profile"}'):
        options.add_argument(argument)
    options.add_experimental_option('prefs', {'download.default_directory': str(folder)})
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(
            width=width, height=1000, deviceScaleFactor=1, mobile=width < 500))
        yield Visitor(driver, folder)
    finally:
        driver.quit()


class Visitor:
    """What somebody does on the page."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder

    def find(self, css):
        return self.driver.find_elements('css selector', css)

    def wait(self, what, condition):
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            try:
                found = condition()
            except Exception as error:  # elements come and go
                found, what = None, f'{what} ({type(error).__name__})'
            if found:
                return found
            time.sleep(0.2)
        pytest.fail(f'waited in vain for {what}; the page says {self.find("body")[0].text}')

    def open(self, address):
        self.driver.get(address)
        self.wait('the page', lambda: self.find('#run') and self.find('#lr input[type=file]'))

    def choose(self, field, path):
        """Upload a file; the preview, or the message, of it."""
        for button in self.find(f'#{field} button[aria-label*="emove"], '
                                f'#{field} button[aria-label="Clear"]'):
            button.click()
        box = self.wait('the upload field', lambda: self.find(f'#{field} input[type=file]'))
        box[0].send_keys(str(path))

    def preview(self, field, path):
        self.choose(field, path)
        self.wait(f'the preview of {path}', lambda: self.find(f'#{field}-preview figure'))

    def source(self, words):
        self.wait('the choice', lambda: [label.click() or label for label in self.find(
            '#source label') if words in label.text])

    def own(self, lr, sr):
        self.preview('lr', lr)
        self.source('I have one')
        self.preview('sr', sr)

    def run(self):
        self.find('#run')[0].click()
        return self.wait('figures or a message', lambda: [
            item.text for item in self.find('#figures table, #message .pd-message')
            if item.is_displayed()])[0]

    def download(self):
        before = set(self.folder.glob('*.png'))
        self.find('#download')[0].click()
        return self.wait('the download', lambda: [
            path for path in set(self.folder.glob('*.png')) - before])[0]

    def says(self, words):
        return self.wait(words, lambda: [
            item.text for item in self.find('.pd-message, .toast-body, .toast-wrap, #lr, #sr')
            if words.lower() in item.text.lower()])[0]

    def hosts(self):
        """Addresses that the browser asked for anything."""
        messages = [json.loads(entry['message'])['message']
                    for entry in self.driver.get_log('performance')]
        return {message['params']['request']['url'] for message in messages
                if message['method'] == 'Network.requestWillBeSent'}


def pictures(folder, seed=0, size=24):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    lr = rng.integers(60, 200, (size, size, 3), dtype=np.uint8)
    noise = rng.normal(8, 10, (SCALE * size, SCALE * size, 3))
    sr = (lr.repeat(SCALE, 0).repeat(SCALE, 1) + noise).clip(0, 255).round().astype(np.uint8)
    Image.fromarray(lr).save(folder / f'lr{seed}.png')
    Image.fromarray(sr).save(folder / f'sr{seed}.png')
    return folder / f'lr{seed}.png', folder / f'sr{seed}.png'


@pytest.mark.parametrize('width', [1280, 390])
def test_upload_run_slide_download(server, tmp_path, width):
    lr, sr = pictures(tmp_path / 'in')
    with browser(tmp_path / 'home', width) as visitor:
        visitor.open(server)
        visitor.own(lr, sr)
        assert 'PSNR(LR) after exact' in visitor.run().replace('\n', ' ').replace('\t', ' ')
        images = visitor.wait('the slider', lambda: [
            image for image in visitor.find('#slider img') if image.size['width'] > 200])
        assert len(images) == 2

        def visible():  # how much of the picture before
            return visitor.driver.execute_script(
                'return getComputedStyle(arguments[0]).clipPath', images[-1])
        start = visible()
        handle = visitor.find('#slider [role=none] .inner, #slider .inner')[0]
        webdriver.ActionChains(visitor.driver).drag_and_drop_by_offset(handle, -80, 0).perform()
        visitor.wait('the slider to move', lambda: visible() != start)

        assert len(visitor.find('#panels img')) == 7
        wide = visitor.driver.execute_script('return document.documentElement.scrollWidth')
        assert wide <= width

        file = visitor.download()
        assert file.name == 'lr0_consistent.png'
        image = read(file)
        assert image.dtype == np.uint8 and (pooled(image) == read(lr)).all()
        assert (image != read(sr)).any()
        after = images[-1].get_attribute('src')  # what the slider shows is that very file
        shown = urllib.request.urlopen(after).read()
        before = urllib.request.urlopen(images[0].get_attribute('src')).read()
        assert file.read_bytes() in (shown, before)
        assert {True} == {(read(io.BytesIO(data)) == other).all() for data, other in (
            (shown, image if shown == file.read_bytes() else read(sr)),
            (before, read(sr) if shown == file.read_bytes() else image))}

        elsewhere = [url for url in visitor.hosts()
                     if not url.startswith((server, 'data:', 'blob:', 'chrome:',
                                            'chrome-untrusted:', 'about:'))]
        assert not elsewhere


def test_a_model_of_the_folder(server, tmp_path):
    lr, _ = pictures(tmp_path / 'in')
    with browser(tmp_path / 'home') as visitor:
        visitor.open(server)
        assert 'tiny.pth' in visitor.find('#model input')[0].get_attribute('value')
        assert visitor.run() == 'choose an LR picture first'
        visitor.preview('lr', lr)
        visitor.run()
        visitor.wait('figures', lambda: visitor.find('#figures table')[0].is_displayed())
        assert (pooled(read(visitor.download())) == read(lr)).all()


def test_bad_files_are_refused_with_a_message(server, tmp_path):
    lr, sr = pictures(tmp_path / 'in')
    files = {'notes.txt': b'hello', 'model.pth': b'\x80\x04}', 'text.png': b'hello',
             'large.png': np.random.default_rng(0).bytes(1_100_000), 'bomb.png': bomb(9000, 9000),
             'huge.png': bomb(30_000, 30_000, rows=10)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert len(files['bomb.png']) < 1_000_000
    with browser(tmp_path / 'home') as visitor:
        visitor.open(server)
        for name, words in (('notes.txt', 'invalid file type'), ('model.pth', 'invalid file type'),
                            ('large.png', 'exceed the maximum allowed size'),
                            ('text.png', 'text.png: not a readable picture'),
                            ('bomb.png', 'expected at most 1 megapixels, got 9000x9000'),
                            ('huge.png', 'expected at most 1 megapixels, got')):
            visitor.open(server)
            visitor.choose('lr', tmp_path / name)
            visitor.says(words)
        # and to whoever runs it all the same
        visitor.source('I have one')
        visitor.preview('sr', sr)
        assert visitor.run().startswith('huge.png: expected at most 1 megapixels')
        visitor.open(server)
        visitor.own(sr, lr)
        assert 'are they swapped?' in visitor.run()


def test_two_visitors_get_their_own(server, tmp_path):
    pairs = [pictures(tmp_path / 'in', seed) for seed in (1, 2)]
    with browser(tmp_path / 'one') as one, browser(tmp_path / 'two') as two:
        for visitor, pair in zip((one, two), pairs, strict=True):
            visitor.open(server)
            visitor.own(*pair)
        for visitor in (one, two):
            visitor.find('#run')[0].click()  # both wait now
        for visitor, (lr, _) in zip((two, one), pairs[::-1], strict=True):
            visitor.wait('figures', lambda visitor=visitor: visitor.find(
                '#figures table')[0].is_displayed())
            file = visitor.download()
            assert file.name == f'{lr.stem}_consistent.png'
            assert (pooled(read(file)) == read(lr)).all()


def status(address):
    try:
        with urllib.request.urlopen(address) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_nothing_but_its_own_files_is_handed_out(server, tmp_path):
    lr, sr = pictures(tmp_path / 'in')
    with browser(tmp_path / 'home') as visitor:
        visitor.open(server)
        visitor.own(lr, sr)
        visitor.run()
        address = visitor.wait('the slider', lambda: visitor.find('#slider img'))[0].get_attribute(
            'src')
    assert status(address) == 200
    prefix, path = address.split('/gradio_api/file=')
    assert prefix == server
    result = os.path.dirname(path)
    assert len(os.path.basename(result)) == 43  # 256 bits
    for wrong in (result, os.path.dirname(result), f'{result}/../', f'{result[:-1]}x/before.png',
                  '/etc/passwd', f'{result}/../../../../etc/passwd', str(lr),
                  str(ROOT / 'setup.py'), '%2e%2e/%2e%2e/etc/passwd', 'http://127.0.0.1/'):
        assert status(f'{server}/gradio_api/file={wrong}') in (400, 403, 404), wrong
    # announced and not sent: the answer comes before the body is read
    upload = http.client.HTTPConnection(urllib.parse.urlsplit(server).netloc, timeout=30)
    upload.request('POST', '/gradio_api/upload', headers={'Content-Length': '1200000'})
    assert upload.getresponse().status == 413
    upload.close()
    for page in ('monitoring', 'gradio_api/proxy=https://x.hf.space/', 'docs', 'openapi.json'):
        assert status(f'{server}/{page}') == 404, page
