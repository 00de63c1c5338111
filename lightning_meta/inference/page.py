"""The contact sheet as one HTML file, with its pictures inside, for a reader in the dark or in the light."""

import base64
from collections.abc import Sequence
from html import escape
from string import Template

from lightning_meta.escaping import printable
from lightning_meta.inference.predictions import Predictions

MOST = 1000  # pictures on a page
LIKELIEST = 3  # classes of a picture that are shown

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --paper: #fff; --ink: #1a1a1a; --faint: #5f6368; --line: #c0c4c8; --wrong: #b00020; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e8eaed; --faint: #a4a9af; --line: #4a4f55; --wrong: #ff8a80; }
}
body { margin: 1.5rem; background: var(--paper); color: var(--ink); font: 15px/1.4 system-ui, sans-serif; }
h1 { font-size: 1.3rem; }
ul.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem; padding: 0; }
ul.sheet > li { list-style: none; padding: .6rem; border: 1px solid var(--line); border-radius: .4rem; }
ul.sheet > li.wrong { border: 3px dashed var(--wrong); }
img { display: block; width: 7rem; height: 7rem; object-fit: contain; margin-bottom: .4rem; image-rendering: auto; }
p { margin: .2rem 0; overflow-wrap: anywhere; }
.wrong strong { color: var(--wrong); }
small { color: var(--faint); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { text-align: left; }
th, td { padding: .2rem .6rem; border: 1px solid var(--line); text-align: right; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
$head
<ul class="sheet">
$items
</ul>
</main>
</body>
</html>
""")


def html_page(predictions: Predictions, thumbnails: Sequence[bytes], title: str) -> str:
    """A page that needs no other file: the first `MOST` pictures, accuracy and confusion.

    A wrong prediction is marked by a cross, words and a dashed frame. Names of files and classes are escaped, and the
    page forbids itself scripts and any connection.

    Args:
        predictions: of all pictures.
        thumbnails: PNG files of the first pictures.
        title: heading of the page.
    """
    shown = min(len(thumbnails), len(predictions.files), MOST)
    head = [f"<p>{_text(note)}</p>" for note in predictions.about.get("notes", [])]
    if predictions.accuracy is not None:
        head += [f"<p>{_text(str(predictions.accuracy))}</p>", _confusion(predictions)]
    if shown < len(predictions.files):
        head.append(f"<p>The first {shown} of {len(predictions.files)} pictures.</p>")
    items = [_item(predictions, place, thumbnails[place]) for place in range(shown)]
    return PAGE.substitute(title=_text(title), head="\n".join(head), items="\n".join(items))


def _item(predictions: Predictions, place: int, thumbnail: bytes) -> str:
    predicted, truth = predictions.predicted[place], predictions.truth[place]
    wrong = truth is not None and truth != predicted
    mark = "" if truth is None else "\u2717 " if wrong else "\u2713 "
    p = predictions.probabilities[place]
    likeliest = ", ".join(f"{predictions.classes[k]} {100 * p[k]:.1f} %" for k in (-p).argsort()[:LIKELIEST])
    verdict = f"<p><strong>wrong, is {_text(str(truth))}</strong></p>" if wrong else ""
    name = _text(predictions.files[place])
    source = base64.b64encode(thumbnail).decode()
    return (
        f'<li{" class=wrong" if wrong else ""}><img src="data:image/png;base64,{source}" alt="{name}">'
        f"<p><strong>{mark}{_text(predicted)}</strong></p>{verdict}<p>{_text(likeliest)}</p>"
        f"<p><small>{name}</small></p></li>"
    )


def _confusion(predictions: Predictions) -> str:
    counts = predictions.confusion
    if counts is None:
        return ""
    names = [_text(name) for name in predictions.classes]
    header = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "\n".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{count}</td>" for count in row)}</tr>'
        for name, row in zip(names, counts, strict=True)
    )
    return (
        '<div class="scroll" tabindex="0"><table><caption>Pictures by true class (rows) and predicted class (columns)'
        f"</caption>\n<tr><td></td>{header}</tr>\n{rows}\n</table></div>"
    )


def _text(text: str) -> str:
    return escape(printable(text))
