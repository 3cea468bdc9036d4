from cellwall.analysis.algebra.atoms import Universe
from cellwall.analysis.algebra.boxes import Box
from cellwall.analysis.algebra.cover import Cover, Gap, Proof, Undecided, bits_of, places
from cellwall.policy import Policy, parse_policy


def cover(*rules: str, most_steps: int = 1000, vocabulary: str = "") -> Cover:
    lines = [f"  - {{id: r{number}, {rule}}}" for number, rule in enumerate(rules)]
    policy: Policy = parse_policy([("a.yaml", "\n".join([vocabulary, "rules:", *lines]))])
    return Cover(Universe(policy.rules, policy.labels), policy.rules, most_steps)


def boxes(of: Cover, rule: int) -> tuple[Box, ...]:
    return tuple(of.boxes[number] for number in places(of.of[rule]))


def told(of: Cover, rule: int) -> Proof | Gap | Undecided:
    return of.covered(boxes(of, rule), of.alive & ~of.of[rule])


def test_a_rule_is_covered_by_one_that_is_as_broad() -> None:
    made = cover("allow: tcp/80, from: role=web, to: any", "allow: tcp, from: role, to: any")
    assert told(made, 0) == Proof((1,))
    assert isinstance(told(made, 1), Gap)


def test_a_rule_is_covered_by_several_that_share_it() -> None:
    made = cover(
        "allow: tcp/80, from: env, to: any",
        "allow: tcp, from: env=prod, to: any",
        "allow: tcp, from: 'env!=prod', to: any",
    )
    proof = told(made, 0)
    assert isinstance(proof, Proof) and set(proof.rules) == {1, 2}


def test_values_that_a_vocabulary_lists_are_all_there_are() -> None:
    rules = ("allow: tcp/80, from: env, to: any", "allow: tcp, from: 'env in (prod,dev)', to: any")
    assert isinstance(told(cover(*rules), 0), Gap)
    assert told(cover(*rules, vocabulary="labels: {env: {values: [prod, dev]}}"), 0) == Proof((1,))


def test_sharing_a_value_is_covered_by_each_value_with_itself_where_these_are_all() -> None:
    rules = (
        "allow: tcp/80, from: any, to: any, same: env",
        "allow: tcp, from: env=prod, to: env=prod",
        "allow: tcp, from: env=dev, to: env=dev",
    )
    assert isinstance(told(cover(*rules), 0), Gap)
    closed = told(cover(*rules, vocabulary="labels: {env: {values: [prod, dev]}}"), 0)
    assert isinstance(closed, Proof) and set(closed.rules) == {1, 2}


def test_what_was_removed_covers_nothing() -> None:
    made = cover("allow: tcp/80, from: any, to: any", "allow: tcp, from: any, to: any")
    made.remove(1)
    assert isinstance(told(made, 0), Gap)


def test_what_takes_too_long_is_undecided() -> None:
    twice = ("allow: tcp, from: any, to: any", "allow: tcp, from: any, to: any")
    assert told(cover(*twice, most_steps=1), 0) == Proof((1,))
    halves = (
        "allow: tcp, from: any, to: any",
        "allow: tcp, from: network:all, to: '!b'",
        "allow: tcp, from: any, to: b",
    )
    networks = 'networks: {all: ["0.0.0.0/0", "::/0"]}'
    assert isinstance(told(cover(*halves, most_steps=2, vocabulary=networks), 0), Undecided)
    assert isinstance(told(cover(*halves, vocabulary=networks), 0), Gap), "who is no workload is not `!b` either"
    ends = ("allow: tcp, from: b, to: network:all", "allow: tcp, from: '!b', to: network:all")
    assert isinstance(told(cover(*halves, *ends, vocabulary=networks), 0), Proof)


def test_a_proof_is_cut_down_to_what_it_needs() -> None:
    made = cover(
        "allow: tcp/1-9, from: role=web, to: any",
        "allow: tcp/1-4, from: role=web, to: any",
        "allow: tcp/4-6, from: role=web, to: any",
        "allow: tcp/5-9, from: role=web, to: any",
    )
    whole = Proof((1, 2, 3))
    among = made.alive & ~made.of[0]
    assert made.least(boxes(made, 0), whole, among) == Proof((1, 3))


def test_what_boxes_share_is_found() -> None:
    made = cover(
        "allow: tcp/1-9, from: role=web, to: any",
        "deny: tcp/9, from: any, to: app=x",
        "deny: tcp/10, from: any, to: any",
    )
    (box,) = boxes(made, 0)
    touched = list(made.touching(box, made.boxes_of((1, 2))))
    assert [made.owner[number] for number, _ in touched] == [1]
    assert list(made.owners(made.of[0] | made.of[2])) == [0, 2]
    (other,) = boxes(cover("allow: tcp/1-9, from: role=db, to: any", "deny: tcp/9, from: role=web, to: any"), 0)
    apart = cover("allow: tcp/1-9, from: role=db, to: any", "deny: tcp/9, from: role=web, to: any")
    assert list(apart.touching(other, apart.of[1])) == []


def test_many_values_are_indexed_by_what_they_leave_out() -> None:
    values = ",".join(f"v{number}" for number in range(200))
    some = ",".join(f"v{number}" for number in range(90))
    made = cover(
        "allow: tcp/80, from: app=v7, to: any",
        f"allow: tcp, from: 'app in ({values})', to: any",
        f"allow: tcp, from: 'app notin ({some})', to: any",
        "allow: tcp, from: 'app!=v150', to: any",
    )
    assert told(made, 0) in (Proof((1,)), Proof((3,)))
    made.remove(1)
    assert told(made, 0) == Proof((3,))
    made.remove(3)
    assert isinstance(told(made, 0), Gap)


def test_sets_of_numbers_are_bits() -> None:
    assert bits_of([3, 3, 1]) == 0b1010
    assert list(places(bits_of(range(0, 100, 7)))) == list(range(0, 100, 7))
    assert list(places(0)) == []
