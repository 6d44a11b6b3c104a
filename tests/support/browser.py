"""The real browser of the tests that look at pages.

Doesn't belong here: what is looked at (tests/browser).
"""

from __future__ import annotations

import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGUMENTS = [
    "--headless",
    "--no-sandbox",  # root in a container has no sandbox; the only pages are ours
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def found_browser() -> str:
    """The browser's program. Without one the test is skipped, and fails in CI."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        reason = f"none of {', '.join(BROWSERS)} is on PATH: sudo apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (in CI a missing browser is an error)")
        pytest.skip(reason)  # on a laptop without a browser; CI has failed above
    return found
