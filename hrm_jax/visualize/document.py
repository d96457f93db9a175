"""The frame of the HTML pages: one file each, nothing from the network, data apart from markup."""

from collections.abc import Iterable
import html
import json
import pathlib
from typing import Any

STATIC = pathlib.Path(__file__).parent / 'static'
_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'{images}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script type="application/json" id="facts">{facts}</script>
{data}
<script>{script}</script>
</body>
</html>
"""


def make(
    title: str,
    body: str,
    facts: Any,
    style: str,
    scripts: Iterable[str],
    data: str = '',
    images: bool = False,
) -> str:
    """Returns the text of a page.

    Args:
      title: plain text.
      body: markup in front of the scripts.
      facts: JSON-able; scripts read it from the element ``facts``.
      style, scripts: names of files in static/.
      data: further markup, of elements that hold data.
      images: whether the page draws images (from data and blobs).
    """
    return _FRAME.format(
        images='; img-src data: blob:' if images else '',
        title=html.escape(title),
        style=(STATIC / style).read_text('utf-8'),
        body=body,
        # A '<' in JSON can only stand in a string; escaped it cannot end the script element.
        facts=json.dumps(facts).replace('<', '\\u003c'),
        data=data,
        script='\n'.join((STATIC / name).read_text('utf-8') for name in scripts),
    )
