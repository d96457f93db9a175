"""A headless Chromium for tests, spoken to in the WebDriver protocol; nothing to install."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')  # Debian, Ubuntu, GitHub's runners
ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'


def _binary() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def is_there() -> bool:
    return bool(shutil.which('chromedriver') and _binary())


class Browser:
    """One window.

    Args:
      port: of chromedriver.
    """

    def __init__(self, port: int):
        self._root = f'http://127.0.0.1:{port}'
        options = {
            'binary': _binary(),
            'args': [
                '--headless=new',
                '--no-sandbox',
                '--disable-gpu',
                '--window-size=1200,800',
                '--disable-dev-shm-usage',  # containers have little shared memory
            ],
        }
        wanted = {'capabilities': {'alwaysMatch': {'goog:chromeOptions': options}}}
        session = self._call('POST', '/session', wanted)['sessionId']
        self._root += f'/session/{session}'

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._root + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())['value']

    def open(self, path) -> None:
        self._call('POST', '/url', {'url': f'file://{path}'})
        self.wait(
            "return document.body.dataset.ready || document.getElementById('error').textContent"
        )

    def run(self, script):
        return self._call('POST', '/execute/sync', {'script': script, 'args': []})

    def wait(self, script, seconds=20):
        """Returns the script's value as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.05)
        raise TimeoutError(f'never true: {script}')

    def pick(self, selector, *paths) -> None:
        """Chooses files in a file input."""
        found = self._call('POST', '/element', {'using': 'css selector', 'value': selector})
        text = '\n'.join(map(str, paths))
        self._call('POST', f'/element/{found[ELEMENT]}/value', {'text': text})

    def narrow(self, width: int) -> None:
        """Shows pages as a screen of this width does; 0: as the window."""
        metrics = {'width': width, 'height': 800, 'deviceScaleFactor': 1, 'mobile': True}
        name = 'setDeviceMetricsOverride' if width else 'clearDeviceMetricsOverride'
        body = {'cmd': f'Emulation.{name}', 'params': metrics if width else {}}
        self._call('POST', '/goog/cdp/execute', body)

    def close(self) -> None:
        self._call('DELETE', '')


@contextlib.contextmanager
def started():
    """Yields a ``Browser``."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        ['chromedriver', f'--port={port}'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    browser = None
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
                break
            time.sleep(0.1)
        browser = Browser(port)
        yield browser
    finally:
        if browser is not None:
            browser.close()
        driver.terminate()
        driver.wait(10)
