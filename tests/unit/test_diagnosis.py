"""Why something isn't ready, read from the API's objects alone."""

from __future__ import annotations

from typing import Any

from resources import diagnosis
from resources.diagnosis import Seen

Json = dict[str, Any]


def workload(kind: str = "Deployment", *, wanted: int = 1, generation: int = 1, **status: Any) -> Json:
    said = {"observedGeneration": 1, **status}
    metadata = {"name": "vllm", "generation": generation}
    return {"kind": kind, "metadata": metadata, "spec": {"replicas": wanted}, "status": said}


def pod(name: str = "vllm-7f9c-x2k1p", *, owned: bool = True, **status: Any) -> Json:
    owners = [{"kind": "ReplicaSet", "name": "vllm-7f9c"}] if owned else []
    return {"metadata": {"name": name, "ownerReferences": owners}, "status": status}


def condition(kind: str, status: str, **more: str) -> Json:
    return {"type": kind, "status": status, **more}


def event(reason: str, message: str, *, kind: str = "Pod", name: str = "vllm-7f9c-x2k1p", at: str = "1") -> Json:
    about = {"kind": kind, "name": name}
    return {"type": "Warning", "reason": reason, "message": message, "involvedObject": about, "lastTimestamp": at}


SCHEDULED = condition("PodScheduled", "True")
RUNNING_POD = pod(phase="Running", conditions=[SCHEDULED, condition("Ready", "True")])


def test_a_rollout_is_waited_for_until_its_newest_pods_alone_are_there_and_available() -> None:
    def waited(**status: Any) -> list[str]:
        return diagnosis.unready(Seen([workload(wanted=2, **status)], []))

    assert waited(generation=2) == ["Deployment vllm: its controller has not seen it yet"]
    assert waited(updatedReplicas=1, replicas=2) == ["Deployment vllm: 1 of 2 pods are of the newest kind"]
    assert waited(updatedReplicas=2, replicas=3) == ["Deployment vllm: old pods are still there: 1"]
    assert waited(updatedReplicas=2, replicas=2, availableReplicas=1) == ["Deployment vllm: 1 of 2 pods are ready"]
    assert waited(updatedReplicas=2, replicas=2, availableReplicas=2) == []


def test_stateful_and_daemon_sets_count_in_their_own_words() -> None:
    stateful = workload("StatefulSet", updatedReplicas=1, replicas=1)
    assert diagnosis.unready(Seen([stateful], [])) == ["StatefulSet vllm: 0 of 1 pods are ready"]
    daemon = workload("DaemonSet", desiredNumberScheduled=2, updatedNumberScheduled=2, numberAvailable=1)
    assert diagnosis.unready(Seen([daemon], [])) == ["DaemonSet vllm: 1 of 2 pods are ready"]
    assert diagnosis.unready(Seen([workload("DaemonSet", desiredNumberScheduled=0)], [])) == []


def test_a_workload_that_is_not_there_yet_and_a_pod_of_nobody_are_waited_for() -> None:
    seen = Seen([], [pod("alone", owned=False, phase="Pending"), pod("done", owned=False, phase="Succeeded")])
    waited = diagnosis.unready(seen, [("Deployment", "vllm")])
    assert waited == ["Deployment vllm is not there yet", "pod alone: Pending, not ready"]


def crashed(restarts: int) -> Json:
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}}
    last = {"terminated": {"exitCode": 1, "reason": "Error"}}
    container = {"name": "vllm", "ready": False, "restartCount": restarts, "state": state, "lastState": last}
    return pod(phase="Running", conditions=[SCHEDULED], containerStatuses=[container])


def test_a_container_that_failed_again_is_hopeless_and_one_that_failed_once_is_not() -> None:
    assert diagnosis.hopeless(Seen([], [crashed(1)])) is None
    assert diagnosis.hopeless(Seen([], [crashed(2)])) == (
        "pod vllm-7f9c-x2k1p, container vllm failed 2 times (Error, exit code 1)"
    )


def test_an_image_that_can_not_exist_is_hopeless_and_a_pull_that_fails_is_not() -> None:
    def pulling(reason: str) -> Seen:
        container = {"name": "vllm", "state": {"waiting": {"reason": reason, "message": "said so"}}}
        return Seen([], [pod(phase="Pending", containerStatuses=[container])])

    assert diagnosis.hopeless(pulling("ImagePullBackOff")) is None
    assert "InvalidImageName: said so" in (diagnosis.hopeless(pulling("InvalidImageName")) or "")


def test_a_pod_without_a_node_is_told_in_the_schedulers_words_once() -> None:
    message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    waiting = pod(phase="Pending", conditions=[condition("PodScheduled", "False", message=message)])
    seen = Seen([workload()], [waiting], [event("FailedScheduling", message)])
    troubles = diagnosis.diagnose(seen)
    assert diagnosis.in_one_line(troubles) == f"pod vllm-7f9c-x2k1p is Pending: {message}"
    assert troubles[0].events == [f"FailedScheduling: {message}"]


def test_a_failing_container_is_told_with_its_events_and_the_end_of_its_log_and_without_secrets() -> None:
    log = "loading\n\nHF_TOKEN=hf_12345678 in use\nValueError: max_num_batched_tokens: 1 is too small\n"
    seen = Seen([], [crashed(2)], [event("BackOff", "Back-off restarting")], {"vllm-7f9c-x2k1p": log})
    [trouble] = diagnosis.diagnose(seen)
    assert trouble.log == ["loading", "HF_TOKEN=[hidden] in use", "ValueError: max_num_batched_tokens: 1 is too small"]
    line = diagnosis.in_one_line([trouble])
    assert "is Running: CrashLoopBackOff: back-off 20s" in line and "BackOff: Back-off restarting" in line
    assert line.endswith(
        "its log ends: loading | HF_TOKEN=[hidden] in use | ValueError: max_num_batched_tokens: 1 is too small"
    )


def test_a_value_that_is_known_to_be_secret_is_told_nowhere() -> None:
    seen = Seen([], [crashed(2)], [event("Failed", "bad open-sesame")], {"vllm-7f9c-x2k1p": "open-sesame"})
    assert "open-sesame" not in repr(diagnosis.diagnose(seen, {"open-sesame"}))


def test_a_workload_whose_pods_are_refused_quotes_the_refusal() -> None:
    refused = condition("ReplicaFailure", "True", reason="FailedCreate", message="exceeded quota: gpus")
    seen = Seen([workload(conditions=[refused])], [])
    assert diagnosis.in_one_line(diagnosis.diagnose(seen)) == "Deployment vllm: exceeded quota: gpus"
    about = event("FailedCreate", "Error creating: exceeded quota: gpus", kind="StatefulSet", name="vllm")
    [trouble] = diagnosis.diagnose(Seen([workload("StatefulSet")], [], [about]))
    assert trouble.events == ["FailedCreate: Error creating: exceeded quota: gpus"]


def test_what_is_ready_is_no_trouble_and_where_nobody_says_anything_that_is_said() -> None:
    assert diagnosis.diagnose(Seen([workload(updatedReplicas=1, replicas=1, availableReplicas=1)], [RUNNING_POD])) == []
    assert diagnosis.in_one_line([]) == "nothing says why"


def test_the_line_is_short_enough_to_be_read() -> None:
    seen = Seen([], [pod(f"pod-{n}", phase="Pending", conditions=[]) for n in range(200)])
    line = diagnosis.in_one_line(diagnosis.diagnose(seen))
    assert len(line) == diagnosis.LONGEST and line.endswith("…")
