"""Requests are understood and refused as vLLM does; responses have its shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab_pipelines.engine import tables
from lab_pipelines.engine.args import parse_engine_args
from lab_pipelines.engine.protocol import ApiError, Events, Job, Kind, full_response, parse

PHI_3 = "microsoft/Phi-3-mini-4k-instruct"
ARGS = parse_engine_args([PHI_3, "--no-enable-prefix-caching"], tables.hardware("T4"))


def job(kind: Kind = "completion", **fields: Any) -> Job:
    prompt = {"prompt": "hello"} if kind == "completion" else {"messages": [{"role": "user", "content": "hello"}]}
    return parse(kind, json.dumps({"model": PHI_3, **prompt, **fields}).encode(), ARGS)


def error(kind: Kind = "completion", **fields: Any) -> dict[str, Any]:
    with pytest.raises(ApiError) as caught:
        job(kind, **fields)
    body = json.loads(caught.value.body)["error"]
    assert body.keys() == {"message", "type", "param", "code"}
    assert body["code"] == caught.value.status
    return body


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [([5] * 512, 512), ([[5] * 7], 7), ("x" * 8, 2), ("x" * 9, 3), (["four"], 1), ("é", 1), ("日本語", 3)],
)
def test_a_prompt_is_text_or_token_ids_alone_or_as_the_only_one_of_a_list(prompt: object, tokens: int) -> None:
    assert job(prompt=prompt).prompt_tokens == tokens


def test_a_chat_counts_its_messages_and_its_template() -> None:
    messages = [{"role": "system", "content": "abcd"}, {"role": "user", "content": [{"type": "text", "text": "abcde"}]}]
    assert job("chat", messages=messages).prompt_tokens == (1 + 4) + (2 + 4) + 3


def test_a_completion_has_16_tokens_unless_asked_and_a_chat_may_fill_the_context() -> None:
    assert job(ignore_eos=True).output_tokens == 16
    assert job("chat", ignore_eos=True).output_tokens == 4096 - 9
    assert job(ignore_eos=True, max_tokens=None).output_tokens == 4096 - 2
    assert job("chat", ignore_eos=True, max_completion_tokens=7, max_tokens=9).output_tokens == 7


def test_ignore_eos_or_min_tokens_make_the_length_exact() -> None:
    assert (job(max_tokens=900, ignore_eos=True).output_tokens, job(max_tokens=900, min_tokens=900).output_tokens) == (
        900,
        900,
    )
    assert job(max_tokens=900, ignore_eos=True).finish_reason == "length"


def test_otherwise_an_output_ends_by_itself_at_a_length_that_the_prompt_decides() -> None:
    ends = [job(prompt=f"prompt {number}", max_tokens=900) for number in range(50)]
    assert {end.finish_reason for end in ends} == {"stop"}
    assert all(64 <= end.output_tokens <= 512 for end in ends)
    assert len({end.output_tokens for end in ends}) > 30
    assert job(prompt="prompt 1", max_tokens=900).output_tokens == ends[1].output_tokens
    cut = job(prompt="prompt 1", max_tokens=63)
    assert (cut.output_tokens, cut.finish_reason) == (63, "length")


def test_an_unknown_model_is_404() -> None:
    body = error(model="nope")
    assert (body["code"], body["type"], body["message"]) == (404, "NotFoundError", "The model `nope` does not exist.")


def test_a_request_beyond_the_context_says_how_far() -> None:
    body = error(prompt=[1] * 4000, max_tokens=97)
    assert (body["code"], body["type"], body["param"]) == (400, "BadRequestError", "input_tokens")
    assert "maximum context length is 4096 tokens" in body["message"]
    assert "for a total of 4097 tokens" in body["message"]
    assert job(prompt=[1] * 4000, max_tokens=96).prompt_tokens == 4000
    assert error("chat", messages=[{"role": "user", "content": "x" * 4 * 4096}])["param"] == "input_tokens"


@pytest.mark.parametrize("raw", [b"", b"{", b'{"prompt": "a",}', b"\xff\xfe", b"[]", b'"text"', b"null"])
def test_a_body_that_is_no_json_object_is_400(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse("completion", raw, ARGS)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [32064]}, "prompt"),
        ({"prompt": [10**30]}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"stop": ""}, "stop"),
        ({"stop": ["the"]}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"n": 2}, "n"),
        ({"logprobs": 3}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_an_invalid_or_unmodelled_field_is_400_and_named(fields: dict[str, Any], param: str) -> None:
    body = error(**fields)
    assert (body["code"], body["param"]) == (400, param)


def test_a_stop_that_cannot_occur_and_sampling_parameters_change_nothing() -> None:
    plain = job(max_tokens=20, ignore_eos=True)
    dressed = job(max_tokens=20, ignore_eos=True, stop=["</s>", "\n"], temperature=0.7, top_p=0.9, seed=3, user="me")
    assert (plain.output_tokens, plain.seed) == (dressed.output_tokens, dressed.seed)


def test_an_image_is_refused() -> None:
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    assert "'image_url' is not modelled" in error("chat", messages=[{"role": "user", "content": image}])["message"]


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_the_streamed_text_is_the_text_of_the_whole_response(kind: Kind) -> None:
    request = job(kind, max_tokens=20, ignore_eos=True, stream=True, stream_options={"include_usage": True})
    events = Events(request)
    opening = events.opening()
    raw = ([opening] if opening else []) + [events.tokens(i, i + 1) for i in range(20)] + events.closing()
    assert raw[-1] == b"data: [DONE]\n\n"
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2 for event in raw)
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in raw[:-1]]
    choices = [chunk["choices"][0] for chunk in chunks[:-1]]
    whole = json.loads(full_response(request))
    if kind == "chat":
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        streamed = "".join(choice["delta"]["content"] for choice in choices)
        assert streamed == whole["choices"][0]["message"]["content"]
    else:
        assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] == 20


def test_running_usage_is_given_when_asked_for() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = Events(job(max_tokens=3, ignore_eos=True, stream=True, stream_options=options))
    counts = [
        json.loads(events.tokens(i, i + 1).removeprefix(b"data: "))["usage"]["completion_tokens"] for i in range(3)
    ]
    assert counts == [1, 2, 3]
