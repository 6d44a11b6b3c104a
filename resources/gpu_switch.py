"""Whether the scale-to-zero sensor may act, and by which policy: the environment's setting, and a switch on disk.

The switch is a file, so that it works at once, without a restart, and also where Dagster doesn't answer.

Doesn't belong here: the policy's rules (lab_pipelines/gpu_policy.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dagster import ConfigurableResource

from lab_pipelines.gpu_policy import POLICY_FILE, GpuPolicy, Mode, load_policy


class GpuSwitch(ConfigurableResource):
    data_dir: str
    mode: Mode = "dry-run"
    """`LABS_GPU_SENSOR`."""
    policy_file: str = str(POLICY_FILE)
    """`LABS_GPU_POLICY`."""

    def setting(self) -> tuple[Mode, str]:
        """The mode now, and who set it."""
        try:
            said = self._file.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return self.mode, f"LABS_GPU_SENSOR={self.mode}"
        return "off", f"labs gpu pause, {said}"

    def policy(self) -> GpuPolicy:
        """Raises `SpecError`."""
        return load_policy(Path(self.policy_file))

    def pause(self, why: str) -> None:
        """Switch the sensor off until `resume`. Idempotent."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {why}", encoding="utf-8")

    def resume(self) -> bool:
        """Take the pause back; False if there was none."""
        try:
            self._file.unlink()
        except FileNotFoundError:
            return False
        return True

    @property
    def _file(self) -> Path:
        return Path(self.data_dir) / "state" / "gpu-sensor-paused"
