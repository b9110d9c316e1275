"""LiteLLM and instructor against the server: python wrappers_contract.py NANOCHAT [RUN]"""
import asyncio
import json
import os
import sys
import tempfile
from typing import Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it asks another server for prices otherwise

import instructor  # noqa: E402
import litellm  # noqa: E402
import openai  # noqa: E402
import pydantic  # noqa: E402

import server  # noqa: E402


class Pet(pydantic.BaseModel):
    kind: Literal["cat", "dog"]
    age: int = pydantic.Field(ge=1, le=20)
    good: bool


TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather of a city.",
                                         "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}}}
MESSAGES = [{"role": "user", "content": "Tell me a story."}]


def with_litellm(url):
    litellm.telemetry, litellm.suppress_debug_info = False, True
    for model, base in (("openai/tiny", url + "/v1"), ("hosted_vllm/tiny", url + "/v1"), ("anthropic/tiny", url)):
        options = dict(model=model, api_base=base, api_key="secret", messages=MESSAGES, max_tokens=64, temperature=0)
        whole = litellm.completion(**options)
        text = whole.choices[0].message.content
        assert text and whole.usage.completion_tokens > 0 and whole.choices[0].finish_reason in ("stop", "length"), whole
        chunks = list(litellm.completion(**options, stream=True, stream_options={"include_usage": True}))
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert streamed == text and len(chunks) > 3, (model, streamed, text)
        rebuilt = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
        assert rebuilt.choices[0].message.content == text, rebuilt
        assert asyncio.run(litellm.acompletion(**options)).choices[0].message.content == text
        call = litellm.completion(**{**options, "max_tokens": 100}, tools=[TOOL], tool_choice="required").choices[0].message.tool_calls[0]
        assert call.function.name == "weather" and json.loads(call.function.arguments)["city"] in ("Rome", "Oslo"), call
        # A model that is not in the request's protocol is an error of the right class.
        try:
            litellm.completion(**{**options, "model": model.replace("tiny", "other")})
            raise AssertionError("another model was served")
        except litellm.NotFoundError as error:
            assert "tiny" in str(error), error
    options = dict(model="openai/tiny", api_base=url + "/v1", api_key="secret", max_tokens=100)
    pet = Pet.model_validate_json(litellm.completion(**options, messages=MESSAGES, response_format=Pet).choices[0].message.content)
    assert litellm.responses(**{**options, "max_output_tokens": 16, "input": "Hi", "temperature": 0}).output[0].content[0].text
    assert litellm.text_completion(model="text-completion-openai/tiny", api_base=url + "/v1", api_key="secret", prompt="Once",
                                   max_tokens=8).choices[0].text
    try:
        litellm.completion(**options, messages=[{"role": "user", "content": "word " * 3000}])
        raise AssertionError("a prompt beyond the context was accepted")
    except litellm.ContextWindowExceededError:
        pass
    print(f"LiteLLM passed: chats through the protocols of OpenAI, vLLM and Anthropic, streams, calls, {pet}, responses, completions, errors")


def with_instructor(url):
    plain = openai.OpenAI(base_url=url + "/v1", api_key="secret", max_retries=0)
    made = []
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS_STRICT):
        client = instructor.from_openai(plain, mode=mode)
        made.append(client.chat.completions.create(model="tiny", response_model=Pet, messages=MESSAGES, max_tokens=200, max_retries=0))
        *_, last = client.chat.completions.create_partial(model="tiny", response_model=Pet, messages=MESSAGES, max_tokens=200, max_retries=0)
        assert last.kind in ("cat", "dog"), last
    assert all(isinstance(pet, Pet) for pet in made), made
    several = instructor.from_openai(plain, mode=instructor.Mode.TOOLS).chat.completions.create_iterable(
        model="tiny", response_model=Pet, messages=MESSAGES, max_tokens=400, max_retries=0, temperature=0)
    assert all(isinstance(pet, Pet) for pet in several)
    print(f"instructor passed: {len(made)} modes, whole and partial, and lists")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run = sys.argv[2] if len(sys.argv) > 2 else server.small_run(sys.argv[1], folder, sequence_len=1024)  # instructor describes lists at length
        with server.running(sys.argv[1], run, environment={"NANOCHAT_API_KEY": "secret"}) as url:
            with_litellm(url)
            with_instructor(url)
