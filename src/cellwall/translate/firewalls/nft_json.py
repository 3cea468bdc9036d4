"""The JSON of `nft -j list ruleset` (libnftables-json(5)), as the same ruleset that its text is."""

from __future__ import annotations

import json
from typing import Any, cast

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

_QUIET = frozenset({"counter", "log", "mangle", "notrack", "comment", "flow", "secmark"})
_HOW = {"in": "==", "==": "==", "!=": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">="}
Object = dict[str, Any]


class _Odd(Exception):
    """Something that this file does not read."""


def read_json(file: str, text: str) -> list[Table]:
    """Read what `nft -j list ruleset` writes. Raises `PolicyError` where it is not that."""
    place = Place(file, 1, 1)
    try:
        whole: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise PolicyError(Place(file, error.lineno, error.colno), f"not JSON: {error.msg.lower()}") from None
    except (ValueError, RecursionError):
        raise PolicyError(place, "not JSON that can be read") from None
    listed = _map(whole).get("nftables")
    if not isinstance(listed, list):
        raise PolicyError(place, "there is no list `nftables`; wanted what `nft -j list ruleset` writes")
    tables: dict[tuple[str, str], Table] = {}
    for one in _list(cast("object", listed)):
        for kind, made in _map(one).items():
            _object(tables, kind, made, place)
    if not tables:
        raise PolicyError(place, "there is no table; wanted what `nft -j list ruleset` writes")
    return list(tables.values())


def _object(tables: dict[tuple[str, str], Table], kind: str, made: object, place: Place) -> None:
    if kind not in ("table", "chain", "rule", "set", "map"):
        return
    one = _map(made)
    family = _text(one, "family", place)
    if kind == "table":
        name = _text(one, "name", place)
        tables[family, name] = Table(family, name, place)
        return
    table = tables.get((family, _text(one, "table", place)))
    if table is None:
        raise PolicyError(place, f"a {kind} stands before its table")
    if kind == "rule":
        chain = table.chains.get(_text(one, "chain", place))
        if chain is None:
            raise PolicyError(place, "a rule stands before its chain")
        chain.rules.append(_rule(table, chain, one, place))
        return
    name = _text(one, "name", place)
    if kind == "chain":
        kind_of, hook = (_text(one, key, place) if key in one else "" for key in ("type", "hook"))
        policy = VERDICTS["drop"] if one.get("policy") == "drop" else VERDICTS["accept"]
        table.chains[name] = Chain(name, place, kind_of, hook, policy)
    else:
        table.sets[name] = _set(name, one, place)


def _text(one: Object, key: str, place: Place) -> str:
    value = one.get(key)
    if not isinstance(value, str):
        raise PolicyError(place, f"`{key}` is missing, or no text")
    return value


def _set(name: str, one: Object, place: Place) -> NamedSet:
    made = NamedSet(name, place)
    made.temporary = temporary(flag for flag in _list(one.get("flags")) if isinstance(flag, str))
    try:
        for item in _list(one.get("elem")):
            if "map" in one:
                key, value = _pair(item)
                made.verdicts.append((_element(key), _verdict(value)))
            else:
                made.elements.append(_element(item))
    except _Odd as reason:
        made.unread = f"an element of `{name}` is not understood: {reason}"
    return made


def _rule(table: Table, chain: Chain, one: Object, place: Place) -> Rule:
    statements: list[Statement] = []
    aside: list[str] = []
    for item in _list(one.get("expr")):
        if len(_map(item)) != 1:
            statements.append(Riddle(place, "a statement is not understood"))
            continue
        word, value = next(iter(_map(item).items()))
        try:
            statement = _statement(place, word, value)
        except _Odd as reason:
            statements.append(Riddle(place, str(reason)))
            statement = Verdict(Does.DROP, "", UNKNOWN) if word in ("vmap", *VERDICTS) else None
            if statement is None:
                continue
        if statement is None:
            aside.extend([word] if word != "counter" else [])
        else:
            statements.append(statement)
    comment = one.get("comment")
    handle = one.get("handle")
    text = f"{table.family} {table.name} {chain.name}" + (f" handle {handle}" if isinstance(handle, int) else "")
    return Rule(place, tuple(statements), text, comment if isinstance(comment, str) else "", tuple(aside))


def _statement(place: Place, word: str, value: object) -> Statement | None:
    if word in VERDICTS or word == "queue":
        return _verdict({word: value})
    one = _map(value)
    if word in _QUIET or (word == "set" and one and not one.get("stmt")):
        return None
    if word == "match":
        return _match(place, one)
    if word == "vmap":
        data, fields = one.get("data"), _fields(one.get("key"))
        if isinstance(data, str) and data.startswith("@"):
            return Branch(place, fields, data)
        pairs = [_pair(item) for item in _list(_map(data).get("set"))]
        return Branch(place, fields, tuple((_element(key), _verdict(verdict)) for key, verdict in pairs))
    raise _Odd(f"`{word}` is not a thing a policy speaks of")


def _match(place: Place, one: Object) -> Statement:
    left, right = one.get("left"), one.get("right")
    how = _HOW.get(_word(one.get("op")), "")
    masked = _list(_map(left).get("&"))
    if len(masked) == 2 and how in ("==", "!=") and _field(masked[0]) == "tcp flags":
        return Flags(place, _words(masked[1]), _words(right), how == "!=")
    fields = _fields(left)
    if not how:
        raise _Odd(f"relation `{_word(one.get('op'))}` is not a thing a policy speaks of")
    if isinstance(right, str) and right.startswith("@"):
        return Match(place, fields, how, right)
    listed = _map(right).get("set", right)
    some = _list(listed)
    if not some and listed != []:
        some = [listed]
    return Match(place, fields, how, tuple(_element(item) for item in some))


def _fields(left: object) -> tuple[str, ...]:
    joined = _list(_map(left).get("concat"))
    fields = tuple(_field(one) for one in joined or [left])
    for field in fields:
        if field not in FIELDS:
            raise _Odd(f"`{field}` is not a thing a policy speaks of")
    return fields


def _field(one: object) -> str:
    whole = _map(one)
    if len(whole) != 1:
        return "this"
    kind, inner = next(iter(whole.items()))
    made = _map(inner)
    if kind == "payload" and "protocol" in made:
        return f"{_word(made['protocol'])} {_word(made.get('field'))}"
    if kind == "meta":
        return f"meta {_word(made.get('key'))}"
    if kind == "ct" and set(made) == {"key"}:
        return f"ct {_word(made['key'])}"
    if kind == "fib" and made.get("result") == "type":
        return f"fib {' . '.join(_words(made.get('flags')))} type"
    return kind


def _element(item: object) -> Element:
    bare = _map(item).get("elem")
    value = _map(bare).get("val") if bare is not None else item
    joined = _list(_map(value).get("concat"))
    return tuple(_part(part) for part in joined or [value])


def _part(item: object) -> str:
    one = _map(item)
    prefix, ends = _map(one.get("prefix")), _list(one.get("range"))
    if prefix:
        return f"{_word(prefix.get('addr'))}/{_word(prefix.get('len'))}"
    return "-".join(_word(end) for end in ends) if len(ends) == 2 else _word(item)


def _word(item: object) -> str:
    """Write a text or a number. Raises `_Odd` for anything else."""
    if isinstance(item, (str, int)) and not isinstance(item, bool):
        return str(item)
    raise _Odd("a value is not understood")


def _words(item: object) -> tuple[str, ...]:
    found = tuple(_word(one) for one in (_list(item) or [item]))
    return () if found == ("0",) else found


def _pair(item: object) -> tuple[object, object]:
    some = _list(item)
    if len(some) != 2:
        raise _Odd("an element of a map is no pair")
    return some[0], some[1]


def _verdict(item: object) -> Verdict:
    one = _map(item)
    word, value = next(iter(one.items())) if len(one) == 1 else ("", None)
    if word == "queue":
        return Verdict(Does.DROP, "", UNKNOWN)
    target = _map(value).get("target")
    if word in ("jump", "goto") and isinstance(target, str):
        return Verdict(VERDICTS[word], target, word)
    if word in VERDICTS and word not in ("jump", "goto"):
        return Verdict(VERDICTS[word], "", word)
    raise _Odd("a verdict is not understood")


def _list(item: object) -> list[object]:
    return cast("list[object]", item) if isinstance(item, list) else []


def _map(item: object) -> Object:
    return cast("Object", item) if isinstance(item, dict) else {}


def is_json(text: str) -> bool:
    """Say whether a text looks like JSON."""
    return text.lstrip()[:1] == "{"
