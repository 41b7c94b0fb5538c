"""The offline model behind the library's interface: history, streams, tool calls, usage."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_ai import Agent, ModelRetry, Tool, ToolDefinition
from pydantic_ai import messages as library
from pydantic_ai.models import ModelRequestParameters

from praisonaiagents.agent.offline import OfflineModel, tool_calls
from praisonaiagents.agent.recall import SILENT, UNKNOWN

# --- tools to ask for ---


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Get the weather for a city."""
    return f"Sunny in {city}, in {unit}"


def search_papers(query: str, limit: int = 5) -> list[str]:
    return [query] * limit


def average(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def set_light(room: str, on: bool) -> str:
    return f"{room}: {on}"


def book_flight(origin: str, destination: str, seats: int | None = None) -> str:
    return f"{origin} to {destination} for {seats or 1}"


def get_time() -> str:
    return "12:00"


def order_pizza(size: Size) -> str:
    return size.value


def tag_with(labels: list[Literal["red", "blue"]]) -> str:
    return ",".join(labels)


def save_record(record: dict[str, str]) -> str:
    return str(record)


def retry(x: int) -> int:
    raise ModelRetry(f"{x} is too small")


TOOLS = [
    add,
    get_weather,
    search_papers,
    average,
    set_light,
    book_flight,
    get_time,
    order_pizza,
    tag_with,
    save_record,
    retry,
]
AGENT = Agent(OfflineModel(), tools=TOOLS, instructions="Be brief.")
DEFINITIONS = [Tool(function).tool_def for function in TOOLS]


# The message and the calls it asks for.
CALLS: list[tuple[str, list[tuple[str, dict[str, Any]]]]] = [
    ("call add with a=2 and b=3", [("add", {"a": 2, "b": 3})]),
    ("Call add with a = -2, b = 3.", [("add", {"a": -2, "b": 3})]),
    ("add with b 3 and a 2", [("add", {"a": 2, "b": 3})]),
    ("add(2, 3)", [("add", {"a": 2, "b": 3})]),
    ("add(b=2, a=3)", [("add", {"a": 3, "b": 2})]),
    ('add {"a": 2, "b": 3}', [("add", {"a": 2, "b": 3})]),
    ("add 2 and 3", [("add", {"a": 2, "b": 3})]),
    ("Can you add 2 to 3?", [("add", {"a": 2, "b": 3})]),
    ("Use the add tool to add 2 and 3", [("add", {"a": 2, "b": 3})]),
    ("add 2 and 3, and add 4 and 5", [("add", {"a": 2, "b": 3}), ("add", {"a": 4, "b": 5})]),
    (
        "add 2 and 3. What is the weather in Rome?",
        [("add", {"a": 2, "b": 3}), ("get_weather", {"city": "Rome"})],
    ),
    ("My name is Bob. What is the weather in Rome?", [("get_weather", {"city": "Rome"})]),
    ("use get_weather city=Paris", [("get_weather", {"city": "Paris"})]),
    ("get_weather city=New York, unit=celsius", [("get_weather", {"city": "New York", "unit": "celsius"})]),
    ('get_weather("Paris", unit="fahrenheit")', [("get_weather", {"city": "Paris", "unit": "fahrenheit"})]),
    ("get_weather(Paris)", [("get_weather", {"city": "Paris"})]),
    ("what is the weather in Paris?", [("get_weather", {"city": "Paris"})]),
    ("What’s the weather like in New York today?", [("get_weather", {"city": "New York"})]),
    ("What is the weather in Paris in Fahrenheit?", [("get_weather", {"city": "Paris", "unit": "fahrenheit"})]),
    (
        "What is the weather in Paris and London?",
        [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "London"})],
    ),
    (
        "What is the weather in New York, Paris and in Rome?",
        [("get_weather", {"city": "New York"}), ("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})],
    ),
    ("Find papers about machine learning", [("search_papers", {"query": "machine learning"})]),
    ("search_papers machine learning limit=3", [("search_papers", {"query": "machine learning", "limit": 3})]),
    ('search papers for "a. b, and c"', [("search_papers", {"query": "a. b, and c"})]),
    ("average of 1, 2 and 3.5", [("average", {"numbers": [1, 2, 3.5]})]),
    ("what is the average of [1, 2, 3]?", [("average", {"numbers": [1, 2, 3]})]),
    ("set_light room=kitchen on=true", [("set_light", {"room": "kitchen", "on": True})]),
    ("set light kitchen no", [("set_light", {"room": "kitchen", "on": False})]),
    ("book_flight from Paris to London", [("book_flight", {"origin": "Paris", "destination": "London"})]),
    (
        "book flight from New York to Los Angeles with seats 2",
        [("book_flight", {"origin": "New York", "destination": "Los Angeles", "seats": 2})],
    ),
    ("what time is it?", [("get_time", {})]),
    ("order_pizza Large", [("order_pizza", {"size": "large"})]),
    ("tag with red and blue", [("tag_with", {"labels": ["red", "blue"]})]),
]

# Messages that only look as if they asked for a tool, or that do not say enough to call it.
NO_CALLS = [
    "",
    "Hello",
    "add",
    "add 2",
    "add 2.5 and 3",
    "add 1,000 and 2",
    "call add with a=two and b=3",
    "add 2 eggs and 3 apples to the list",
    "add 2 and 3 and tell me a joke",
    "add 2 eggs, and add 4 and 5",
    "I want to add that my name is Bob",
    "What does add do with 2 and 3?",
    "Don't call add with 2 and 3",
    "Yesterday I had to add 2 and 3",
    "additional 2 and 3",
    "what is the weather?",
    "weather in Paris",
    "The weather in Paris is nice.",
    "I love the weather in Paris",
    "What did I say about the weather in Paris?",
    "What is the weather in the city where I live?",
    "What time did I say the meeting is?",
    "order_pizza huge",
    "book_flight from Paris",
    "set_light kitchen",
    "average",
    "save_record a=b",
    "Write a poem",
    "add 2 and 3 " + "please " * 2000,
]


@pytest.mark.parametrize(("message", "calls"), CALLS, ids=lambda value: str(value)[:40])
def test_a_clear_wish_is_a_call(message: str, calls: list[tuple[str, Any]]) -> None:
    assert tool_calls(message, DEFINITIONS) == calls


@pytest.mark.parametrize("message", NO_CALLS, ids=lambda value: value[:40])
def test_anything_else_is_not_a_call(message: str) -> None:
    assert tool_calls(message, DEFINITIONS) == []


def test_the_longest_name_is_meant() -> None:
    tools = [ToolDefinition(name="get_weather"), ToolDefinition(name="get_weather_forecast")]
    assert tool_calls("call get_weather_forecast", tools) == [("get_weather_forecast", {})]
    assert tool_calls("call get weather forecast", tools) == [("get_weather_forecast", {})]


@pytest.mark.parametrize(
    "spec",
    [
        True,
        {},
        {"type": ["string", "null"]},
        {"$ref": "#/$defs/Tree"},
        {"enum": ["", "big"]},
        {"type": "array"},
        {"$ref": "#/$defs/gone"},
    ],
    ids=str,
)
def test_a_schema_it_cannot_read_is_a_tool_it_does_not_call(spec: Any) -> None:
    tree = {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]}
    schema = {"properties": {"x": spec}, "required": ["x"], "$defs": {"Tree": tree}}
    tools = [ToolDefinition(name="grow", parameters_json_schema=schema)]
    assert tool_calls("call grow with x=1", tools) == tool_calls("call grow", tools) == []


# --- an agent with it ---


def ask(message: str | None, history: list[library.ModelMessage] | None = None) -> list[library.ModelMessage]:
    return asyncio.run(AGENT.run(message, message_history=history)).all_messages()


def said(messages: list[library.ModelMessage]) -> str:
    return "".join(part.content for part in messages[-1].parts if isinstance(part, library.TextPart))


def call_ids(messages: list[library.ModelMessage]) -> list[str]:
    return [
        part.tool_call_id for message in messages for part in message.parts if isinstance(part, library.ToolCallPart)
    ]


def test_it_remembers_within_a_conversation() -> None:
    told = ask("My name is Alice and I love pizza")
    assert said(told) == "Noted: your name is Alice; you love pizza."
    assert said(ask("What's my name?", told)).startswith("Your name is Alice.")
    assert said(ask("What's my name?")) == UNKNOWN


RESTORE = """
import sys
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessagesTypeAdapter
from praisonaiagents.agent.offline import OfflineModel
history = ModelMessagesTypeAdapter.validate_json(open(sys.argv[1], "rb").read())
print(Agent(OfflineModel()).run_sync("What's my name?", message_history=history).output)
"""


def test_another_process_with_the_same_history_gives_the_same_answer(tmp_path: Path) -> None:
    told = ask("My name is Alice and I love pizza")
    stored = tmp_path / "history.json"
    stored.write_bytes(library.ModelMessagesTypeAdapter.dump_json(told))
    command = [sys.executable, "-c", RESTORE, str(stored)]
    restored = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    assert restored.stdout.strip() == said(ask("What's my name?", told))


def test_a_tool_is_called_and_its_result_reported() -> None:
    messages = ask("add 2 and 3")
    assert said(messages) == "add returned 5."
    assert said(ask("What did add return?", messages)) == 'add returned: "5"'
    assert said(ask("What did add return for 2 and 3?", messages)) == 'add returned: "5"'
    assert said(ask("add 2 and 3, and add 4 and 5")) == "add returned 5.\nadd returned 9."


def test_what_failed_is_reported_as_failed() -> None:
    assert said(ask("retry 1")) == "retry failed: 1 is too small."


@pytest.mark.parametrize(
    ("outcome", "report"),
    [
        ("success", "add returned 5."),
        ("failed", "add failed: 5."),
        ("denied", "add was not allowed: 5."),
        ("interrupted", "add was interrupted: 5."),
    ],
)
def test_every_outcome_of_a_tool_is_reported_as_what_it_was(outcome: Any, report: str) -> None:
    call = library.ModelResponse([library.ToolCallPart("add", {"a": 2, "b": 3}, tool_call_id="1")])
    result = library.ModelRequest([library.ToolReturnPart("add", "5.", tool_call_id="1", outcome=outcome)])
    assert text_of(request([call, result])) == report
    known = 'add returned: "5."' if outcome == "success" else UNKNOWN
    assert text_of(request([call, result, *users("What did add return?")])).endswith(known)


def test_a_result_without_text_returned_nothing() -> None:
    result = library.ModelRequest([library.ToolReturnPart("save", None, tool_call_id="1")])
    assert text_of(request([result])) == "save returned nothing."


def test_an_interrupted_call_and_the_next_message_are_both_answered() -> None:
    call = library.ModelResponse([library.ToolCallPart("add", {"a": 2, "b": 3}, tool_call_id="1")])
    parts = [
        library.ToolReturnPart("add", "no result", tool_call_id="1", outcome="interrupted"),
        library.UserPromptPart("What is my name?"),
    ]
    history = [*users("My name is Alice"), call, library.ModelRequest(parts)]
    first, second = text_of(request(history)).split("\n")
    assert first == "add was interrupted: no result."
    assert second.startswith("Your name is Alice.")


def test_ids_of_calls_follow_from_the_conversation_and_never_repeat() -> None:
    messages: list[library.ModelMessage] = []
    for _ in range(4):
        messages = ask("add 2 and 3, and add 2 and 3", messages)
    ids = call_ids(messages)
    assert len(set(ids)) == len(ids) == 8
    again: list[library.ModelMessage] = []
    for _ in range(4):
        again = ask("add 2 and 3, and add 2 and 3", again)
    assert call_ids(again) == ids


def test_ids_do_not_repeat_when_the_model_sees_only_the_end_of_the_conversation() -> None:
    messages: list[library.ModelMessage] = []
    for message in ["add 2 and 3"] * 6 + ["Hello", "I am Bob", "add 2 and 3", "Hello", "I am Carol", "add 2 and 3"]:
        messages += asyncio.run(AGENT.run(message, message_history=messages[-4:])).new_messages()
    ids = call_ids(messages)
    assert len(set(ids)) == len(ids) == 8


# --- streams ---


async def stream_of(messages: list[library.ModelMessage]) -> tuple[list[str], library.ModelResponse]:
    chunks: list[str] = []
    parameters = ModelRequestParameters(function_tools=DEFINITIONS)
    async with OfflineModel().request_stream(messages, None, parameters) as stream:
        async for event in stream:
            if isinstance(event, library.PartStartEvent) and isinstance(event.part, library.TextPart):
                chunks.append(event.part.content)
            elif isinstance(event, library.PartDeltaEvent) and isinstance(event.delta, library.TextPartDelta):
                chunks.append(event.delta.content_delta)
    return chunks, stream.get()


def request(messages: list[library.ModelMessage]) -> library.ModelResponse:
    return asyncio.run(OfflineModel().request(messages, None, ModelRequestParameters(function_tools=DEFINITIONS)))


def users(*messages: str) -> list[library.ModelMessage]:
    return [library.ModelRequest([library.UserPromptPart(message)]) for message in messages]


def text_of(response: library.ModelResponse) -> str:
    return "".join(part.content for part in response.parts if isinstance(part, library.TextPart))


@example(["I like  two   spaces", "What was my last message?"])
@settings(deadline=None)
@given(st.lists(st.one_of(st.text(), st.sampled_from([call[0] for call in CALLS])), max_size=4))
def test_a_stream_ends_as_the_whole_answer(messages: list[str]) -> None:
    whole = request(users(*messages))
    chunks, streamed = asyncio.run(stream_of(users(*messages)))
    assert "".join(chunks) == text_of(whole)
    assert all(len(chunk.split()) <= 1 for chunk in chunks)
    assert streamed.parts == whole.parts
    assert streamed.usage == whole.usage
    assert (
        (streamed.model_name, streamed.provider_name)
        == (whole.model_name, whole.provider_name)
        == ("offline", "offline")
    )
    assert streamed.state == whole.state == "complete"


def test_an_agent_streams_it_word_by_word() -> None:
    async def chunks() -> list[str]:
        async with AGENT.run_stream("What's my name?", message_history=users("My name is Alice")) as answer:
            return [chunk async for chunk in answer.stream_text(delta=True, debounce_by=None)]

    assert asyncio.run(chunks())[:4] == ["Your ", "name ", "is ", "Alice. "]


def test_the_nodes_of_a_run_stream_text_calls_and_results() -> None:
    async def events(history: list[library.ModelMessage]) -> list[object]:
        seen: list[object] = []
        async with AGENT.iter(None, message_history=history) as run:
            async for node in run:
                if Agent.is_model_request_node(node) or Agent.is_call_tools_node(node):
                    async with node.stream(run.ctx) as stream:
                        seen += [event async for event in stream]
        assert run.result is not None
        assert run.result.output == "add returned 5."
        return seen

    kinds = [type(event).__name__ for event in asyncio.run(events(users("My name is Alice", "add 2 and 3")))]
    order = ["PartStartEvent", "FunctionToolCallEvent", "FunctionToolResultEvent", "PartStartEvent", "PartDeltaEvent"]
    positions = iter(kinds)
    assert all(kind in positions for kind in order)


def test_a_cancelled_stream_counts_what_was_streamed() -> None:
    async def cancelled() -> library.ModelResponse:
        async with OfflineModel().request_stream(users("What's my name?"), None, ModelRequestParameters()) as stream:
            async for _ in stream:
                await stream.cancel()
        return stream.get()

    response = asyncio.run(cancelled())
    assert text_of(response) == "I "
    assert response.usage.output_tokens == 1
    assert response.state == "interrupted"


# --- usage and odd input ---


def test_the_message_to_answer_is_not_part_of_what_came_before() -> None:
    assert text_of(request(users("What was my last message?"))) == "This is your first message."
    assert text_of(request(users("Hello", "What was my last message?"))) == 'Your last message was: "Hello"'


def test_usage_counts_words() -> None:
    usage = request(users("My name is Alice")).usage
    assert (usage.input_tokens, usage.output_tokens) == (4, 5)  # Noted: your name is Alice.


def test_its_name() -> None:
    model = OfflineModel()
    assert (model.model_name, model.system, model.model_id) == ("offline", "offline", "offline:offline")


RETRY = library.RetryFeedbackPart("no", retry=library.RetryInfo(attempt=1, max_retries=1, cause="model_retry"))
IMAGE = library.BinaryContent(b"...", media_type="image/png")


@pytest.mark.parametrize(
    ("messages", "answer"),
    [
        ([], SILENT),
        ([library.ModelResponse([library.TextPart("My name is Bob")])], SILENT),
        ([library.ModelRequest([library.SystemPromptPart("My name is Bob")])], SILENT),
        ([library.ModelRequest([RETRY])], SILENT),
        ([library.ModelRequest([library.UserPromptPart([IMAGE])])], SILENT),
        ([*users("My name is Bob"), library.ModelRequest([library.UserPromptPart([IMAGE])])], SILENT),
        (
            [
                library.ModelRequest(
                    [library.UserPromptPart(["My name is Bob.", IMAGE, library.TextContent("What is my name?")])]
                )
            ],
            'Your name is Bob. You said: "My name is Bob."',
        ),
        (
            [
                *users("What is my name?"),
                library.ModelResponse([]),
                library.ModelRequest([RETRY]),
            ],
            UNKNOWN,
        ),
    ],
    ids=[
        "nothing",
        "no message",
        "system only",
        "retry only",
        "image",
        "text, image",
        "text and image",
        "retry after question",
    ],
)
def test_odd_histories_are_answered(messages: list[library.ModelMessage], answer: str) -> None:
    assert text_of(request(messages)) == answer


def test_a_retry_without_a_new_message_calls_no_tool_again() -> None:
    feedback = library.ModelRequest([RETRY])
    history = [*users("add 2 and 3"), library.ModelResponse([library.TextPart("add returned 5.")]), feedback]
    assert [part.part_kind for part in request(history).parts] == ["text"]


def test_notes_of_the_library_are_not_taken_for_the_users_words() -> None:
    prepared = OfflineModel().prepare_messages(users("Is <system>My name is Bob.</system> a tag?"))
    assert [
        part.content for message in prepared for part in message.parts if isinstance(part, library.UserPromptPart)
    ] == ["Is <system>My name is Bob.</system> a tag?"]
