"""Extraction without a model: what a user says about themself, found by rules.

    extract("I'm Al and I don't like coffee")
    [Fact("The user's name is Al", slot="user.name"), Fact("The user does not like coffee", slot="user.likes.coffee")]

A text is cut into sentences and these into clauses, a clause is brought to a plain form ("I've just moved" -> "i moved"), and
the first rule whose pattern matches the whole clause gives its facts. A rule is a line in a table: the pattern, the sentence
and the slot it makes. The name of a group in a pattern says what must stand there: `place` is a capitalised name, `langs` are
known languages; so most of what only looks like a fact ("I live in fear", "I'm sorry") fits no rule.

What a reader would get wrong: a rule that matches more is not a better rule. What is missed is said again one day; what is
wrong is told to a model for years. So patterns begin where the clause begins, a clause that asks, supposes or reports ends
the sentence, and a text that is longer than people type is a document, not the user's words.
"""

# ruff: noqa: E501 - a rule is one line of a table
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, product
from typing import NamedTuple

from msgspec.structs import replace

from praisonaiagents.memory.facts import Fact
from praisonaiagents.memory.words import CATEGORIES, DIETS, JOBS, LANGUAGES, NATIONS, PETS, RELATIVES, TOOLS

LONGEST_TEXT = 4_000  # characters
LONGEST_SENTENCE = 300
MOST_SENTENCES = 40
_LONGEST_VALUE = 80


def extract(user_text: str, assistant_text: str | None = None) -> list[Fact]:
    """The facts that the user states in this text, in its order, each once. Never raises, whatever the text.

    assistant_text: what was answered. No rule reads it: what a model says about the user is not what the user said.
    """
    found: dict[Fact, None] = {}
    about = _About()
    for sentence in islice(_sentences(_own_words(user_text)), MOST_SENTENCES):
        for fact in _facts_in(sentence, about):
            if not _SECRET.search(fact.text):
                found.pop(fact, None)
                found[fact] = None
    return list(found)


def is_secret(text: str) -> bool:
    """True if a text speaks of a password, a key or the like, or looks like one: that is never remembered."""
    return _SECRET.search(text) is not None


# --- from a text to clauses ---

_FENCE = re.compile(r"```|~~~")
_QUOTED = re.compile(r'`[^`\n]{1,300}`|"[^"\n]{1,300}"|“[^”\n]{1,300}”|«[^»\n]{1,300}»|„[^“”\n]{1,300}[“”]')
_SINGLE_QUOTED = re.compile(r"(?<!\w)'[^'\n]{1,300}'(?!\w)")
_QUOTE = "\ufffc"  # stands where a quote was; no value may hold it
_BAD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_SENTENCE_END = re.compile(r"(?<!\bSt\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<=[.!?])\s+|[\r\n]+")
_LEAD = re.compile(
    r"^(?:(?:hi|hello|hey|good (?:morning|evening|afternoon)|so|well|ok|okay|alright|and|but|also|just|oh|fyi|btw|by the way"
    r"|sorry|no|yes|thanks|thank you|great|sure|update|today|now|currently|these days|nowadays|at the moment|from now on"
    r"|for the record|to be clear|in fact|correction|actually)(?![\w'-])(?: there\b)?[\s,:!.-]{0,4})",
    re.I,
)
_CORRECTS = re.compile(r"(?:^|[\s,.!])(?:actually|correction|no,|no longer|sorry,|in fact)[\s,:.!]?", re.I)
_CLAUSE_END = re.compile(
    r"(?:,? (?:and|but|while|so|or) (?:please )?|[,;:] (?:and |but |so |or )?|\. )"
    r"(?=(?:i|i'm|i've|i'd|my|we|we've|we'll|our|call me|please|let's|remember|he|she|they|it|it's|her|his|its"
    r"|can|could|would|what|where|who|how|is|are|do|does)\b)",
    re.I,
)
_SAME_SUBJECT = re.compile(
    r",? (?:and|but) (?=(?:also |really |can't |cannot |don't |do not |never )?(?:am|live|work|like|love|enjoy|hate|dislike"
    r"|stand|prefer|speak|use|have|come|study)\b)",
    re.I,
)
_ASKS = re.compile(
    r"^(?:what|who|whom|whose|where|when|why|how|which|is|are|was|were|do|does|did|can|could|will|would|should|has|am)\b"
    r"|\?\W*$",
    re.I,
)
_TAG = re.compile(
    r"^(?:right|correct|yes|no|or not|isn't it|don't i|am i not|aren't i|or (?:am|do|is|was) \w+)\W*$", re.I
)
_UNSURE = re.compile(
    r"\b(?:if|unless|imagine|suppose|supposing|pretend|assume|assuming|hypothetically|would|wish|maybe|perhaps|might|could"
    r"|probably|possibly|guess|let's say|role-?play|as though|joking|kidding|just kidding|not sure|don't know|whether)\b"
    r"|\b(?:says?|said|tells?|told|claims?|claimed|thinks?|thought|believes?|wrote|writes|asked|asks|sang|sings|quote)\b"
    r"|\b(?:used to|formerly|previously|back then|years ago)\b",
    re.I,
)
_SECRET = re.compile(
    r"\b(?:pass ?(?:word|phrase|code)|api[ _-]?key|access[ _-]?key|secret|private key|token|pin(?: code)?|cvv|cvc|ssn|iban"
    r"|social security|credentials?|(?:credit|debit) card)\b"
    r"|\b(?:sk|pk|rk|ghp|gho|ghs|glpat|xox[abp])[-_]\w{8}|\bAKIA[0-9A-Z]{12}|\beyJ[\w-]{10}|-----BEGIN"
    r"|(?:\d[ -]?){13,19}|(?=\S*\d)(?=\S*[A-Za-z])[A-Za-z0-9+/_=-]{20,}",
    re.I,
)


def _own_words(text: str) -> str:
    """The text without code, quotes and control characters; nothing if it is a document."""
    if len(text) > LONGEST_TEXT:
        return ""
    prose = " \n ".join(_FENCE.split(text)[::2])
    lines = (line for line in prose.splitlines() if not line.startswith((">", "    ", "\t", " >")))
    plain = _BAD.sub(" ", "\n".join(lines)).replace("’", "'").replace("‘", "'")
    return _SINGLE_QUOTED.sub(_QUOTE, _QUOTED.sub(_QUOTE, plain))


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE_END.split(text):
        plain = " ".join(sentence.split())
        if plain and len(plain) <= LONGEST_SENTENCE:
            yield plain


def _clauses(sentence: str) -> Iterator[str]:
    """The clauses up to the first that asks, supposes or reports; what comes after depends on it."""
    clauses = _CLAUSE_END.split(_without_lead(sentence))
    if sentence.rstrip("\"')] ").endswith("?") and (len(clauses) == 1 or _TAG.match(clauses[-1])):
        return
    for clause in clauses:
        clause = _without_lead(clause)
        if _ASKS.search(clause) or _UNSURE.search(clause):
            return
        if not _SECRET.search(clause):
            yield from _with_subject(clause)


def _with_subject(clause: str) -> Iterator[str]:
    """The clause, and "like B" of "I like A and like B" with the subject they share."""
    first, *more = _SAME_SUBJECT.split(clause)
    yield first
    subject = re.match(r"i\b|we\b", first, re.I)
    if subject:
        yield from (f"{subject[0]} {part}" for part in more)


def _without_lead(text: str) -> str:
    for _ in range(4):
        shorter = _LEAD.sub("", text)
        if shorter == text:
            break
        text = shorter
    return text


# --- the plain form of a clause ---

_FORMS = [
    (re.compile(pattern, re.I), form)
    for pattern, form in (
        (r"^please,? ", ""),
        (r"\b(is|am) not [^,]{1,40}?,? but ", r"\1 "),
        (r"\bisn't [^,]{1,40}?,? but ", "is "),
        (r"^(i|we)(?:'m|'re) ", r"\1 am "),
        (r"^we are ", "we am "),
        (r"^(i|we)(?:'ve| have) (?=(?:just|recently|now|already|also|been|moved|switched|decided|settled|agreed|chosen)\b)", r"\1 "),
        (r"^(i|we)'ll ", r"\1 will "),
        (r"^(i|we) (?:been|am) (?=learning\b)", r"\1 am "),
        (r"^((?:i|we)(?: am| will)?) (?:(?:just|recently|currently|now|already|also|really|still|actually|always|mostly|mainly"
         r"|usually|often|mainly|primarily|absolutely|truly|totally|originally|both) ){1,3}", r"\1 "),
        (r"\b(?:cannot|can not)\b", "can't"),
        (r"\bdo not\b", "don't"),
        (r"\bis not\b", "isn't"),
        (r"^(my [\w' -]{1,40}?)'s (?=(?:called|named|a|an|from|not)\b)", r"\1 is "),
        (r"^(my [\w' -]{0,30}name)'s ", r"\1 is "),
        (r",? not [^,]{1,40}$", ""),
        (r"(?:,? (?:any ?more|now|too|as well|very much|a lot|so much|these days|nowadays|today|yesterday|again|though|by the way"
         r"|please|thanks|thank you|instead|at work|last (?:week|month|year)|this (?:week|month|year)|(?:a few|two) \w+ ago)){1,3}$", ""),
    )
]  # fmt: skip
_GONE = re.compile(r"\b(?:any ?more|no longer)\b", re.I)
_APPOSITION = re.compile(r"^(i am [^,]{1,40}), (?=an? )", re.I)
_JOB_AND_ORIGIN = re.compile(r"^(i am an? [^,]{1,40}?) (from (?-i:[A-Z]).{1,40})$", re.I)
_JOB_AND_EMPLOYER = re.compile(r"^(i (?:am employed|work|am working)) (as an? .{1,40}?) ((?:at|for|by) .{1,40})$", re.I)
_EMPLOYER_AND_JOB = re.compile(r"^(i (?:am employed|work|am working)) ((?:at|for|by) .{1,40}?) (as an? .{1,40})$", re.I)


def _plain(clause: str) -> list[str]:
    """The plain forms of a clause: several if it says several things of one subject."""
    if re.match(r"my name is not\b(?!.*\bbut\b)|my name isn't\b(?!.*\bbut\b)", clause, re.I):
        return []
    gone = bool(_GONE.search(clause)) and not re.search(r"\bno longer\b", clause, re.I)
    clause = clause.strip(" .!,;:")
    for pattern, form in _FORMS:
        clause = pattern.sub(form, clause)
    if gone:
        clause = re.sub(r"^i (?:don't|am not)", lambda found: _NO_LONGER[found[0].lower()], clause, flags=re.I)
    plain = [
        f"i am {part}" if place else part for place, part in enumerate(_APPOSITION.sub("\\1\n", clause).split("\n"))
    ]
    for pattern in (_JOB_AND_ORIGIN, _JOB_AND_EMPLOYER, _EMPLOYER_AND_JOB):
        plain = [part for whole in plain for part in _apart(pattern, whole)]
    return plain


_NO_LONGER = {"i don't": "i no longer", "i am not": "i am no longer"}


def _apart(pattern: re.Pattern[str], clause: str) -> list[str]:
    found = pattern.match(clause)
    if found is None:
        return [clause]
    if found.re is _JOB_AND_ORIGIN:
        return [found[1], f"i am {found[2]}"]
    return [f"{found[1]} {found[2]}", f"{found[1]} {found[3]}"]


# --- what must stand in a group ---

_CUT = re.compile(
    r",? (?:because|since|but|so|although|though|while|when|as|after|before|until|which|who|where|that|with|near|and (?:i|my|we)"
    r"|for (?:a|an|the past|the last|\d+|many|about|over) [\w ]{0,20}?(?:years?|months?|weeks?|now))\b.*$",
    re.I,
)
_POINTS_BACK = re.compile(
    r"^(?:it|that|this|these|those|you|your|him|her|them|how|what|when|where|why|who|the (?:idea|way|fact|same|sound|look|other|first|second|third|last|next|former|latter)|one|some|and|or"
    r"|everything|nothing|anything|something|all|to (?:know|see|be|ask|say|think|believe|thank)|an? (?:example|lot|bit))\b",
    re.I,
)
_PARTICLES = frozenset("de da del della der den van von bin ibn al el la le du dos e y of the and & am an".split())
_DATE = re.compile(
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\d|\d.*\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
    r"|\b\d{1,4}[-/.]\d{1,2}(?:[-/.]\d{1,4})?\b",
    re.I,
)
_ZONE = re.compile(
    r"[A-Za-z]+/[A-Za-z_]+(?:/[A-Za-z_]+)?|(?i:utc|gmt)(?: ?[+-] ?\d{1,2}(?::?\d{2})?)?|[A-Z]{2,5}|[A-Z][a-z]+ time",
    re.A,
)
_LIST = re.compile(r",? (?:and|&|or) |, ")


def _value(text: str) -> str:
    text = _CUT.sub("", text).strip(" .!,;:()")
    return text if text and len(text) <= _LONGEST_VALUE and _QUOTE not in text and any(map(str.isalnum, text)) else ""


def _proper(text: str, most: int) -> list[str]:
    """A name of up to so many words, each with a capital or of a script that has none."""
    words = _value(text).split()
    large = [word for word in words if _capital(word)]
    fits = 0 < len(words) <= most and bool(large) and all(word in large or word in _PARTICLES for word in words)
    return [" ".join(words)] if fits and (words[0] in large or words[0] == "the") else []


def _capital(word: str) -> bool:
    return (word[0].isalpha() and not word[0].islower()) or word[0].isdigit()


def _name(text: str) -> list[str]:
    found = _proper(re.split(r",? (?:and|from|in|at|here)\b|, ", text)[0], 4)
    shouts = any(len(word) > 2 and word.isupper() and word.isascii() for name in found for word in name.split())
    odd = any(word.lower() in NATIONS or word[0].isdigit() for name in found for word in name.split())
    return [] if shouts or odd else found


def _names(text: str) -> list[str]:
    names = [_name(part) for part in _LIST.split(text)]
    return [" and ".join(name for found in names for name in found)] if names and all(names) else []


def _place(text: str) -> list[str]:
    first = text.split(", ")
    return _proper(text, 6) if len(first) > 1 and _proper(first[1], 3) else _proper(first[0], 5)


def _job(text: str) -> list[str]:
    value = _value(text)
    words = value.lower().split()
    return [value] if 0 < len(words) <= 4 and (words[-1] in JOBS) else []


def _thing(text: str) -> list[str]:
    value = _value(text)
    return [] if not value or _POINTS_BACK.match(value) or len(value.split()) > 7 else [value]


def _things(text: str) -> list[str]:
    parts = _LIST.split(_value(text))
    parts = parts if all(0 < len(part.split()) <= 3 for part in parts) else [text]
    return [thing for part in parts for thing in _thing(part)]


def _known(vocabulary: Iterable[str]) -> Callable[[str], list[str]]:
    """A guard that only lets words of a list pass, all or none."""
    words = {word.lower(): word for word in vocabulary}

    def guard(text: str) -> list[str]:
        parts = [part.lower().removeprefix("a bit of ").removeprefix("some ") for part in _LIST.split(_value(text))]
        return [words[part] for part in parts] if all(part in words for part in parts) else []

    return guard


def _techs(text: str) -> list[str]:
    """Tools by their names: known ones, or with a capital."""
    parts = [re.sub(r" (?:for|in|on|every|at|to)\b.*$", "", part) for part in _LIST.split(_value(text))]
    fits = all(part.lower() in TOOLS or _proper(part, 3) for part in parts)
    return parts if fits and not any(part.lower() in LANGUAGES for part in parts) else []


def _age(text: str) -> list[str]:
    return [text] if 0 < int(text) <= 120 else []


def _note(text: str) -> list[str]:
    words = text.strip(" .!,;:").split()
    return [_third_person(" ".join(words))] if len(words) > 2 and _QUOTE not in text else []


def _third_person(text: str) -> str:
    text = re.sub(r"^my ", "the user's ", text, flags=re.I)
    return text[:1].upper() + text[1:]


_GUARDS: Mapping[str, Callable[[str], list[str]]] = {
    "name": _name,
    "names": _names,
    "place": _place,
    "org": lambda text: _proper(re.split(r", | (?:in|on)\b", text)[0], 5),
    "job": _job,
    "thing": _thing,
    "other": _thing,
    "topic": lambda text: [text.lower()] if len(text.split()) <= 3 else [],
    "things": _things,
    "lang": _known(LANGUAGES.values()),
    "techs": _techs,
    "date": lambda text: [text] if _DATE.search(_value(text)) else [],
    "zone": lambda text: [text] if _ZONE.fullmatch(text) else [],
    "age": _age,
    "diet": lambda text: [text.lower()],
    "rel": lambda text: [text.lower()],
    "pet": lambda text: [text.lower().removesuffix("s")],
    "tool": lambda text: [text.lower()],
    "style": lambda text: [text.lower()],
    "choice": lambda text: [] if re.match(r"an? ", text, re.I) else _thing(text),
    "purpose": _thing,
    "note": _note,
    "number": lambda text: [text.lower()],
}


# --- the rules ---


class _Rule(NamedTuple):
    """A pattern, and the fact it makes. Groups of the pattern are the names in braces; `slot` may be made by a function."""

    pattern: re.Pattern[str]
    text: str
    slot: str | Callable[[Mapping[str, str]], str | None] | None
    kind: str = "fact"
    confidence: float = 0.9
    denies: str | None = None


def _decided(values: Mapping[str, str]) -> str | None:
    """Two decisions contradict each other if they choose the same kind of thing for the same purpose."""
    category = CATEGORIES.get(values["choice"].lower())
    return category and ".".join(["decision", category, *([_key(values["purpose"])] if "purpose" in values else [])])


def _rival(values: Mapping[str, str]) -> str:
    return "user.prefers." + "/".join(sorted((_key(values["thing"]), _key(values["other"]))))


def _rules(table: Iterable[tuple[str, ...] | tuple[object, ...]]) -> list[_Rule]:
    return [_Rule(re.compile(rf"^(?:{line[0]})$", re.I), *line[1:]) for line in table]  # type: ignore[arg-type]


_REL = rf"(?P<rel>{'|'.join(sorted(RELATIVES, key=len, reverse=True))})"
_PET = rf"(?P<pet>(?:{'|'.join(PETS)})s?)"
_NUMBER = r"(?P<number>two|three|four|five|\d)"
_TOOL = r"(?P<tool>editor|ide|operating system|os|shell|browser|terminal|keyboard layout)"
_DIET = rf"(?P<diet>{'|'.join(DIETS)})"
_STYLE = r"(?P<style>short|brief|concise|simple|detailed|long|formal|informal|casual|friendly|technical|terse)"
_CHOOSE = r"(?:use|go (?:with|for)|stick with|stay with|adopt|pick|choose|switch to|move to|migrate to)"
_MADE = r"(?:we (?:decided|agreed|opted) to|let's|we will|we am going to|i decided to)"
_SETTLED = r"(?:we|i) (?:decided on|agreed on|settled on|opted for|chose|picked)"
_FOR = r" (?:for|as) (?P<purpose>.+?)"
_INSTEAD = r"(?: (?:instead of|rather than|over) .+)?"

_RULES = _rules((
    # who they are
    (r"my (?:full |first |real |given )?name is (?:now )?(?P<name>.+)", "The user's name is {name}", "user.name", "fact", 0.95),
    (r"i (?:am called|am named|go by) (?P<name>.+)", "The user's name is {name}", "user.name"),
    (r"i am (?P<name>.+)", "The user's name is {name}", "user.name", "fact", 0.8),
    (r"(?:you can |just |everyone )?calls? me (?P<name>.+)", "The user wants to be called {name}", "user.called", "preference"),
    (r"i (?:am|turned|am turning) (?P<age>\d{1,3})(?: years? old)?", "The user is {age} years old", "user.age"),
    (r"my age is (?P<age>\d{1,3})", "The user is {age} years old", "user.age"),
    (r"my birthday is (?:on )?(?:the )?(?P<date>.+)", "The user's birthday is {date}", "user.birthday"),
    (r"i was born on (?:the )?(?P<date>.+)", "The user was born on {date}", "user.birthday"),
    # where they are
    (r"i (?:live|am living|reside|am based|am located|settled) in (?P<place>.+)", "The user lives in {place}", "user.home"),
    (r"i (?:moved|relocated|am moving) (?:back )?(?:from .+? )?to (?P<place>.+)", "The user lives in {place}", "user.home"),
    (r"i no longer live in (?P<place>.+)", "The user no longer lives in {place}", "user.home", "correction", 0.9,
     "The user lives in {place}"),
    (r"i (?:come|am) (?:originally )?from (?P<place>.+)", "The user comes from {place}", "user.origin"),
    (r"i (?:was born(?: and raised)?|grew up) in (?P<place>.+)", "The user comes from {place}", "user.origin"),
    (r"my time ?zone is (?P<zone>.+)", "The user's time zone is {zone}", "user.timezone"),
    (r"i am (?:in|on) (?:the )?(?P<zone>.+?) time ?zone", "The user's time zone is {zone}", "user.timezone"),
    # work
    (r"i (?:work|am working|am employed) as (?:an? |the )?(?P<job>.+)", "The user works as a {job}", "user.job"),
    (r"(?:i am|my job is|my (?:role|profession) is|i became) (?:an? )?(?P<job>.+)", "The user works as a {job}", "user.job", "fact", 0.85),
    (r"i (?:work|am working|am employed) (?:at|for|by) (?P<org>.+)", "The user works at {org}", "user.employer"),
    (r"i started (?:a (?:new )?job |working )?(?:at|for) (?P<org>.+)", "The user works at {org}", "user.employer"),
    (r"my employer is (?P<org>.+)", "The user works at {org}", "user.employer"),
    (r"i (?:no longer work (?:at|for)|(?:quit|left) my job at) (?P<org>.+)", "The user no longer works at {org}", "user.employer", "correction", 0.9,
     "The user works at {org}"),
    (r"(?:i|we) am (?:working on|building|developing) (?P<thing>(?:an?|the|my|our) .+)", "The user is working on {thing}", None, "fact", 0.7),
    (r"my project is (?:called |named )?(?P<thing>.+)", "The user's project is {thing}", "user.project", "fact", 0.7),
    # what they use
    (r"(?:i|we|our team) (?:uses?|works? with|codes? in|programs? in|writes?|develops? in) (?P<techs>.+)", "The user uses {techs}", "user.uses.{techs}"),
    (r"(?:i|we) (?:no longer use|stopped using|quit using) (?P<techs>.+)", "The user no longer uses {techs}", "user.uses.{techs}", "correction"),
    (rf"my {_TOOL} is (?P<techs>.+)", "The user's {tool} is {techs}", "user.{tool}", "fact", 0.8),
    # languages
    (r"i speak (?:fluent |a little )?(?P<lang>.+)", "The user speaks {lang}", "user.speaks.{lang}"),
    (r"my (?:native|first) language is (?P<lang>.+)|my mother tongue is (?P<lang2>.+)", "The user speaks {lang}", "user.speaks.{lang}"),
    (r"i am (?:learning|studying) (?P<lang>.+)", "The user is learning {lang}", "user.learning.{lang}"),
    (r"i am learning (?P<techs>.+)", "The user is learning {techs}", "user.learning.{techs}"),
    # food
    (rf"i (?:am|became|went) (?:an? )?(?:strict(?:ly)? )?{_DIET}", "The user is {diet}", "user.diet.{diet}"),
    (rf"i (?:am no longer|am not|stopped being) (?:an? )?{_DIET}", "The user is no longer {diet}", "user.diet.{diet}", "correction"),
    (r"i am (?:\w+ly |very )?allergic to (?P<things>.+)", "The user is allergic to {things}", "user.allergy.{things}", "fact", 0.95),
    (r"i am (?:not|no longer) allergic to (?P<things>.+)", "The user is not allergic to {things}", "user.allergy.{things}", "correction"),
    (r"i have an? (?:\w+ )?(?P<things>\w+) allergy", "The user is allergic to {things}", "user.allergy.{things}"),
    (r"i am (?P<things>lactose|gluten|fructose|histamine)[- ]intolerant", "The user is {things} intolerant", "user.allergy.{things}"),
    (r"i (?:don't|never|can't|no longer) eat (?P<things>.+)", "The user does not eat {things}", "user.diet.{things}"),
    (r"i (?:don't|never|can't|no longer) drink (?P<things>.+)", "The user does not drink {things}", "user.diet.{things}"),
    # likes
    (r"my (?:all-time |absolute )?favou?rite (?P<topic>[\w -]{2,40}?) (?:is|are) (?:now )?(?P<thing>.+)",
     "The user's favorite {topic} is {thing}", "user.favorite.{topic}", "preference"),
    (r"(?P<thing>[^,]{2,40}) (?:is|are) my favou?rite (?P<topic>[\w -]{2,40})",
     "The user's favorite {topic} is {thing}", "user.favorite.{topic}", "preference"),
    (r"i (?:like|love|enjoy|adore|am (?:an? )?(?:\w+ )?(?:fan of|fond of|into)) (?P<things>.+)",
     "The user likes {things}", "user.likes.{things}", "preference", 0.85),
    (r"i (?:(?:don't|no longer|never) (?:really )?(?:like|love|enjoy)|hate|dislike|detest|loathe|can't stand|am not (?:an? )?(?:\w+ )?fan of) (?P<things>.+)",
     "The user does not like {things}", "user.likes.{things}", "preference", 0.85),
    (r"i prefer (?P<thing>.+?) (?:to|over|rather than|instead of) (?P<other>.+)", "The user prefers {thing} to {other}", _rival, "preference"),
    (r"i'd rather (?:have|use) (?P<thing>.+?) than (?P<other>.+)", "The user prefers {thing} to {other}", _rival, "preference"),
    (r"i prefer (?P<thing>.+)", "The user prefers {thing}", None, "preference", 0.85),
    # how they want to be answered
    (r"(?:always )?(?:answer|reply|respond|speak|talk)(?: to me)? (?:only )?in (?P<lang>\w+)", "The user wants answers in {lang}",
     "user.answers.language", "preference"),
    (rf"(?:always )?keep (?:your |the |all )?(?:answers|replies|responses) {_STYLE}", "The user wants {style} answers",
     "user.answers.length", "preference"),
    (rf"(?:always )?(?:be|give(?: me)?|use|write) {_STYLE}(?: answers| replies| responses)?", "The user wants {style} answers",
     "user.answers.length", "preference", 0.8),
    (r"(?:always )?use (?P<style>metric|imperial)(?: units| system)?", "The user wants {style} units", "user.units", "preference"),
    (r"(?P<note>(?:always|never) (?!been\b|had\b|mind\b|say\b|was\b|i\b)[a-z]+ .+)", "The user asks: {note}", None, "preference", 0.75),
    (r"don't (?P<thing>(?:use|write|add|include|call|address|apologi[sz]e|repeat) (?!that\b|this\b|it\b|the\b|these\b|those\b).+)", "The user asks: don't {thing}", None, "preference", 0.75),
    # decisions
    (rf"{_MADE} {_CHOOSE} (?P<choice>.+?){_FOR}{_INSTEAD}", "Decided: {choice} for {purpose}", _decided, "decision"),
    (rf"{_SETTLED} (?P<choice>.+?){_FOR}{_INSTEAD}", "Decided: {choice} for {purpose}", _decided, "decision"),
    (rf"{_MADE} {_CHOOSE} (?P<choice>.+?){_INSTEAD}", "Decided: {choice}", _decided, "decision", 0.8),
    (rf"{_SETTLED} (?P<choice>.+?){_INSTEAD}", "Decided: {choice}", _decided, "decision", 0.8),
    (r"we (?:decided|agreed) to (?P<note>.+)", "Decided: {note}", None, "decision", 0.8),
    # family and pets
    (rf"my {_REL}(?:'s name)? is (?:called |named )?(?P<name>.+)", "The user's {rel} is named {name}", "user.{rel}.name"),
    (rf"my {_REL} (?:lives|moved|is living) (?:in|to) (?P<place>.+)", "The user's {rel} lives in {place}", "user.{rel}.home"),
    (rf"my {_REL} works (?:at|for) (?P<org>.+)", "The user's {rel} works at {org}", "user.{rel}.employer"),
    (rf"my {_REL} (?:is|works as) an? (?P<job>.+)", "The user's {rel} works as a {job}", "user.{rel}.job"),
    (rf"my {_REL} is allergic to (?P<things>.+)", "The user's {rel} is allergic to {things}", "user.{rel}.allergy.{things}"),
    (rf"(?:i|we) have an? (?:\w+ ){{0,2}}{_REL}(?:,| named| called|, named) (?P<name>.+)", "The user's {rel} is named {name}", "user.{rel}.name"),
    (rf"(?:i|we) have an? (?:\w+ ){{0,2}}{_PET}(?:,| named| called|, named| whose name is) (?P<name>.+)",
     "The user has a {pet} named {name}", "user.{pet}.name"),
    (rf"(?:i|we) have {_NUMBER} (?:\w+ )?{_PET}(?:,| named| called|, named|:) (?P<names>.+)",
     "The user has {number} {pet}s named {names}", "user.{pet}.name"),
    (rf"(?:my|our) {_PET}(?:'s name)? is (?:called |named )?(?P<name>.+)", "The user has a {pet} named {name}", "user.{pet}.name"),
    (rf"(?:i|we) have an? (?:\w+ )?{_PET}", "The user has a {pet}", "user.{pet}"),
))  # fmt: skip
_SWITCHED = re.compile(r"^(?:i|we) (?:switched|migrated|changed) from (?P<old>.+?) to (?P<new>.+)$", re.I)
_NOTE = re.compile(
    r"^(?:please )?(?:remember|note|keep in mind|don't forget|do not forget|make a note|take note)"
    r"(?: that|:|,)? (?!when\b|how\b|what\b|me\b|this\b|about\b|it\b)(?P<note>.+)$",
    re.I,
)
_BESIDE = [
    _Rule(
        re.compile(rf"\b(?:my|our) (?i:{_REL}),? (?P<name>(?-i:[A-Z])[\w'-]+(?: (?-i:[A-Z])[\w'-]+)?)", re.I),
        "The user's {rel} is named {name}",
        "user.{rel}.name",
        confidence=0.85,
    ),
    _Rule(
        re.compile(rf"\b(?:my|our) {_NUMBER} {_PET},? (?P<names>(?-i:[A-Z])[\w'-]+ and (?-i:[A-Z])[\w'-]+)", re.I),
        "The user has {number} {pet}s named {names}",
        "user.{pet}.name",
        confidence=0.85,
    ),
    _Rule(
        re.compile(rf"\b(?:my|our) {_PET},? (?P<name>(?-i:[A-Z])[\w'-]+)", re.I),
        "The user has a {pet} named {name}",
        "user.{pet}.name",
        confidence=0.85,
    ),
]
_KIN = re.compile(rf"\b(?:my|our|an?) (?:\w+ )?(?:{_REL}|{_PET})\b", re.I)
_THEIR_NAME = re.compile(r"^(?:her|his|its|their) name is ", re.I)


class _About:
    """Whom "her" and "his" may mean: the relative or pet that was spoken of last."""

    kin: str | None = None

    def name(self, clause: str) -> str:
        """The clause with "her name" said in full, and the one it speaks of remembered."""
        if self.kin is not None:
            clause = _THEIR_NAME.sub(f"my {self.kin}'s name is ", clause)
        found = _KIN.search(clause)
        self.kin = (found["rel"] or found["pet"]) if found else self.kin
        return clause


def _facts_in(sentence: str, about: _About) -> Iterator[Fact]:
    note = _NOTE.match(_without_lead(sentence))
    if note and not _SECRET.search(sentence) and not sentence.endswith("?"):
        inner = list(_stated(note["note"], about))
        yield from inner or [Fact(text, "note", None, 1.0) for text in _note(note["note"])]
    elif not note:
        yield from _stated(sentence, about)


def _stated(sentence: str, about: _About) -> Iterator[Fact]:
    corrects = bool(_CORRECTS.search(sentence))
    for clause in _clauses(sentence):
        for plain in _plain(about.name(clause)):
            for fact in (*_of_clause(plain), *_beside(plain)):
                yield replace(fact, kind="correction") if corrects and fact.kind == "fact" else fact


def _of_clause(clause: str) -> list[Fact]:
    """The facts of the first rule that gives any."""
    switched = _SWITCHED.match(clause)
    if switched:
        return [*_of_clause(f"i no longer use {switched['old']}"), *_of_clause(f"i use {switched['new']}")]
    return next(filter(None, (_made(rule, rule.pattern.match(clause)) for rule in _RULES)), [])


def _beside(clause: str) -> list[Fact]:
    """Facts that stand in passing: "with my wife Clara"."""
    return next(filter(None, (_made(rule, rule.pattern.search(clause)) for rule in _BESIDE)), [])


def _made(rule: _Rule, found: re.Match[str] | None) -> list[Fact]:
    if found is None:
        return []
    groups = {name.removesuffix("2"): text for name, text in found.groupdict().items() if text is not None}
    allowed = [[(name, value) for value in _GUARDS[name](text)] for name, text in groups.items()]
    return [_fact(rule, dict(values)) for values in product(*allowed)]


def _fact(rule: _Rule, values: Mapping[str, str]) -> Fact:
    keys = {name: _key(value) for name, value in values.items()}
    slot = rule.slot(values) if callable(rule.slot) else rule.slot and rule.slot.format(**keys)
    text = rule.text.format(**values)
    if rule.kind == "decision" and values.get("choice", "").lower() in CATEGORIES:
        text = text.replace(values["choice"], f"{values['choice']} is used", 1)
    return Fact(
        re.sub(r"\b(works as) a (?=[aeio])", r"\1 an ", text),
        rule.kind,
        slot,
        rule.confidence,
        rule.denies and rule.denies.format(**values),
    )


def _key(value: str) -> str:
    return re.sub(r"^(?:the|our|my|an?) ", "", value.casefold())
