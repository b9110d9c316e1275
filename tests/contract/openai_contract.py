"""The official openai package, and LangChain on it, against the server: python openai_contract.py NANOCHAT [RUN]; a RUN has a context of 2,048"""
import json
import re
import sys
import tempfile

import langchain_openai
import openai
import pydantic

import server
from pydantic_models import LOOSE, MODELS, Cat, Pet

CONTEXT = 2048  # room for the description of a tool, of which a vocabulary of 512 takes a token a letter or two


def check_responses(client):
    """client.responses: text, streams, structured answers, calls, and conversations that the server keeps."""
    options = dict(model="tiny", input="Tell me a story.", instructions="Be brief.", max_output_tokens=24, temperature=0)
    whole = client.responses.create(**options)
    assert whole.object == "response" and whole.id.startswith("resp_") and whole.instructions == "Be brief."
    assert whole.status == "completed" or whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    text = whole.output_text
    events = list(client.responses.create(**options, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"], kinds
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response." + whole.status]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text == events[-4].text
    assert events[-1].response.output_text == text and events[-1].response.usage.output_tokens == whole.usage.output_tokens
    scored = client.responses.create(**options, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = scored.output[0].content[0].logprobs
    assert b"".join(bytes(one.bytes) for one in logprobs).decode(errors="replace") == text and all(len(one.top_logprobs) == 2 for one in logprobs)

    structured = {**options, "max_output_tokens": 200, "temperature": 1.0, "extra_body": {"seed": 3}}
    parsed = client.responses.parse(**structured, text_format=Pet)
    assert isinstance(parsed.output_parsed, Pet), parsed
    with client.responses.stream(**structured, text_format=Pet) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Pet)
    client.responses.create(**structured, text={"format": {"type": "json_object"}})

    tool = openai.pydantic_function_tool(Cat)["function"]
    tools = [{"type": "function", "name": name, "parameters": tool["parameters"], "strict": True} for name in ("first", "second")]
    for choice, names in (("required", ("first", "second")), ({"type": "function", "name": "second"}, ("second",)),
                          ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "first"}]}, ("first",))):
        called = client.responses.create(**structured, tools=tools, tool_choice=choice)
        [call] = called.output
        assert call.type == "function_call" and call.name in names and Cat.model_validate_json(call.arguments), call
        with client.responses.stream(**structured, tools=tools, tool_choice=choice) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert final.output[0].arguments == call.arguments and final.output[0].name == call.name
        assert kinds[-4] == "response.function_call_arguments.delta" and kinds[-3] == "response.function_call_arguments.done", kinds

    # The server's memory of a conversation is the same as sending all of it.
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
    more = dict(model="tiny", max_output_tokens=16, temperature=0)
    kept = client.responses.create(**more, previous_response_id=called.id, input=[result])
    sent = client.responses.create(**more, input=[{"role": "user", "content": options["input"]}, call.to_dict(), result])
    assert kept.output_text == sent.output_text and kept.usage.input_tokens == sent.usage.input_tokens
    assert kept.previous_response_id == called.id
    again = client.responses.create(**more, previous_response_id=kept.id, input="And then?")
    assert again.usage.input_tokens > kept.usage.input_tokens
    assert client.responses.retrieve(kept.id).output_text == kept.output_text
    client.responses.delete(kept.id)
    for wrong in (lambda: client.responses.retrieve(kept.id), lambda: client.responses.delete(kept.id)):
        try:
            wrong()
            raise AssertionError("a deleted response was found")
        except openai.NotFoundError as error:
            assert error.code == "response_not_found"
    client.responses.create(**more, previous_response_id=again.id, input="Go on.")  # holds the whole conversation itself
    unkept = client.responses.create(**more, input="Hi", store=False)
    for changes, param in (({"previous_response_id": kept.id}, "previous_response_id"), ({"previous_response_id": unkept.id}, "previous_response_id"),
                           ({"reasoning": {"effort": "high"}}, "reasoning.effort"), ({"background": True}, "background"),
                           ({"tools": [{"type": "web_search"}]}, "tools[0].type"), ({"truncation": "auto"}, "truncation"),
                           ({"max_output_tokens": 0}, "max_output_tokens"), ({"input": "word " * 5000}, "input")):
        try:
            client.responses.create(**{**options, **changes})
            raise AssertionError(f"{changes} was not refused")
        except openai.BadRequestError as error:
            assert error.param == param, error


def check_models(client, model):
    """parse() with every model: the schemas as the package writes them, in its strict mode."""
    for wanted in MODELS:
        try:
            parsed = client.chat.completions.parse(model=model, messages=[{"role": "user", "content": "Fill in the form."}], max_tokens=600,
                                                   temperature=1.0, seed=5, response_format=wanted).choices[0].message.parsed
            assert isinstance(parsed, wanted), parsed
        except pydantic.ValidationError:
            assert wanted.__name__ in LOOSE, wanted


def check_turns(client, model):
    """Chats that begin or end with the assistant, and many stop strings."""
    options = dict(model=model, max_tokens=24, temperature=0)
    ask = {"role": "user", "content": "Tell me a story."}
    greeted = client.chat.completions.create(**options, messages=[{"role": "assistant", "content": "Hello, I am here."}, ask])
    assert greeted.choices[0].message.role == "assistant"
    whole = client.chat.completions.create(**options, messages=[ask], logprobs=True).choices[0]
    tokens = [one.token for one in whole.logprobs.content]
    begin = "".join(tokens[:1])
    rest = client.chat.completions.create(**options, messages=[ask, {"role": "assistant", "content": begin}]).choices[0].message.content
    if whole.message.content.startswith(begin):  # a token may also be half a character
        assert rest.startswith(whole.message.content[len(begin):]), (rest, whole)  # one token more, unless both ended
    stops = [f"never said {i}" for i in range(15)]
    stop = whole.message.content[2:4]
    if len(stop) == 2:
        stopped = client.chat.completions.create(**options, messages=[ask], stop=[*stops, stop]).choices[0].message.content
        assert stopped == whole.message.content[: whole.message.content.index(stop)]
    try:
        client.chat.completions.create(**options, messages=[ask], stop=[*stops, "a", "b"])
        raise AssertionError("17 stop strings were taken")
    except openai.BadRequestError as error:
        assert error.param == "stop"
    short = openai.OpenAI(base_url=str(client.base_url).replace("/v1/", "/"), api_key=client.api_key, max_retries=0)
    assert short.models.list().data[0].id == model
    assert short.chat.completions.create(**options, messages=[ask]).choices[0].message.content == whole.message.content


def check(url):
    client = openai.OpenAI(base_url=url + "/v1", api_key="secret", max_retries=0)
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model == "tiny"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me a story."}]

    greedy = client.chat.completions.create(model=model, messages=messages, max_tokens=24, temperature=0)
    assert greedy.object == "chat.completion" and greedy.choices[0].message.role == "assistant"
    assert greedy.choices[0].finish_reason in ("stop", "length")
    assert greedy.usage.total_tokens == greedy.usage.prompt_tokens + greedy.usage.completion_tokens
    text = greedy.choices[0].message.content

    streamed, usage, reasons = "", None, []
    for chunk in client.chat.completions.create(model=model, messages=messages, max_tokens=24, temperature=0, stream=True,
                                                stream_options={"include_usage": True}):
        if chunk.usage:
            assert not chunk.choices
            usage = chunk.usage
            continue
        streamed += chunk.choices[0].delta.content or ""
        reasons.append(chunk.choices[0].finish_reason)
    assert streamed == text, (streamed, text)
    assert usage.completion_tokens == greedy.usage.completion_tokens and reasons[-1] == greedy.choices[0].finish_reason
    assert usage.prompt_tokens_details.cached_tokens >= 0

    options = dict(model=model, messages=messages, max_tokens=16, temperature=1.0)
    seeded = [client.chat.completions.create(**options, seed=7).choices[0].message.content for _ in range(2)]
    assert seeded[0] == seeded[1]
    several = client.chat.completions.create(**options, seed=7, n=3)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert several.choices[0].message.content == seeded[0]
    assert len({choice.message.content for choice in several.choices}) > 1

    scored = client.chat.completions.create(model=model, messages=messages, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3)
    content = scored.choices[0].logprobs.content
    assert 1 <= len(content) <= 5 and all(len(one.top_logprobs) == 3 and one.logprob <= 0 for one in content)
    assert all(one.top_logprobs[0].token == one.token for one in content)  # greedy

    if len(text) > 4:
        stop = text[2:4]
        stopped = client.chat.completions.create(model=model, messages=messages, max_tokens=24, temperature=0, stop=[stop])
        assert stopped.choices[0].message.content == text[: text.index(stop)] and stopped.choices[0].finish_reason == "stop"

    completion = client.completions.create(model=model, prompt=["Once", "The"], max_tokens=4, temperature=0, echo=True, logprobs=2)
    assert len(completion.choices) == 2 and completion.choices[1].text.startswith("The")
    assert completion.choices[0].logprobs.token_logprobs[0] is None
    pieces = [chunk.choices[0].text for chunk in client.completions.create(model=model, prompt="Once", max_tokens=4, temperature=0, stream=True)]
    assert "Once" + "".join(pieces) == completion.choices[0].text

    schema = {"type": "object", "properties": {"zeta": {"type": "integer", "minimum": 0, "maximum": 99}, "alpha": {"enum": ["a", "b"]}},
              "required": ["zeta", "alpha"], "additionalProperties": False}
    answer = client.chat.completions.create(**{**options, "max_tokens": 60}, seed=1, response_format={
        "type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}})
    assert list(json.loads(answer.choices[0].message.content)) == ["zeta", "alpha"]  # in the order of the schema

    wanted = {**options, "max_tokens": 200, "seed": 3}
    parsed = client.chat.completions.parse(**wanted, response_format=Pet).choices[0].message.parsed
    assert isinstance(parsed, Pet) and parsed.version == 1 and parsed.animal.kind in ("cat", "dog"), parsed
    with client.chat.completions.stream(**wanted, response_format=Pet) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Pet)
    called = client.chat.completions.parse(**wanted, tools=[openai.pydantic_function_tool(Pet)], tool_choice="required").choices[0]
    assert isinstance(called.message.tool_calls[0].function.parsed_arguments, Pet)
    langchain = langchain_openai.ChatOpenAI(base_url=url + "/v1", api_key="secret", model=model, temperature=1.0, seed=3, max_tokens=200)
    for method in ("json_schema", "function_calling"):
        assert isinstance(langchain.with_structured_output(Pet, method=method).invoke("A pet, please."), Pet), method
    assert langchain.bind_tools([Pet], tool_choice="Pet").invoke("A pet, please.").tool_calls[0]["args"]["version"] == 1
    for extra in ({"guided_json": Pet.model_json_schema()}, {"response_format": {"type": "json_object", "schema": Pet.model_json_schema()}}):
        Pet.model_validate_json(client.chat.completions.create(**wanted, extra_body=extra).choices[0].message.content)
    completed = client.completions.create(model=model, prompt="A pet: ", max_tokens=200, extra_body={"guided_json": Pet.model_json_schema()})
    Pet.model_validate_json(completed.choices[0].text)

    tools = [{"type": "function", "function": {"name": name, "parameters": schema}} for name in ("first", "second")]
    calls = {**options, "max_tokens": 60, "tools": tools}
    for choice, names in (("required", ("first", "second")), ({"type": "function", "function": {"name": "second"}}, ("second",))):
        called = client.chat.completions.create(**calls, seed=2, tool_choice=choice).choices[0]
        assert called.finish_reason == "tool_calls" and called.message.content is None and len(called.message.tool_calls) == 1
        call = called.message.tool_calls[0]
        assert call.type == "function" and call.function.name in names and list(json.loads(call.function.arguments)) == ["zeta", "alpha"]
        name, arguments, ids, ends = "", "", [], []
        for chunk in client.chat.completions.create(**calls, seed=2, tool_choice=choice, stream=True):
            for piece in chunk.choices[0].delta.tool_calls or []:
                name += piece.function.name or ""
                arguments += piece.function.arguments or ""
                ids += [piece.id] if piece.id else []
            ends.append(chunk.choices[0].finish_reason)
        assert (name, arguments, ends[-1], len(ids)) == (call.function.name, call.function.arguments, "tool_calls", 1)
    history = [*messages, {"role": "assistant", "tool_calls": [call.model_dump()]},
               {"role": "tool", "tool_call_id": call.id, "content": "42"}]
    assert client.chat.completions.create(**{**options, "messages": history}).choices[0].message.role == "assistant"

    check_responses(client)
    check_turns(client, model)
    check_models(client, model)

    def refused(kind, **changes):
        try:
            client.chat.completions.create(**{**options, **changes})
        except kind as error:
            return error
        raise AssertionError(f"{changes} was not refused with {kind}")

    assert refused(openai.BadRequestError, temperature=-1).param == "temperature"
    assert refused(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 5000}]).code == "context_length_exceeded"
    refused(openai.NotFoundError, model="other")
    for name, value in (("guided_whitespace_pattern", "a"), ("structural_tag", "a"), ("ebnf", "a"), ("guided_regex", "(a)\\1")):
        assert refused(openai.BadRequestError, extra_body={name: value}).param == name
    for extra, pattern in (({"guided_regex": "[a-f]{3}-\\d"}, "[a-f]{3}-[0-9]"), ({"guided_choice": ["yes", "no"]}, "yes|no"),
                           ({"grammar": 'root ::= "a" [0-9]{2}'}, "a[0-9]{2}"), ({"structured_outputs": {"regex": "x+y"}}, "x+y")):
        content = client.chat.completions.create(**{**options, "max_tokens": 30}, extra_body=extra).choices[0].message.content
        assert re.fullmatch(pattern, content), (extra, content)
    assert refused(openai.BadRequestError, extra_body={"stream_options": {"include_usage": True}}).param == "stream_options"
    for reference in ("#/$defs/~", "#/$defs/~2", "#/anyOf/99999999999999999999", "#/$defs/none"):
        wrong = {"type": "object", "properties": {"a": {"$ref": reference}}, "required": ["a"]}
        answer = {"type": "json_schema", "json_schema": {"name": "wrong", "schema": wrong}}
        assert reference in refused(openai.BadRequestError, response_format=answer).message
        function = [{"type": "function", "function": {"name": "f", "parameters": wrong}}]
        assert reference in refused(openai.BadRequestError, tools=function, tool_choice="required").message
    try:
        client.completions.create(model=model, prompt=[0] * (CONTEXT + 1), max_tokens=0, echo=True)
        raise AssertionError("a prompt beyond the context was taken")
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded" and f"at most {CONTEXT}" in error.message, error
    assert client.completions.create(model=model, prompt=[0] * CONTEXT, max_tokens=0, echo=True, logprobs=0).usage.prompt_tokens == CONTEXT
    assert refused(openai.BadRequestError, tool_choice="required").param == "tool_choice"
    patterns = [{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "string", "pattern": "(x)\\1"}}}}}]
    assert "pattern" in refused(openai.BadRequestError, tools=patterns, tool_choice="required").message
    for key, kind in (("wrong", openai.AuthenticationError),):
        try:
            openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0).models.list()
            raise AssertionError("a wrong key was taken")
        except kind:
            pass
    print("openai", openai.__version__, "passed")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run = sys.argv[2] if len(sys.argv) > 2 else server.small_run(sys.argv[1], folder, iterations=4, sequence_len=CONTEXT)
        with server.running(sys.argv[1], run, ["--api-key", "secret"]) as url:
            check(url)
