"""``report.html``: one file that needs nothing but a browser, and that a person wants to read."""

from __future__ import annotations

import base64
import hashlib

from featherweight.contracts import Story
from featherweight.report import figures
from featherweight.report.attempts import attempts
from featherweight.report.channels import channels
from featherweight.report.costs import costs
from featherweight.report.deployment import deployment
from featherweight.report.layers import layers
from featherweight.report.markup import Markup, element
from featherweight.report.overview import proof, side_by_side, verdict
from featherweight.report.provenance import provenance, refusals
from featherweight.report.style import SCRIPT, STYLE

_PARTS = (side_by_side, proof, costs, layers, channels, attempts, deployment, refusals, provenance)
_PLACES = {
    "compare": "Before and after",
    "certificate": "Certificate",
    "costs": "Bytes and milliseconds",
    "layers": "Layers",
    "channels": "Channels",
    "attempts": "Attempts",
    "use": "Use it",
    "refusals": "Refusals",
    "provenance": "Provenance",
}


def page_of(story: Story) -> str:
    """The report as an HTML page: no network, no foreign font, script or style; complete without its script."""
    places = {anchor: words for anchor, words in _PLACES.items() if anchor != "channels" or story.units}
    links = [element("li", element("a", words, href=f"#{anchor}")) for anchor, words in places.items()]
    body = element(
        "body",
        element("p", "Featherweight", element("span", " report"), class_="brand"),
        element(
            "main",
            verdict(story),
            element("nav", element("ul", *links), aria_label="Parts of this page"),
            *(part(story) for part in _PARTS),
        ),
        element("script", Markup(SCRIPT)),
    )
    return f"<!doctype html>\n{element('html', _head(story), body, lang='en')}\n"


def _head(story: Story) -> Markup:
    artefact = story.compressed.artefact
    mark = "goal met" if story.met else "goal not met"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{artefact.file}: {figures.size(artefact.size_bytes)}, {mark}"),
        element("style", Markup(STYLE)),
    )


def _policy() -> str:
    """What a browser may load for this page: nothing, and only this page's own script runs."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
