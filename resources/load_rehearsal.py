"""Load in virtual time: a plan replayed against the rehearsal's engine, recorded as the load generator records its own.

Belongs here: from the replay's tickets to records. Doesn't belong here: the replay (lab_pipelines/rehearsal/load.py).
"""

from __future__ import annotations

from pathlib import Path

from lab_pipelines.deployment import REPO_ROOT
from resources.cluster import Progress
from resources.load_generator import LoadError, LoadGenerator, LoadPlan, LoadResult, RequestRecord, StageRecord
from resources.rehearsals import rehearsal_at


class RehearsalLoadGenerator(LoadGenerator):
    """Replays a plan; `workdir` keeps it as it was replayed."""

    def run(self, plan: LoadPlan, *, workdir: Path, environ: dict[str, str], progress: Progress) -> LoadResult:
        from streaming_load.plan import PlanError, read_plan

        from lab_pipelines.rehearsal.load import Replay

        if plan.request_kind != "completion":
            raise LoadError(f"{plan.step} sends plain GETs, and a rehearsal has nothing that would answer them")
        workdir.mkdir(parents=True, exist_ok=True)
        plan_file = workdir / "plan.json"
        plan_file.write_text(plan.found_from_anywhere(REPO_ROOT).model_dump_json(indent=2), encoding="utf-8")
        world = rehearsal_at(plan.base_url).world
        try:
            read = read_plan(plan_file)
        except PlanError as error:
            raise LoadError(f"{plan.step}: {error}") from error
        replay = Replay(read, world, progress=progress)
        tickets, applied = replay.run()
        stages = [
            StageRecord(
                stage=one.stage.stage,
                users=one.stage.users,
                started_at=one.started_s,
                ended_at=one.ended_s,
                client_cpu_share=None,
            )
            for one in applied
        ]
        ends = {stage.stage: stage.ended_at for stage in stages}
        records = []
        for ticket in tickets:
            assert ticket.sent_s is not None and ticket.finished_s is not None and ticket.outcome is not None
            times, request = replay.event_times(ticket), ticket.request
            records.append(
                RequestRecord(
                    request_id=ticket.request_id,
                    worker="rehearsal",
                    user_index=ticket.user_index,
                    shape=ticket.shape,
                    stage=ticket.stage.stage,
                    in_stage=ticket.outcome != "cut" and ticket.finished_s <= ends[ticket.stage.stage],
                    counted=ticket.counted,
                    asked_tokens=ticket.asked,
                    scheduled_at=ticket.scheduled_s,
                    sent_offset_s=ticket.sent_s - ticket.scheduled_s,
                    finished_offset_s=ticket.finished_s - ticket.scheduled_s,
                    event_offsets_s=[at_s - ticket.scheduled_s for at_s in times],
                    input_tokens=ticket.input_tokens,
                    output_tokens=ticket.output_tokens,
                    outcome=ticket.outcome,
                    http_status=ticket.http_status,
                    finish_reason=request.finish_reason
                    if request and ticket.http_status == 200 and ticket.outcome == "ok"
                    else None,
                    error=ticket.error,
                    server_ttft_s=times[0] - request.arrived_s if request and times else None,
                    receive_lag_p99_s=None,
                )
            )
        return LoadResult(requests=records, stages=stages, no_client="rehearsed: no client took part")
