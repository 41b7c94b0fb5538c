"""The memory of the offline model: answers taken out of a conversation's own words.

The idea: a question and a statement are brought to one key. "What's my name?" and "Call me Al" both mean {name}, "Where do I
live?" and "I live in Berlin" both mean {i, live}. The latest statement under a question's key is its answer: it is said back
with the pronouns turned round, and its sentence is quoted. A question that has no key is compared by its content words, which
must all occur in one clause; then the sentence is only quoted.

What a reader would get wrong: a rule that matches more is not a better rule. "I don't know" does no harm, but an answer that
the conversation does not hold is a guess. So keys are compared for equality, never for overlap: the name of somebody's dog says
nothing about the name of its owner.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

LABEL = "I am the built-in offline model, not an LLM"
CONNECT = "set OPENAI_API_KEY or pass llm=... to connect a real one"
ABOUT_ME = f"{LABEL}: I recall what this conversation says and call its tools; {CONNECT}."
UNKNOWN = f"I don't know: nothing in this conversation says so. {LABEL}; {CONNECT}."
UNABLE = f"I can't act on that. {ABOUT_ME}"
HELLO = f"Hello! {LABEL}: tell me something, then ask me about it."
SILENT = f"There is no text to answer. {LABEL}."
_QUOTED = 300  # characters of a text that are quoted
_PARSED = 400  # characters; a longer sentence is a document, not a statement
_NOTED = 3  # statements repeated in an acknowledgement
_KEPT = 100  # sentences of a summary
_READ = 100_000  # characters of one message; what comes after is a document
_LISTED = 8  # sentences quoted in a summary, and questions answered of one message


def vocabulary(words: str) -> frozenset[str]:
    return frozenset(words.split())


@dataclass(frozen=True)
class Said:
    """One text of a conversation. For a tool's result, `tool` is the tool and `about` the arguments of its call."""

    who: Literal["user", "assistant", "tool"]
    text: str
    tool: str = ""
    about: str = ""


def reply(history: Sequence[Said], message: str) -> str:
    """What the offline model says to this message after this history, which does not hold the message."""
    if not (sentences := _sentences(message)):
        return SILENT
    if answer := _small_talk(message):
        return answer
    questions = [part for sentence in sentences if _asks(sentence) for part in _TWO_QUESTIONS.split(sentence)]
    if not questions:
        return _acknowledge(sentences)
    earlier = [sentence for said in history if said.who == "user" for sentence in _sentences(said.text)]
    told = [sentence for sentence in (*earlier, *sentences) if not _asks(sentence) and not _small_talk(sentence)]
    memory = _Memory(history, told)
    return "\n".join(dict.fromkeys(memory.answer(question) for question in [*dict.fromkeys(questions)][:_LISTED]))


def told(history: Sequence[Said]) -> list[str]:
    """What the user has told in this history, the newest `_KEPT` sentences of it: neither questions nor small talk."""
    sentences = [sentence for said in history if said.who == "user" for sentence in _sentences(said.text)]
    stated = [sentence for sentence in sentences if not _asks(sentence) and not _small_talk(sentence)]
    return [*dict.fromkeys(stated)][-_KEPT:] or ["Nothing was told."]


def first_person(sentence: str) -> str:
    """What is remembered of a user, as the user would say it: "The user lives in Berlin" becomes "I live in Berlin"."""
    return _rephrase(sentence, _AS_THE_USER)


# --- words and sentences ---

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_AS_THE_USER = (
    (r"\bthe user's\b", "my"),
    (r"\bthe user is\b", "I am"),
    (r"\bthe user has\b", "I have"),
    (r"\bthe user does(n't| not)?\b", r"I do\1"),
    (r"\bthe user was\b", "I was"),
    (r"\bthe user (\w+?)(?<=ch|sh|ss)es\b", r"I \1"),
    (r"\bthe user (\w{2,})(?<!s)s\b", r"I \1"),
    (r"\bthe user\b", "I"),
)
_STOP = vocabulary(
    "a an the this that these those i me my mine we us our you your it its it's i'm is are was were am be been being do does did"
    " done have has had can could will would shall should may might must what what's which who who's whom whose where where's"
    " when why how if whether and or but so of in on at to for from by with as than then there here not no yes just now today"
    " please about long many much time day date kind type sort thing again ever still also really any some all exactly"
)
_NOT_IN_KEYS = vocabulary("my our the this that a an of for in on at with current new latest updated own")
_PAST = dict(
    re.findall(
        r"(\w+):(\w+)",
        "met:meet bought:buy ate:eat went:go saw:see wrote:write paid:pay left:leave made:make flew:fly spoke:speak took:take"
        " gave:give found:find lost:lose had:have got:get was:am were:am",
    )
)
_SAME = {"lov": "like", "enjoy": "like", "ador": "like", "lik": "like", "favourit": "favorit", "colour": "color"}
_KINDS = {
    "food": "pizza pasta sushi rice bread cheese burger salad soup noodle curry taco cake chocolate steak fish fruit ramen",
    "color": "red blue green yellow orange purple pink black white brown grey gray violet turquoise",
    "pet": "dog cat bird horse fish rabbit hamster parrot turtle",
}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|[\r\n]+")
_LEAD = re.compile(
    r"^(?:(?:hi|hello|hey|so|well|ok|okay|and|but|also|actually|please|just|now|oh|fyi|btw|by the way|remember|note"
    r"|keep in mind|correction|do not forget|don't forget)(?![\w'-])(?: there\b)?(?: that\b)?[\s,:!.]*"
    r"|(?:yes|no|sorry|thanks|update)[,:.!]\s*)+",
    re.I,
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
_CJK_ASKS = re.compile(
    r"为?什[么麼](?:名字|时候|時候|地方)?|[谁誰]|哪[里裡儿个]?|[吗嗎呢]|多少|怎么|何|どこ|いつ|なに|どんな|でしょうか|[でま]すか"
    r"|か\W*$|(?:무엇|뭐|누구|어디|언제)\w*|(?:입니까|인가요|나요|까요|습니까)\W*$"
)
_AUX = r"(?:is|are|was|were|am|do|does|did|can|could|will|would|should|have|has|had)"
_ASKS = re.compile(
    rf"[?？][\"')\]]*$|^(?:what|who|whom|whose|where|when|why|how|which)(?:'s|'re| {_AUX}\b| (?:many|much|old|long|far|often)\b)"
    rf"|^(?:what|which|how) (?!i\b)(?:\w+ ){{1,3}}?{_AUX}\b|^(?:is|are|was|were|does|did|can|could|will|would|should|has|am)"
    r" (?!is\b|was\b|has\b)|^(?:do|have|may) (?:i|you|we|they|my|the)\b|^(?:summari[sz]e|recap|tell me|remind me)\b",
    re.I,
)
_TWO_QUESTIONS = re.compile(r",?\s+and\s+(?=(?:what|who|where|when|how|which)\b)", re.I)


def _stem(word: str) -> str:
    word = word.lower().removesuffix("'s")
    word = _PAST.get(word, word)
    for suffix, end in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith(("ss", "eed")):
            word = word.removesuffix(suffix) + end
            break
    word = word.removesuffix("e") if len(word) > 3 else word
    word = word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
    return _SAME.get(word, word)


def _stems(text: str, leave_out: frozenset[str] = _STOP) -> frozenset[str]:
    return frozenset(_stem(word) for word in _WORD.findall(_plain(text)) if word.lower() not in leave_out)


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").split())


def _body(sentence: str) -> str:
    """The sentence without greetings and fillers in front."""
    return re.sub(r"^(what|who|where)s\b", r"\1's", _LEAD.sub("", _plain(sentence)), flags=re.I)


def _rephrase(text: str, forms: Iterable[tuple[str, str]]) -> str:
    for pattern, form in forms:
        text = re.sub(pattern, form, text, flags=re.I)
    return text


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in _SENTENCE_END.split(text[:_READ]) if sentence.strip()]


def _asks(sentence: str) -> bool:
    return bool(_ASKS.search(_body(sentence)) or (_CJK.search(sentence) and _CJK_ASKS.search(sentence)))


def _quote(text: str) -> str:
    return f'"{text}"' if len(text) <= _QUOTED else f'"{text[:_QUOTED].rstrip()}" [...]'


def _you_said(sentences: Iterable[str]) -> str:
    return f"You said: {'; '.join(_quote(sentence) for sentence in dict.fromkeys(sentences))}"


# --- facts ---

_CLAUSE_END = re.compile(
    r"(?:,? (?:and|but|while) |[,;] )(?=(?:i|we|he|she|they|it)(?:'\w+)? |(?:my|our|the|his|her|their) [^,;]{0,60}?"
    r"\b(?:is|are|was|were|has)\b|(?-i:[A-Z])\w+ \w+s\b )",
    re.I,
)
_CALL_ME = re.compile(r"^(?:you can |people |everyone )?calls? me ", re.I)
_UNSURE = re.compile(
    r"^(?:if|when|unless|suppose|imagine|pretend|maybe|perhaps|once|assume)\b"
    r"|\b(?:said|says|told me|claims|thinks|believes|writes|wrote|asked)\b",
    re.I,
)
_NO_NAME = r"(?!\w+(?:ish|ese)\b|German|French|Dutch|Greek|American|Italian|Indian|Russian|Korean|Sorry)"
_STATEMENT_FORMS = (
    (r"^(i|we)'m\b", r"\1 am"),
    (r"^(i|we)'ve\b", r"\1 have"),
    (r"^(i|we) (?:am (?=\w+ing\b|allergic\b)|was (?=born\b))", r"\1 "),
    (r"^((?:my|our|the) \w+)'s (?!.*\b(?:is|are|was)\b)", r"\1 is "),
    (r"^i (?:am (?:called|named)|go by) ", "my name is "),
    (rf"^i am (?=(?-i:{_NO_NAME}[A-Z][a-z]+(?: [A-Z]\w+)?)(?:$|,| from\b))", "my name is "),
    (r"^i (?:am|just turned|turned) (\d+)(?: years? old)?(?: now)?$", r"my age is \1"),
    (r"^i (?:am|come) from ", "my origin is "),
    (r"^i work(?:ing)? as ", "my job is "),
    (r"^(.+?) (is|are) (\d+ years? old)", r"\1 age \2 \3"),
    (r"^(.+?) (is|are|was) (?:called|named) ", r"\1 name \2 "),
)
_BE = r"(?P<be>is|are|was|were)"
_IS = re.compile(
    rf"^(?P<key>(?!(?:i|we|it|he|she|they|there|here) )[^:=]{{1,80}}?)(?: {_BE} |: | ?= ?)(?P<value>.+)$", re.I
)
_IS_REVERSED = re.compile(rf"^(?P<value>.+?)(?: {_BE}|'s) (?P<key>(?:my|our|the) [^,:]{{1,60}})$", re.I)
_I_DO = re.compile(
    r"^(?:i|we) (?P<used>used to )?(?:(?:really|also|still|just|always|usually|often|mostly|sometimes|currently|now) )*"
    r"(?P<no>(?:don't|do not|never|no longer|didn't|did not) )?(?!(?:will|would|can|could|may|might|should|must)\b)"
    r"(?P<verb>[a-z]+)(?: (?P<value>.+))?$",
    re.I,
)


@dataclass(frozen=True)
class _Fact:
    """One clause of a user's sentence: what it says (`value`) about what (`key`)."""

    key: frozenset[str]
    value: str
    past: bool
    clause: str
    sentence: str


def _clauses(sentence: str) -> list[str]:
    return [_CALL_ME.sub("my name is ", clause.strip(" .!,;")) for clause in _CLAUSE_END.split(_body(sentence))]


def _facts(sentence: str) -> list[_Fact]:
    if len(sentence) > _PARSED or _UNSURE.search(_body(sentence)):
        return []
    return [fact for clause in _clauses(sentence) for fact in _facts_in(clause, sentence)]


def _facts_in(clause: str, sentence: str) -> Iterator[_Fact]:
    plain = _rephrase(clause, _STATEMENT_FORMS)
    if done := _I_DO.match(plain):
        verb = done["verb"].lower()
        past = bool(done["used"]) or verb in _PAST or (verb.endswith("ed") and not verb.endswith("eed"))
        yield _Fact(_verb_key(verb, done["no"]), done["value"] or "", past, clause, sentence)
        return
    for said in filter(None, (_IS.match(plain), _IS_REVERSED.match(plain))):
        past = (said["be"] or "").lower() in ("was", "were")
        if key := _stems(said["key"], _NOT_IN_KEYS):
            yield _Fact(key, said["value"], past, clause, sentence)


def _verb_key(verb: str, denied: str | None) -> frozenset[str]:
    return frozenset({"i", _stem(verb), *(["not"] if denied else [])})


# --- questions ---

_QUESTION_FORMS = (
    (
        r"^(?:(?:can|could|would|will) you )?(?:please )?(?:tell me|remind me(?: of)?|do you (?:still )?(?:know|remember|recall))"
        r"[ ,:]+(?=(?:my|our|the|what|who|where|when|how|which|if|whether|about|why)\b)",
        "",
    ),
    (r",? (?:again|please|exactly|then)$", ""),
    (r"^(what|who|where|when|how old)(?:'s|'re) ", r"\1 is "),
    (r"\b(do|did)(?:n't| not) (i|we)\b", r"\1 \2 not"),
    (r"^(what|who|where|when|how old) ((?:my|our|the|i)\b.*) (is|are|was|were|am)$", r"\1 \3 \2"),
    (r"^(what(?: (?!do |did |have |am )\w+)?|where|when) (i|we) (\w)", r"\1 do \2 \3"),
    (r"^who am i$|^what am i called$|^what do (?:people|you) call me$", "what is my name"),
    (r"^how old am i$", "what is my age"),
    (r"^how old (is|are) (.+)$", r"what \1 \2 age"),
    (r"^where (?:am i|do i come) from$", "what is my origin"),
    (r"^what do i do(?: for .+)?$", "what is my job"),
    (r"^((?:what|how) is .+?) like\b", r"\1"),
    (r"^(?:what|how) (is|are|was) (.+) (?:called|named)$", r"what \1 \2 name"),
    (r"^(?:my|our|the) ", r"what is \g<0>"),
)
_WHAT_IS = re.compile(
    r"^(?P<wh>what|which|who|where|when)(?: (?P<kind>.+?))?? (?P<do>is|are|was|were) (?P<key>.+)$", re.I
)
_WHAT_DO_I = re.compile(
    r"^(?P<wh>what|which|whom?|where|when|how many|how much)(?: (?P<kind>.+?))??(?: else)? (?P<do>do|did|have|am|was)"
    r" (?:i|we) (?P<no>not )?(?P<verb>[a-z]+)(?P<rest>.*)$",
    re.I,
)
_TIME = (
    r"\d|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b|\btoday\b"
    r"|\btomorrow\b|\btonight\b|\b(?:morning|noon|evening|night|week|month|year|spring|summer|autumn|winter|christmas)s?\b"
)
_FITS = {  # what a text must look like to answer such a question
    "what": rf"^(?!(?:on|in|at|by|under|with)\b)|{_TIME}",
    "who": r"(?-i:[A-Z])|\b(?:my|our|an?|the)\b",
    "where": r"\b(?:in|at|on|near|from|to|by|under|behind|inside|outside|next|here|there|home)\b|\bfor (?-i:[A-Z])",
    "when": _TIME,
    "why": r"\b(?:because|since|due|so|to|for)\b",
    "how": r"\b(?:by|with|using|via|an?|one|two|three|four|five|six|seven|eight|nine|ten)\b|\d",
}
_OWNERS = re.compile(r"\b(?:his|her|their|\w+'s(?= \w))", re.I)
_FIRST_PERSON = re.compile(r"\b(?:i|me|my|we|our)\b", re.I)


class _Memory:
    """What there is to answer from. `told` holds the user's sentences that ask nothing, also those beside the question."""

    def __init__(self, history: Sequence[Said], told: Sequence[str]) -> None:
        self.history, self.told = history, told

    def answer(self, question: str) -> str:
        plain = _body(question[:_PARSED]).rstrip(" ?？.!")
        if talk := _small_talk(plain):
            return talk
        for pattern, tell in _META:
            if found := re.fullmatch(pattern, plain, re.I):
                return tell(self, found)
        asked = _rephrase(plain, _QUESTION_FORMS)
        if _ORDER.match(asked):
            return UNABLE
        keyed = _WHAT_IS.match(asked) or _WHAT_DO_I.match(asked)
        told = self._by_key(keyed.groupdict("")) if keyed else self._by_words(asked)
        return told or self.by_tool(_stems(asked)) or UNKNOWN

    def _by_key(self, asked: Mapping[str, str]) -> str:
        verb = asked.get("verb", "")
        key = _verb_key(verb, asked["no"]) if verb else _stems(asked["key"], _NOT_IN_KEYS)
        past = asked["do"].lower() not in ("is", "are", "do", "am")
        found = list(self._under(key, asked))
        answers = [fact for fact in found if fact.past == past] or (found if past else [])
        return _retell(answers[: 3 if verb and asked["wh"].lower() in ("what", "which") else 1])

    def _under(self, key: frozenset[str], asked: Mapping[str, str]) -> Iterator[_Fact]:
        """The facts under this key that can answer this question, latest first, without what was denied after them."""
        kind, rest = _stems(asked["kind"]), _stems(asked.get("rest", ""))
        denied: frozenset[str] = frozenset()
        for fact in (fact for sentence in reversed(self.told) for fact in reversed(_facts(sentence))):
            if fact.key == key | {"not"} != key:
                denied |= _stems(fact.value)
            same = (fact.key == key and _of_kind(kind, fact.clause)) or (kind and fact.key == key | kind)
            if same and rest <= _stems(fact.clause) and not denied & _stems(fact.value) and _answers(asked["wh"], fact):
                yield fact

    def _by_words(self, question: str) -> str:
        for sentence in reversed(self.told):
            if _fits(question, sentence) and any(_covers(clause, question) for clause in _clauses(sentence)):
                return _you_said([sentence])
        return ""

    def by_tool(self, wanted: frozenset[str]) -> str:
        """The latest result of a tool whose name, arguments and text hold all these words."""
        for said in (said for said in reversed(self.history) if said.who == "tool"):
            held = _stems(f"{said.tool} {said.about} {said.text} result tool return".replace("_", " "))
            if len(wanted) > 1 and wanted <= held:
                return f"{said.tool} returned: {_quote(said.text)}"
        return ""


def _fits(question: str, text: str) -> bool:
    return bool(re.search(_FITS.get(question.partition(" ")[0].lower(), ""), text, re.I))


def _answers(wh: str, fact: _Fact) -> bool:
    named = _stem("name") not in fact.key or re.match(r"[A-Z]|\w+$", fact.value)
    return bool(named) and _fits(wh, fact.value)


def _of_kind(kind: frozenset[str], clause: str) -> bool:
    """Whether a clause is about this kind of thing: it names the kind, or a known member of it."""
    words = _stems(clause)
    return all(word in words or words & _stems(_KINDS.get(word, "")) for word in kind)


def _covers(clause: str, question: str) -> bool:
    """Whether a clause is about all that the question is about, and about nobody else's."""
    if _CJK.search(question):
        runs = re.findall(r"\w{2,}", _CJK_ASKS.sub(" ", question))
        return bool(runs) and all(run in clause or clause.endswith(run.rstrip("是は")) for run in runs)
    wanted, owners = _stems(question), _stems(" ".join(_OWNERS.findall(clause)), frozenset())
    if _FIRST_PERSON.search(question) and not _FIRST_PERSON.search(clause):
        return False
    return len(wanted) > 1 and wanted <= _stems(clause) and owners <= _stems(question, frozenset())


# --- saying it ---

_TURNED = dict(
    re.findall(
        r"([a-z' ]+):([a-z ]+)",
        "i am:you are,i'm:you are,we're:you are,i was:you were,i've:you have,i'd:you would,i'll:you will,i:you,we:you,me:you,"
        "myself:yourself,my:your,our:your",
    )
)
_TURN = re.compile(rf"\b(?:{'|'.join(sorted(_TURNED, key=len, reverse=True))})\b", re.I)
_ORDER = re.compile(
    r"(?:(?:tell|remind|give|show) me|(?:can|could|would|will) you|i (?:want|need|would like) you to|i'd like you to|summari[sz]e"
    r"|recap|write|find|search|create|make|generate|draw|translate|explain|calculate|compute|book|order|send|open|run|list|compare"
    r"|research|analy[sz]e|plan|help|fix|build|design|suggest|recommend|describe|get|look|fetch|read|play|call|use|let)\b",
    re.I,
)
_STATES = re.compile(
    r"\b(?:is|are|was|were|am|has|have|had|will|\w+ed)\b|^(?:i|we|he|she|they|it)\b|^(?-i:[A-Z])\w+ \w+s\b", re.I
)
_SMALL_TALK = (
    (r"(?:hi|hello|hey|greetings|good (?:morning|afternoon|evening|day))(?: \w+)?|how are you", HELLO),
    (r"你好|您好|こんにちは|안녕하세요", HELLO),
    (r"thanks|(?:thanks|thank you)(?: (?:so|very) much| a lot)?|谢谢|ありがとう", "You're welcome."),
    (r"bye|goodbye|good night|see you(?: \w+)?|再见", "Goodbye."),
    (r"ok|okay|yes|no|sure|great|cool|nice|fine", "OK."),
    (
        r"help|(?:who|what) are you|what can you do|what(?:'s| is) your name|(?:what|which) (?:llm|model|ai) is this",
        ABOUT_ME,
    ),
    (r"are you (?:an? )?(?:llm|ai|bot|human|real|chatgpt|gpt)", ABOUT_ME),
)


def _small_talk(text: str) -> str | None:
    said = _plain(text).strip(" .!?。！？")
    return next((answer for pattern, answer in _SMALL_TALK if re.fullmatch(pattern, said, re.I)), None)


def _turned(clause: str) -> str | None:
    """The clause as seen from the other side. None where it speaks of both sides."""
    if re.search(r"\b(?:you|your|yours)\b", clause, re.I):
        return None
    return _TURN.sub(lambda found: _TURNED[found[0].lower()], clause)


def _retell(facts: Sequence[_Fact]) -> str:
    told = dict.fromkeys(turned[0].upper() + turned[1:] + "." for fact in facts if (turned := _turned(fact.clause)))
    return " ".join([*told, _you_said(fact.sentence for fact in facts)]) if facts else ""


def _acknowledge(sentences: Sequence[str]) -> str:
    orders = [sentence for sentence in sentences if _ORDER.match(_body(sentence))]
    notes = list(dict.fromkeys(note for sentence in sentences if sentence not in orders for note in _notes(sentence)))
    more = f"; and {len(notes) - _NOTED} more" if len(notes) > _NOTED else ""
    noted = f"Noted: {'; '.join(notes[:_NOTED])}{more}" if notes else UNABLE
    noted += "" if noted.endswith(('"', ".")) else "."
    return f"{noted} {UNABLE}" if notes and orders else noted


def _notes(sentence: str) -> list[str]:
    turned = [note for fact in _facts(sentence) if (note := _turned(fact.clause))]
    states = _CJK.search(sentence) or _STATES.search(_body(sentence))
    return turned or ([_quote(sentence)] if states else [])


def _message(memory: _Memory, found: re.Match[str]) -> str:
    sent = [said.text.strip() for said in memory.history if said.who == "user"]
    which, at = ("first", 0) if found["first"] else ("last", -1)
    return f"Your {which} message was: {_quote(sent[at])}" if sent else "This is your first message."


def _count(memory: _Memory, _: re.Match[str]) -> str:
    sent, answered = (sum(said.who == who for said in memory.history) for who in ("user", "assistant"))
    return f"You have sent {sent + 1} messages, this one included, and I have answered {answered}."


def _summary(memory: _Memory, _: re.Match[str]) -> str:
    more = len(memory.told) - _LISTED
    before = f" (and {more} sentences before that)" if more > 0 else ""
    return _you_said(memory.told[-_LISTED:]) + before if memory.told else "You have told me nothing yet."


def _topic(memory: _Memory, found: re.Match[str]) -> str:
    topic = _stems(found["topic"])
    sentences = [sentence for sentence in memory.told if topic and topic <= _stems(sentence)]
    return _you_said(sentences[-3:]) if sentences else memory.by_tool(topic) or UNKNOWN


_SAY = r"(?:say|said|ask|asked|write|wrote|send|sent|tell|told)(?: you)?"
_HERE = r"(?: (?:so far|in (?:this|our|the) (?:chat|conversation|session)))?"
_META: tuple[tuple[str, Callable[[_Memory, re.Match[str]], str]], ...] = (
    (rf"what (?:did|have) i (?:just )?{_SAY}(?: (?P<first>first)| last| before| just now)?{_HERE}", _message),
    (
        rf"(?:what(?: was| is|'s) )?(?:my|the) (?:very )?(?:(?P<first>first)|last|previous) (?:message|question|thing)"
        rf"(?: (?:that )?i {_SAY})?{_HERE}",
        _message,
    ),
    (
        rf"how many (?:messages|turns)(?: (?:are|were|have|has|did|there|been|i|we|you|sent|send|exchanged))*{_HERE}",
        _count,
    ),
    (
        rf"(?:(?:can|could|would) you )?(?:please )?(?:summari[sz]e|recap)(?: (?:it|everything|(?:our|this|the) (?:chat|session"
        rf"|conversation|discussion)))?{_HERE}|what (?:have|did) we (?:talk|talked|discuss|discussed)(?: about)?{_HERE}"
        rf"|what do you (?:know|remember)(?: about me)?|what (?:have|did) i (?:tell|told) you about (?:me|myself){_HERE}",
        _summary,
    ),
    (
        r".*\b(?:say|said|tell|told|mention|mentioned|know|talk|talked|remember)(?: you| me)? about (?P<topic>.+)",
        _topic,
    ),
)
