"""Pages in headless Chromium, from the file system and without a network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None,
    reason="CHROMIUM IS NOT INSTALLED: the interactive part of the report goes untested here (apt install chromium)",
)
_TOLD = "told-to-the-test"


def opened(page: str, folder: Path, driver: str = "") -> tuple[str, Any]:
    """The page after its scripts ran, and what the driver returned.

    Args:
        page: HTML; its policy is widened by the driver alone.
        folder: where the page is written and opened.
        driver: body of an async function that runs after the page's own scripts; what it returns must be JSON.

    Raises:
        AssertionError: the browser's console got a message: a fault of a script, or something that the policy forbids.
    """
    script = f"""
      (async () => {{ {driver} }})().catch(String).then(told => {{
        const node = document.createElement("pre");
        node.id = "{_TOLD}";
        node.textContent = JSON.stringify(told ?? null);
        document.body.append(node);
      }});"""
    allowed = f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}' "
    path = folder / "page.html"
    path.write_text(page.replace("script-src ", allowed).replace("</body>", f"<script>{script}</script></body>"))
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--virtual-time-budget=60000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    if complaints:
        raise AssertionError(f"the page complained: {complaints}")
    (told,) = re.findall(rf'<pre id="{_TOLD}">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    return done.stdout, json.loads(html.unescape(told))
