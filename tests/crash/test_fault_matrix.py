"""Whatever goes wrong with a lab's run in a cluster, and whenever: after one tick of the reaper nothing of it is left.

Each cell is a fault at a step: a process runs a lab against the doubles of a cluster and of Azure; the request that is
the step arrives, and the fault happens while its sender waits. Then the reaper ticks once, in a process that knows no
more than the kubeconfig, the pools and this machine: at once, since the owner's death can be seen where it ran; for a
lost machine on another one, after the lease's end. Beside the lab stand neighbours that look much like it.

A disk is full when no file may grow (RLIMIT_FSIZE): the same failing write as ENOSPC, with another number.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from resources.azure_session import UnansweredError
from resources.cluster import ClusterError
from resources.helm_sdk import ReleaseError
from resources.kube_leases import LeaseLostError
from resources.node_pools import PoolError
from tests.support.fault_cells import Cell, cells
from tests.support.fault_forker import Forker
from tests.support.fault_world import Outcome, World

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CELLS = list(cells())
AT_ONCE = 4
"""Cells under way at the same time: they mostly wait."""


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What became of every cell that is asked for."""
    items = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module
    ]
    chosen = [item.callspec.params["cell"] for item in items if hasattr(item, "callspec")]
    folder = tmp_path_factory.mktemp("cells")
    with Forker(folder) as forker, ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(lambda one: World(one[1], folder / str(one[0]), forker).go(), enumerate(chosen)))
    return {str(outcome.cell): outcome for outcome in found}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_after_one_tick_nothing_of_ours_is_left_and_nothing_else_was_touched(
    cell: Cell, outcomes: dict[str, Outcome]
) -> None:
    outcome = outcomes[str(cell)]
    told = f"{outcome.ended}: {outcome.said}\n{outcome.trace}\n{outcome.log}"
    assert outcome.fired == cell.fault.times, f"it was never put to the test: {told}"
    assert outcome.still == [], told
    assert outcome.touched == [], told
    assert outcome.too_early == [], told
    if cell.fault.ends != "either":
        assert KINDS.get(outcome.ended, "with an error") == cell.fault.ends, told
    if not cell.fault.leaves:
        assert outcome.left == [], told
    if outcome.ended not in KINDS and cell.fault.how != "fill disk":
        assert outcome.ended in CLEAR, told
        assert outcome.said and "\n" not in outcome.said, told


CLEAR = {kind.__name__ for kind in (ClusterError, LeaseLostError, PoolError, ReleaseError, UnansweredError)}
"""Errors that were written for whoever reads them. What a full disk raises is whatever was being written."""
KINDS = {"well": "well", "killed": "killed", "DagsterExecutionInterruptedError": "interrupted"}


def test_the_matrix_has_every_fault_at_every_step_where_it_can_happen() -> None:
    assert len(CELLS) >= 60
    assert len({str(cell) for cell in CELLS}) == len(CELLS)


def test_the_table(outcomes: dict[str, Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(
            f"\n{'fault':30} {'step':30} {'the run ended':34} {'left':>4} {'ticked away':>11} "
            f"{'run s':>6} {'tick s':>6}"
        )
        for outcome in outcomes.values():
            fault, step = outcome.cell.fault.name, outcome.cell.step.name
            print(
                f"{fault:30} {step:30} {outcome.ended[:34]:34} {len(outcome.left):4} {len(outcome.reaped):11} "
                f"{outcome.run_s:6.2f} {outcome.tick_s:6.2f}"
            )
