"""A lab's alert rules and their own unit tests, through the real promtool.

Doesn't belong here: how rules are brought to a stack's speed (resources/alert_rules.py).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from resources import alert_rules
from resources.binaries import find


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(find("promtool")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def write_rules(lab: Path, folder: Path, *, time_scale: float = 1.0, scrape_interval_s: float = 15.0) -> Path:
    """The rules of a lab's folder of values, at a stack's speed, as a file in `folder`."""
    path = folder / "rules.yaml"
    local = alert_rules.local_rules(
        alert_rules.load(lab / alert_rules.FILE),
        time_scale=time_scale,
        scrape_interval_s=scrape_interval_s,
        source="rules",
    )
    path.write_text(json.dumps(local.content))
    return path


def unit_test(lab: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The lab's `rules_test.yaml`, against the rules that are in `folder`."""
    (folder / "rules_test.yaml").write_text((lab / "rules_test.yaml").read_text())
    return promtool("test", "rules", str(folder / "rules_test.yaml"))
