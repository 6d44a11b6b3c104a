"""What may be told, and what may not."""

from __future__ import annotations

import pytest

from resources.redaction import HIDDEN, redacted, secrets_in


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("HF_TOKEN=hf_abcdefgh12345 is set", f"HF_TOKEN={HIDDEN} is set"),
        ('{"password": "open sesame"}', f'{{"password": {HIDDEN} sesame"}}'),
        ("curl -H 'Authorization: Bearer abcdefgh.12345' failed", f"curl -H 'Authorization: {HIDDEN}' failed"),
        ("got Bearer abcdefgh12345 instead", f"got Bearer {HIDDEN} instead"),
        ("the token eyJhbGciOiJub25lIn0.eyJzdWIi.c2ln was refused", f"the token {HIDDEN} was refused"),
        ("https://ada:lovelace@charts.example/x", f"https://{HIDDEN}@charts.example/x"),
        (
            "GET https://labs.blob.example/lake?sv=1&sig=ab%2Bcd&se=2",
            f"GET https://labs.blob.example/lake?sv=1&sig={HIDDEN}&se=2",
        ),
        ("--api-key sk-1 --api-key=sk-2", f"--api-key sk-1 --api-key={HIDDEN}"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, left: str) -> None:
    assert redacted(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "max_num_batched_tokens: 2048 is smaller than max_model_len: 4096",
        'secret "huggingface" not found',
        "couldn't find key token in Secret lab-06/huggingface",
        "tokenizer=microsoft/Phi-3-mini-4k-instruct",
        "secretName: huggingface",
    ],
)
def test_what_tells_why_an_engine_does_not_start_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_known_value_is_hidden_wherever_it_stands() -> None:
    assert redacted("line 3: correct-horse is no number", {"correct-horse"}) == f"line 3: {HIDDEN} is no number"


def test_secrets_among_values_are_known_by_their_names_and_references_are_none() -> None:
    values = {
        "password": "open-sesame",
        "engine": {"hf_token": {"secretName": "huggingface", "secretKey": "token"}, "hfToken": "hf_1234"},
        "env": [{"name": "API_KEY", "value": "sk-1234"}, {"name": "MODE", "value": "fast"}],
        "secret": "abc",
    }
    assert secrets_in(values) == {"open-sesame", "hf_1234", "sk-1234"}
