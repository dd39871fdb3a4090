"""``report.html``: one file that needs nothing but a browser, and that a person wants to read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from featherweight.contracts import Story
from featherweight.report import figures
from featherweight.report.attempts import attempts
from featherweight.report.channels import channels
from featherweight.report.costs import costs
from featherweight.report.deployment import deployment
from featherweight.report.explorer import EXPLORER_SCRIPT, EXPLORER_STYLE, explorer
from featherweight.report.layers import layers
from featherweight.report.markup import Markup, element
from featherweight.report.overview import proof, side_by_side, verdict
from featherweight.report.provenance import provenance, refusals
from featherweight.report.style import SCRIPT, STYLE

_PARTS = (side_by_side, proof, explorer, costs, layers, channels, attempts, deployment, refusals, provenance)
_PLACES = {
    "compare": "Before and after",
    "certificate": "Certificate",
    "explore": "Try another goal",
    "costs": "Bytes and milliseconds",
    "layers": "Layers",
    "channels": "Channels",
    "attempts": "Attempts",
    "use": "Use it",
    "refusals": "Refusals",
    "provenance": "Provenance",
}


def page_of(story: Story) -> str:
    """The report as an HTML page: no network, no foreign font, script or style; complete without its scripts."""
    parts = [made for part in _PARTS if (made := part(story)) is not None]
    places = {anchor: words for anchor, words in _PLACES.items() if any(f' id="{anchor}"' in part for part in parts)}
    links = [element("li", element("a", words, href=f"#{anchor}")) for anchor, words in places.items()]
    scripts = [SCRIPT, EXPLORER_SCRIPT] if "explore" in places else [SCRIPT]
    body = element(
        "body",
        element("p", "Featherweight", element("span", " report"), class_="brand"),
        element(
            "main",
            verdict(story),
            element("nav", element("ul", *links), aria_label="Parts of this page"),
            *parts,
        ),
        *(element("script", Markup(script)) for script in scripts),
    )
    return f"<!doctype html>\n{element('html', _head(story, scripts), body, lang='en')}\n"


def _head(story: Story, scripts: Sequence[str]) -> Markup:
    artefact = story.compressed.artefact
    mark = "goal met" if story.met else "goal not met"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{artefact.file}: {figures.size(artefact.size_bytes)}, {mark}"),
        element("style", Markup(STYLE + EXPLORER_STYLE if EXPLORER_SCRIPT in scripts else STYLE)),
    )


def _policy(scripts: Sequence[str]) -> str:
    """What a browser may load for this page: nothing, and only this page's own scripts run."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {sources}"
