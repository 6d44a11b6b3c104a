"""Creates the databases of the Dagster instance in DAGSTER_HOME, so that later processes only ever open them.

Several processes that open a brand-new instance at once race in its schema migrations and break it for good;
setup.sh calls this under its lock. Doesn't belong here: settings (deploy/local/dagster.yaml).
"""

from __future__ import annotations

from dagster import DagsterInstance


def main() -> None:
    """Open each of the three storages once; opening creates and migrates it. Raises on a setting Dagster refuses."""
    with DagsterInstance.get() as instance:
        instance.get_run_records(limit=1)
        instance.event_log_storage.get_concurrency_keys()
        instance.all_instigator_state()


if __name__ == "__main__":
    main()
