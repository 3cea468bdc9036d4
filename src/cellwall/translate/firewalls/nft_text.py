"""The text of `nft list ruleset`, read word by word; what is not understood becomes a riddle, with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cellwall.policy import Place, PolicyError
from cellwall.translate.firewalls.first_match import Does
from cellwall.translate.firewalls.nft_syntax import (
    FIELDS,
    UNKNOWN,
    VERDICTS,
    Branch,
    Chain,
    Element,
    Flags,
    Match,
    NamedSet,
    Riddle,
    Rule,
    Statement,
    Table,
    Verdict,
    temporary,
)

_TOKEN = re.compile(r'"([^"\n]*)"|(#[^\n]*)|(\n)|[ \t\r]+|([{};,]|!=|==|<=|>=|[<>=()&|!])|([^\s{};,"()=!<>&|#]+)')
_BARE_META = frozenset({"iif", "iifname", "oif", "oifname", "skuid", "skgid", "mark", "l4proto", "nfproto", "pkttype"})
_HOW = {"eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">="}
_RELATIONS = frozenset({"==", "!=", "<", ">", "<=", ">="})
_LIMIT_WORDS = frozenset({"rate", "over", "until", "burst", "packets", "bytes", "kbytes", "mbytes", "name"})
_LOG_WORDS = frozenset({"prefix", "level", "group", "snaplen", "queue-threshold", "flags"})


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a sign, or the end of a line; a word in quotes is told apart."""

    text: str
    line: int
    column: int
    start: int
    end: int
    quoted: bool = False


def read_text(file: str, text: str) -> list[Table]:
    """Read what `nft list ruleset` writes. Raises `PolicyError` where it is not that."""
    return _Text(file, text).tables()


class _Text:
    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._tokens = list(_tokens(file, text))
        self._at = 0

    # --- the cursor ---

    def _place(self, token: Token | None = None) -> Place:
        token = token or self._tokens[min(self._at, len(self._tokens) - 1)]
        return Place(self._file, token.line, token.column)

    def _next(self) -> Token:
        token = self._tokens[self._at]
        if token.text == "" and not token.quoted:
            raise PolicyError(self._place(token), "the text ends in the middle; wanted what `nft list ruleset` writes")
        self._at += 1
        return token

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _skip_ends(self) -> None:
        while _is(self._peek(), "\n", ";"):
            self._at += 1

    def _expect(self, *signs: str) -> Token:
        token = self._next()
        if not _is(token, *signs):
            raise PolicyError(self._place(token), f"found `{_shown(token)}`; wanted `{'` or `'.join(signs)}`")
        return token

    def _word(self) -> str:
        token = self._next()
        if _is(token, "\n", ";", "{", "}", ","):
            raise PolicyError(self._place(token), f"found `{_shown(token)}`; wanted a name")
        return token.text

    def _skip_block(self) -> None:
        self._expect("{")
        depth = 1
        while depth:
            token = self._next()
            depth += _is(token, "{") - _is(token, "}")

    def _line(self) -> list[Token]:
        """Take the tokens up to the end of a line or a semicolon, braces within whole."""
        taken: list[Token] = []
        depth = 0
        while depth or not _is(self._peek(), "\n", ";", "}"):
            token = self._next()
            depth += _is(token, "{") - _is(token, "}")
            if not _is(token, "\n"):
                taken.append(token)
        return taken

    # --- tables and what is in them ---

    def tables(self) -> list[Table]:
        found: list[Table] = []
        self._skip_ends()
        while self._peek().text or self._peek().quoted:
            place, word = self._place(), self._word()
            if word == "flush":
                self._line()
            elif word == "table":
                found.append(self._table(place))
            else:
                raise PolicyError(place, f"found `{word}`; wanted `table`, as `nft list ruleset` writes it")
            self._skip_ends()
        if not found:
            raise PolicyError(Place(self._file, 1, 1), "there is no table; wanted what `nft list ruleset` writes")
        return found

    def _table(self, place: Place) -> Table:
        table = Table(self._word(), self._word(), place)
        self._expect("{")
        while True:
            self._skip_ends()
            at, word = self._place(), self._next().text
            if word == "}":
                return table
            if word in ("set", "map"):
                name = self._word()
                table.sets[name] = self._set(name, at)
            elif word == "chain":
                name = self._word()
                if name in table.chains:
                    raise PolicyError(at, f"chain `{name}` is there twice")
                table.chains[name] = self._chain(name, at)
            elif word in ("comment", "flags"):
                self._line()
            elif word == "ct":
                self._word()
                self._word()
                self._skip_block()
            elif word in ("counter", "quota", "limit", "flowtable", "secmark", "synproxy", "meter"):
                self._word()
                self._skip_block()
            else:
                raise PolicyError(at, f"found `{word}`; wanted `chain`, `set`, `map` or `}}`")

    def _set(self, name: str, place: Place) -> NamedSet:
        made = NamedSet(name, place)
        self._expect("{")
        while True:
            self._skip_ends()
            if _is(self._peek(), "}"):
                self._at += 1
                return made
            line = self._line()
            if _is(line[0], "flags"):
                made.temporary = temporary(one.text for one in line)
            elif _is(line[0], "elements") and len(line) > 2 and _is(line[1], "=") and _is(line[2], "{"):
                for tokens in _parts(line[3:-1]):
                    self._element(made, tokens)

    def _element(self, made: NamedSet, tokens: list[Token]) -> None:
        element, rest = _element(tokens)
        if not element:
            made.unread = f"an element of `{made.name}` is not understood ({self._place(tokens[0])})"
        elif rest and _is(rest[0], ":"):
            verdict = _verdict(rest[1:])
            if verdict is None:
                made.unread = f"`{made.name}` maps to something other than verdicts"
            else:
                made.verdicts.append((element, verdict))
        else:
            made.elements.append(element)

    def _chain(self, name: str, place: Place) -> Chain:
        chain = Chain(name, place)
        self._expect("{")
        while True:
            self._skip_ends()
            if _is(self._peek(), "}"):
                self._at += 1
                return chain
            line = self._line()
            words = [one.text for one in line]
            if words[0] == "type" and len(words) > 3 and words[2] == "hook":
                chain.kind, chain.hook = words[1], words[3]
            elif words[0] == "policy" and len(words) == 2 and words[1] in ("accept", "drop"):
                chain.policy = VERDICTS[words[1]]
            elif words[0] == "policy" and len(words) == 2:
                raise PolicyError(self._place(line[1]), f"`{words[1]}` is no policy; wanted `accept` or `drop`")
            elif not (words[0] == "comment" and len(words) == 2):
                chain.rules.append(self._rule(line))

    # --- rules ---

    def _rule(self, line: list[Token]) -> Rule:
        text = " ".join(self._text[line[0].start : line[-1].end].split())
        comment = ""
        if len(line) > 1 and _is(line[-2], "comment") and line[-1].quoted:
            comment, line = line[-1].text, line[:-2]
        place = self._place(line[0]) if line else Place(self._file)
        statements: list[Statement] = []
        aside: list[str] = []
        at = 0
        while at < len(line):
            statement, used, word = self._statement(line[at:])
            if word:
                aside.append(word)
            if statement is not None:
                statements.append(statement)
            if isinstance(statement, Riddle) and not used:
                # What follows may belong to the riddle: only the verdict, which is last, is sure to be none of it.
                last = [
                    n for n, one in enumerate(line) if n >= at and not one.quoted and one.text in (*VERDICTS, "queue")
                ]
                if not last or last[-1] == at or any(_is(one, "vmap") for one in line):
                    if any(_is(one, "vmap", "queue", *VERDICTS) for one in line[at:]):
                        statements.append(Verdict(Does.DROP, "", UNKNOWN))
                    break
                used = last[-1] - at
            at += used
        return Rule(place, tuple(statements), text, comment, tuple(aside))

    def _statement(self, line: list[Token]) -> tuple[Statement | None, int, str]:
        """Read one statement: what it is, how many tokens it has (0: not known), and its name if it decides nothing."""
        word, place = ("" if line[0].quoted else line[0].text), self._place(line[0])
        if word in VERDICTS or word == "queue":
            verdict = _verdict(line)
            if verdict is None:
                return Riddle(place, f"`{word}` is not understood"), 0, ""
            return verdict, len(line), ""
        if word == "counter":
            return None, _counter(line), ""
        if word == "log":
            return None, _log(line), "log"
        if word == "notrack":
            return None, 1, "notrack"
        if word == "limit":
            used = 1
            while used < len(line) and (
                line[used].quoted or line[used].text in _LIMIT_WORDS or line[used].text[0].isdigit()
            ):
                used += 1
            return Riddle(place, "a limit of rate is not a thing a policy speaks of"), used, ""
        if word in ("add", "update", "delete") and len(line) > 2 and line[1].text.startswith("@") and _is(line[2], "{"):
            end = _closing(line, 2)
            asked = any(_is(one, "limit", "ct", "quota") for one in line[2:end])
            reason = "an element that is added within a limit is not a thing a policy speaks of"
            return (Riddle(place, reason), end + 1, "") if asked else (None, end + 1, f"{word} {line[1].text}")
        given = next((n for n, one in enumerate(line[:4]) if n and _is(one, "set")), 0)
        if given and given + 1 < len(line):
            return None, given + 2, " ".join(one.text for one in line[: given + 1])
        return self._match(line)

    def _match(self, line: list[Token]) -> tuple[Statement | None, int, str]:
        place = self._place(line[0])
        unknown = (
            Riddle(place, f"`{' '.join(_shown(one) for one in line[:2])}` is not a thing a policy speaks of"),
            0,
            "",
        )
        fields: list[str] = []
        at = 0
        while True:
            field, used = _field(line[at:])
            at += used
            if field == "tcp flags" and not fields:
                flags = _flags(place, line[at:])
                return (flags[0], at + flags[1], "") if flags else unknown
            if not field or at >= len(line):
                return unknown
            fields.append(field)
            if not _is(line[at], "."):
                break
            at += 1
        how = "=="
        if _is(line[at], *_RELATIONS, *_HOW):
            how = _HOW.get(line[at].text, line[at].text)
            at += 1
        elif _is(line[at], "vmap") and FIELDS.issuperset(fields):
            return self._branch(place, tuple(fields), line, at + 1) or unknown
        if at >= len(line) or any(field not in FIELDS for field in fields):
            return unknown
        if _is(line[at], "{"):
            end = _closing(line, at)
            found = [_element(tokens) for tokens in _parts(line[at + 1 : end])]
            if any(rest or not element for element, rest in found):
                return unknown
            return Match(place, tuple(fields), how, tuple(element for element, _ in found)), end + 1, ""
        if line[at].text.startswith("@") and not line[at].quoted:
            return Match(place, tuple(fields), how, line[at].text), at + 1, ""
        values, used = _values(line[at:])
        return (Match(place, tuple(fields), how, values), at + used, "") if used else unknown

    def _branch(
        self, place: Place, fields: tuple[str, ...], line: list[Token], at: int
    ) -> tuple[Statement | None, int, str] | None:
        if at >= len(line):
            return None
        if line[at].text.startswith("@") and not line[at].quoted:
            return Branch(place, fields, line[at].text), at + 1, ""
        if not _is(line[at], "{"):
            return None
        end = _closing(line, at)
        pairs: list[tuple[Element, Verdict]] = []
        for tokens in _parts(line[at + 1 : end]):
            element, rest = _element(tokens)
            verdict = _verdict(rest[1:]) if rest and _is(rest[0], ":") else None
            if not element or verdict is None:
                return None
            pairs.append((element, verdict))
        return Branch(place, fields, tuple(pairs)), end + 1, ""


def _tokens(file: str, text: str) -> Iterator[Token]:
    line, begin, at = 1, 0, 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        column = at - begin + 1
        if found is None:
            raise PolicyError(Place(file, line, column), "a quote is open, or a sign is not understood")
        quoted, comment, feed, sign, word = found.groups()
        if feed is not None:
            yield Token("\n", line, column, at, found.end())
            line, begin = line + 1, found.end()
        elif quoted is not None:
            yield Token(quoted, line, column, at, found.end(), quoted=True)
        elif comment is None and (sign or word):
            yield Token(sign or word, line, column, at, found.end())
        at = found.end()
    yield Token("", line, at - begin + 1, at, at)


def _is(token: Token, *signs: str) -> bool:
    return not token.quoted and token.text in signs


def _shown(token: Token) -> str:
    return {"\n": "end of line", "": "end of text"}.get(token.text, token.text)


def _parts(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Part the elements of a set at their commas."""
    part: list[Token] = []
    for token in tokens:
        if _is(token, ","):
            if part:
                yield part
            part = []
        else:
            part.append(token)
    if part:
        yield part


def _closing(line: Sequence[Token], at: int) -> int:
    depth = 0
    for end in range(at, len(line)):
        depth += _is(line[end], "{") - _is(line[end], "}")
        if not depth:
            return end
    return len(line) - 1


def _element(tokens: list[Token]) -> tuple[Element, list[Token]]:
    """Read an element, and what follows it from its colon on; what is said of it besides is left out."""
    words: list[str] = []
    at = 0
    while at < len(tokens):
        if not tokens[at].quoted and not re.match(r"[\w:*@.-]", tokens[at].text):
            return (), []
        words.append(tokens[at].text)
        at += 1
        if at >= len(tokens) or not _is(tokens[at], "."):
            break
        at += 1
    colon = next((n for n, one in enumerate(tokens) if n >= at and _is(one, ":")), len(tokens))
    aside = tokens[at:colon]
    if aside and not _is(aside[0], "timeout", "expires", "comment", "counter"):
        return (), []
    return tuple(words), tokens[colon:]


def _values(line: list[Token]) -> tuple[tuple[Element, ...], int]:
    """Read `80`, `"lo"`, `established,related` or `10.0.0.1 . 80`; with the number of tokens, 0 where it is none."""
    found: list[Element] = []
    at = 0
    while at < len(line):
        if not line[at].quoted and not re.match(r"[\w:*-]", line[at].text):
            return (), 0
        parts = [line[at].text]
        at += 1
        while at + 1 < len(line) and _is(line[at], "."):
            parts.append(line[at + 1].text)
            at += 2
        found.append(tuple(parts))
        if at >= len(line) or not _is(line[at], ","):
            return tuple(found), at
        at += 1
    return (), 0


def _field(line: list[Token]) -> tuple[str, int]:
    """Read the name of a field; with the number of its tokens, 0 where it is none."""
    words = [one.text for one in line[:4] if not one.quoted]
    if words and words[0] in _BARE_META:
        return f"meta {words[0]}", 1
    if words[:1] == ["fib"]:
        return (f"fib {words[1]} type", 3) if len(words) > 2 and words[2] == "type" else ("", 0)
    if len(words) > 1 and (f"{words[0]} {words[1]}" in FIELDS or words[:2] == ["tcp", "flags"]):
        return f"{words[0]} {words[1]}", 2
    return "", 0


def _flags(place: Place, line: list[Token]) -> tuple[Flags, int] | None:
    """Read `syn / fin,syn,rst,ack`, `!= syn / …`, or `& (fin | syn) == syn`."""
    at, but = 0, False
    if line and _is(line[0], "&"):
        mask, used = _flag_words(line[1:])
        at = 1 + used
        if not used or at >= len(line) or not _is(line[at], "==", "!="):
            return None
        but = _is(line[at], "!=")
        wanted, used = _flag_words(line[at + 1 :])
        return (Flags(place, mask, wanted, but), at + 1 + used) if used else None
    if line and _is(line[0], "==", "!="):
        at, but = 1, _is(line[0], "!=")
    wanted, used = _flag_words(line[at:])
    at += used
    if not used or at >= len(line) or not _is(line[at], "/"):
        return None
    mask, used = _flag_words(line[at + 1 :])
    return (Flags(place, mask, wanted, but), at + 1 + used) if used else None


def _flag_words(line: list[Token]) -> tuple[tuple[str, ...], int]:
    words: list[str] = []
    at = 0
    bracket = bool(line) and _is(line[0], "(")
    at += bracket
    while at < len(line) and not line[at].quoted and re.fullmatch(r"[a-z]+|0x0|0", line[at].text):
        if not line[at].text.startswith("0"):
            words.append(line[at].text)
        at += 1
        if at < len(line) and _is(line[at], ",", "|"):
            at += 1
            continue
        if bracket and (at >= len(line) or not _is(line[at], ")")):
            return (), 0
        return tuple(words), at + bracket
    return (), 0


def _counter(line: list[Token]) -> int:
    if len(line) > 4 and _is(line[1], "packets") and _is(line[3], "bytes"):
        return 5
    return 3 if len(line) > 2 and _is(line[1], "name") else 1


def _log(line: list[Token]) -> int:
    used = 1
    while used + 1 < len(line) and _is(line[used], *_LOG_WORDS):
        flags = _is(line[used], "flags")
        used += 2
        while flags and used < len(line) and _is(line[used], "sequence", "options", ","):
            used += 1
    return used


def _verdict(line: Sequence[Token]) -> Verdict | None:
    """Read a verdict that takes all of `line`."""
    word = line[0].text if line and not line[0].quoted else ""
    if word in ("jump", "goto"):
        return Verdict(VERDICTS[word], line[1].text, word) if len(line) == 2 else None
    if word == "queue":
        return Verdict(Does.DROP, "", UNKNOWN)
    if word == "reject" and (len(line) == 1 or _is(line[1], "with")):
        return Verdict(Does.DROP, "", word)
    return Verdict(VERDICTS[word], "", word) if word in VERDICTS and len(line) == 1 else None
