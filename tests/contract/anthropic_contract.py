"""The official anthropic package against the server: python anthropic_contract.py NANOCHAT [RUN]; a RUN has a context of 2,048"""
import json
import sys
import tempfile
from typing import Literal

import anthropic
import pydantic

import server

CONTEXT = 2048


class Pet(pydantic.BaseModel):
    kind: Literal["cat", "dog"]
    good: bool


def check(url):
    client = anthropic.Anthropic(base_url=url, api_key="secret", max_retries=0)
    messages = [{"role": "user", "content": "Tell me a story."}]
    options = dict(model="tiny", system="Be brief.", messages=messages, max_tokens=24)
    greedy = {**options, "extra_body": {"temperature": 0}}

    whole = client.messages.create(**greedy)
    assert whole.type == "message" and whole.role == "assistant" and whole.model == "tiny" and whole.id.startswith("msg_")
    assert whole.stop_reason in ("end_turn", "max_tokens") and whole.stop_sequence is None
    assert whole._request_id.startswith("req-"), whole._request_id
    text = "".join(block.text for block in whole.content)

    with client.messages.stream(**greedy) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == text and len(pieces) > 1, (pieces, text)
    assert final.stop_reason == whole.stop_reason and final.usage.output_tokens == whole.usage.output_tokens
    total = final.usage.input_tokens + final.usage.cache_read_input_tokens
    kinds = [event.type for event in client.messages.create(**greedy, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"], kinds
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"] and set(kinds[2:-3]) == {"content_block_delta"}, kinds

    counted = client.messages.count_tokens(model="tiny", system="Be brief.", messages=messages)
    assert counted.input_tokens == total == whole.usage.input_tokens + whole.usage.cache_read_input_tokens, (counted, total)

    if len(text) > 4:
        stop = text[2:4]
        stopped = client.messages.create(**greedy, stop_sequences=["never said by anyone", stop])
        assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == stop, stopped
        assert "".join(block.text for block in stopped.content) == text[: text.index(stop)]
        begin = text[:2]
        continued = client.messages.create(**{**greedy, "messages": [*messages, {"role": "assistant", "content": begin}]})
        assert continued.role == "assistant" and continued.stop_reason in ("end_turn", "max_tokens")
    greeting = [{"role": "assistant", "content": "Hello, I am here."}, *messages]
    assert client.messages.create(**{**options, "messages": greeting}).role == "assistant"

    parsed = client.messages.parse(**{**options, "max_tokens": 100}, output_format=Pet)
    assert isinstance(parsed.parsed_output, Pet), parsed
    with client.messages.stream(**{**options, "max_tokens": 100}, output_format=Pet) as stream:
        assert isinstance(stream.get_final_message().parsed_output, Pet)

    schema = {"type": "object", "properties": {"zeta": {"type": "integer", "minimum": 0, "maximum": 99}, "alpha": {"enum": ["a", "b"]}},
              "required": ["zeta", "alpha"], "additionalProperties": False}
    tools = [{"name": name, "description": "A tool.", "input_schema": schema} for name in ("first", "second")]
    calls = {**greedy, "max_tokens": 100, "tools": tools}
    for choice, names in (({"type": "any"}, ("first", "second")), ({"type": "tool", "name": "second"}, ("second",))):
        called = client.messages.create(**calls, tool_choice=choice)
        [block] = called.content
        assert called.stop_reason == "tool_use" and block.type == "tool_use" and block.name in names, called
        assert list(block.input) == ["zeta", "alpha"] and block.id.startswith("toolu_"), block
        with client.messages.stream(**calls, tool_choice=choice) as stream:
            parts = [event.partial_json for event in stream if event.type == "input_json"]
            streamed = stream.get_final_message()
        assert json.loads("".join(parts)) == streamed.content[0].input == block.input, (parts, block)
        assert streamed.content[0].name == block.name and streamed.stop_reason == "tool_use"
    assert client.messages.create(**calls, tool_choice={"type": "auto"}).stop_reason != "tool_use"
    history = [*messages, {"role": "assistant", "content": called.content},
               {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "42"}]},
                                            {"type": "text", "text": "And now?"}]}]
    assert client.messages.create(**{**options, "messages": history, "tools": tools}).role == "assistant"

    def refused(kind, **changes):
        try:
            client.messages.create(**{**options, **changes})
        except kind as error:
            assert error.body["type"] == "error" and set(error.body["error"]) == {"type", "message"}, error.body
            return error.body["error"]
        raise AssertionError(f"{changes} was not refused with {kind}")

    assert refused(anthropic.BadRequestError, max_tokens=0)["type"] == "invalid_request_error"
    assert "expected at most" in refused(anthropic.BadRequestError, messages=[{"role": "user", "content": "word " * 5000}])["message"]
    assert refused(anthropic.NotFoundError, model="other")["type"] == "not_found_error"
    assert "thinking" in refused(anthropic.BadRequestError, thinking={"type": "enabled", "budget_tokens": 1024})["message"]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    assert "messages[0].content[0].type" in refused(anthropic.BadRequestError, messages=[{"role": "user", "content": [image]}])["message"]
    assert "tools[0].type" in refused(anthropic.BadRequestError, tools=[{"type": "bash_20250124", "name": "bash"}])["message"]
    assert "stop" in refused(anthropic.BadRequestError, extra_body={"stop": ["a"]})["message"]
    try:
        anthropic.Anthropic(base_url=url, api_key="wrong", max_retries=0).messages.create(**options)
        raise AssertionError("a wrong key was taken")
    except anthropic.AuthenticationError as error:
        assert error.body["error"]["type"] == "authentication_error"
    bearer = anthropic.Anthropic(base_url=url, auth_token="secret", max_retries=0)
    assert bearer.messages.create(**options).role == "assistant"
    print("anthropic", anthropic.__version__, "passed")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run = sys.argv[2] if len(sys.argv) > 2 else server.small_run(sys.argv[1], folder, iterations=4, sequence_len=CONTEXT)
        with server.running(sys.argv[1], run, ["--api-key", "secret"]) as url:
            check(url)
