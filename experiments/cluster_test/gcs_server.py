"""A server of Google Cloud Storage's JSON API in memory, with generations and preconditions.

Enough of it for gcsfs and tensorstore: objects are written whole (media, multipart, resumable),
read by ranges, listed, copied, moved and deleted. It can be slow or answer with an error, which no
emulator of the package index can. One bucket, this machine only, no credentials.
"""

import base64
from collections.abc import Iterator, Mapping
import contextlib
import hashlib
from http import server
import itertools
import json
import re
import sys
import threading
import time
from typing import Any
from urllib import parse

BUCKET = 'bucket'


class Store:
    """The objects and how the server behaves.

    Attributes:
      objects: name -> (content, generation).
      delay: seconds that a write takes.
      status: HTTP status that every request gets; 0: the right one.
      writes: how many objects were written.
      refused: how many requests got ``status``.
    """

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.delay, self.status, self.writes, self.refused = 0.0, 0, 0, 0
        self.lock = threading.RLock()
        self.uploads: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(time.time_ns() // 1000)

    def number(self) -> int:
        return next(self._numbers)

    def names(self, prefix: str = '') -> list[str]:
        """Returns the names of the objects below a prefix."""
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))

    def facts(self, name: str) -> dict[str, Any]:
        content, generation = self.objects[name]
        return {
            'kind': 'storage#object', 'name': name, 'bucket': BUCKET, 'size': str(len(content)),
            'generation': str(generation), 'metageneration': '1', 'etag': str(generation),
            'id': f'{BUCKET}/{name}/{generation}', 'contentType': 'application/octet-stream',
            'timeCreated': '2026-01-01T00:00:00.000Z', 'updated': '2026-01-01T00:00:00.000Z',
            'md5Hash': base64.b64encode(hashlib.md5(content).digest()).decode(),
            'storageClass': 'STANDARD',
        }  # fmt: skip

    def put(self, name: str, content: bytes, query: Mapping[str, str]) -> dict[str, Any] | None:
        """Writes an object; None where its precondition does not hold."""
        time.sleep(self.delay)
        with self.lock:
            now = self.objects.get(name, (b'', 0))[1]
            if int(query.get('ifGenerationMatch', now)) != now:
                return None
            self.objects[name] = content, self.number()
            self.writes += 1
            return self.facts(name)


class _Handler(server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    # One packet for head and body: two would wait 40 ms for the client's acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    store: Store

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, status: int, content: Any = b'', **headers: str) -> None:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers.setdefault('Content_Type', 'application/json')
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    def _refuse(self, status: int, reason: str) -> None:
        self._send(status, {'error': {'code': status, 'message': reason, 'errors': []}})

    def _body(self) -> bytes:
        if 'chunked' not in self.headers.get('Transfer-Encoding', ''):
            return self.rfile.read(int(self.headers.get('Content-Length') or 0))
        parts = []
        while size := int(self.rfile.readline().split(b';')[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b''.join(parts)

    def _answer(self) -> None:
        url = parse.urlsplit(self.path)
        query = {k: v[-1] for k, v in parse.parse_qs(url.query, keep_blank_values=True).items()}
        body = self._body()
        if self.store.status:
            self.store.refused += 1
            return self._refuse(self.store.status, 'as arranged')
        if url.path.startswith('/batch'):
            return self._batch(body)
        if url.path.startswith('/upload/'):
            return self._upload(query, body)
        match = re.fullmatch(r'(?:/download)?/storage/v1/b/([^/]+)(/o)?(?:/(.+))?', url.path)
        if match is None or match[1] != BUCKET:
            return self._refuse(404, 'notFound')
        if not match[2]:
            return self._send(200, {'kind': 'storage#bucket', 'name': BUCKET, 'id': BUCKET})
        if match[3] is None:
            return self._list(query)
        copied = re.fullmatch(r'(.+)/(rewriteTo|copyTo|moveTo)/(?:b/[^/]+/)?o/(.+)', match[3])
        if copied:
            return self._copy(parse.unquote(copied[1]), copied[2], parse.unquote(copied[3]))
        return self._object(parse.unquote(match[3]), query)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _answer

    def _put(self, name: str, content: bytes, query: Mapping[str, str]) -> None:
        facts = self.store.put(name, content, query)
        if facts is None:
            return self._refuse(412, 'conditionNotMet')
        return self._send(200, facts, x_goog_generation=facts['generation'])

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        kind = query.get('uploadType')
        if kind == 'media':
            return self._put(query['name'], body, query)
        if kind == 'multipart':
            found = re.search(r'boundary="?([^";]+)', self.headers['Content-Type'])
            assert found is not None
            boundary = found[1].strip("'").encode()
            _, facts, content, *_ = body.split(b'--' + boundary)
            facts, content = (re.split(rb'\r?\n\r?\n', one, maxsplit=1)[1] for one in
                              (facts, content))  # fmt: skip
            content = re.sub(rb'\r?\n\Z', b'', content)
            return self._put(json.loads(facts)['name'], content, query)
        if 'upload_id' not in query:
            number = str(self.store.number())
            name = query.get('name') or json.loads(body)['name']
            self.store.uploads[number] = {'name': name, 'parts': [], 'query': query}
            place = f'http://{self.headers["Host"]}{self.path.partition("?")[0]}'
            where = f'{place}?uploadType=resumable&upload_id={number}'
            return self._send(200, b'', Location=where)
        upload = self.store.uploads[query['upload_id']]
        upload['parts'].append(body)
        whole = b''.join(upload['parts'])
        if self.headers.get('Content-Range', '').endswith('/*'):
            return self._send(308, b'', Range=f'bytes=0-{max(0, len(whole) - 1)}')
        return self._put(upload['name'], whole, upload['query'])

    def _list(self, query: Mapping[str, str]) -> None:
        prefix, mark = query.get('prefix', ''), query.get('delimiter', '')
        items, folders = [], set()
        with self.store.lock:
            for name in self.store.names(prefix):
                if name < query.get('startOffset', '') or (
                    'endOffset' in query and query['endOffset'] and name >= query['endOffset']
                ):
                    continue
                rest = name[len(prefix) :]
                if mark and mark in rest:
                    folders.add(prefix + rest.split(mark)[0] + mark)
                else:
                    items.append(self.store.facts(name))
        self._send(200, {'kind': 'storage#objects', 'items': items, 'prefixes': sorted(folders)})

    def _copy(self, source: str, how: str, target: str) -> None:
        with self.store.lock:
            if source not in self.store.objects:
                return self._refuse(404, 'notFound')
            self.store.objects[target] = self.store.objects[source][0], self.store.number()
            if how == 'moveTo':
                del self.store.objects[source]
            facts = self.store.facts(target)
        if how != 'rewriteTo':
            return self._send(200, facts)
        size = facts['size']
        done = {'done': True, 'resource': facts, 'objectSize': size, 'totalBytesRewritten': size}
        return self._send(200, done)

    def _object(self, name: str, query: Mapping[str, str]) -> None:
        with self.store.lock:
            if name not in self.store.objects:
                return self._refuse(404, 'notFound')
            content, generation = self.store.objects[name]
            if int(query.get('ifGenerationMatch', generation)) != generation:
                return self._refuse(412, 'conditionNotMet')
            if self.command == 'DELETE':
                del self.store.objects[name]
                return self._send(204)
            facts = self.store.facts(name)
        if query.get('ifGenerationNotMatch') == str(generation):
            return self._send(304)
        if query.get('alt') != 'media':
            return self._send(200, facts)
        headers = {
            'x_goog_generation': str(generation), 'ETag': str(generation),
            'x_goog_stored_content_length': str(len(content)),
            'Content_Type': 'application/octet-stream',
        }  # fmt: skip
        found = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''))
        if not found:
            return self._send(200, content, **headers)
        if found[1]:
            first, last = int(found[1]), int(found[2] or len(content))
        else:
            first, last = max(0, len(content) - int(found[2])), len(content)
        last = min(last, len(content) - 1)
        if first >= len(content):
            return self._send(416, b'', **headers)
        headers['Content_Range'] = f'bytes {first}-{last}/{len(content)}'
        return self._send(206, content[first : last + 1], **headers)

    def _batch(self, body: bytes) -> None:
        found = re.search(r'boundary="?([^";]+)', self.headers['Content-Type'])
        assert found is not None
        answers = []
        for part in body.split(b'--' + found[1].encode())[1:-1]:
            number = re.search(rb'(?i)content-id: *<?([^>\r\n]+)', part)
            wanted = re.search(rb'DELETE \S+/o/(\S+)', part)
            assert wanted is not None
            name = parse.unquote(parse.urlsplit(wanted[1].decode()).path)
            with self.store.lock:
                gone = self.store.objects.pop(name, None) is not None
            answers.append(
                '--answers\r\nContent-Type: application/http\r\n'
                f'Content-ID: <response-{number[1].decode() if number else ""}>\r\n\r\n'
                f'HTTP/1.1 {"204 No Content" if gone else "404 Not Found"}\r\n'
                'Content-Length: 0\r\n\r\n\r\n'
            )
        text = ''.join(answers) + '--answers--\r\n'
        self._send(200, text.encode(), Content_Type='multipart/mixed; boundary=answers')


class _Server(server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client was killed
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving() -> Iterator[tuple[Store, dict[str, str]]]:
    """Runs a server while the block runs.

    Returns:
      Its store, and the environment of clients: gcsfs, tensorstore, orbax.
    """
    store = Store()
    handler = type('Handler', (_Handler,), {'store': store})
    one = _Server(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    url = f'http://127.0.0.1:{one.server_address[1]}'
    environment = {
        'STORAGE_EMULATOR_HOST': url, 'TENSORSTORE_GCS_HTTP_URL': url,
        'GOOGLE_CLOUD_PROJECT': 'test', 'GCE_METADATA_HOST': '127.0.0.1:1',
        'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false', 'FSSPEC_GCS_TOKEN': 'anon',
        'FSSPEC_GS_TOKEN': 'anon',
    }  # fmt: skip
    try:
        yield store, environment
    finally:
        one.shutdown()
        one.server_close()
        thread.join()
