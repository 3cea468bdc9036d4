"""Orders of an emergency: the compiled form and the nftables program say of every flow what `decide` says."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cellwall.compile import OrderBook, compile_fleet, judge, without_expired
from cellwall.enforce.nft.fake import FakeKernel
from cellwall.enforce.nft.orders import cut_mark, with_orders
from cellwall.enforce.nft.render import render
from cellwall.flows import Outcome, Side
from cellwall.policy import Mode, Order, OrderKind, Tier, decide_at
from tests.property.test_nft_fake_agrees import LOCAL, NOW, counted_verdict, packet_of
from tests.property.worlds import World, flows, orders, worlds


@settings(max_examples=settings().max_examples * 3)
@given(st.data(), worlds())
def test_the_compiled_form_and_the_program_agree_with_decide_about_orders(data: st.DataObject, world: World) -> None:
    given_orders = data.draw(orders(world.fleet, NOW))
    later = data.draw(st.sampled_from([NOW, NOW + 61]))
    compiled = compile_fleet(world.policy, world.fleet, 1, NOW, given_orders)
    # What is not begun when it is compiled comes with the next compilation.
    given_orders = tuple(order for order in given_orders if order.in_time(NOW))
    programs = {name: render(point.ruleset, point.members, LOCAL) for name, point in compiled.points.items()}
    kernels = {name: FakeKernel(program, later) for name, program in programs.items()}
    for _ in range(12):
        flow = data.draw(flows(world.fleet))
        for side in Side:
            own, peer = (flow.source, flow.destination) if side is Side.EGRESS else (flow.destination, flow.source)
            if own.workload is None or own.workload not in compiled.points or own.workload == peer.workload:
                continue
            point = compiled.points[own.workload]
            expected = decide_at(side, world.policy, world.fleet, flow, NOW, _left(given_orders, later))
            asked = (point.members, side, own.address, peer.address, flow.protocol, flow.port, own.identity)
            ruleset = replace(point.ruleset, orders=without_expired(point.ruleset, later).orders)
            judged = judge(ruleset, *asked)
            assert (judged.outcome, judged.would, judged.tier) == (expected.outcome, expected.would, expected.tier)
            assert judged.rules == expected.because

            fate = kernels[own.workload].run("input" if side is Side.INGRESS else "output", packet_of(flow))
            assert fate.passed is (expected.outcome is Outcome.ALLOWED)
            assert fate.mark == 0
            counted = counted_verdict(fate, point.ruleset)
            if expected.tier is Tier.ORDER:
                assert counted is not None
                assert counted[:2] == (expected.outcome, expected.would)
                assert counted[2] == expected.because[0]
            # What answers is refused by the mark of an order that stands, and by none that is over.
            asked_for = packet_of(flow)
            for card in point.ruleset.orders:
                stands = card.shuts and (card.expires is None or card.expires > later)
                answer = replace(
                    asked_for,
                    source=asked_for.destination,
                    destination=asked_for.source,
                    state="established",
                    reply=True,
                    connection_mark=cut_mark(card.number),
                )
                hook = "output" if side is Side.INGRESS else "input"
                # What no flow can have as its ends has no chain.
                stands = stands and f"answer_{card.id}" in programs[own.workload].shapes
                assert kernels[own.workload].run(hook, answer).passed is not stands
                assert kernels[own.workload].run(hook, replace(answer, connection_mark=0)).passed


def _left(given_orders: tuple[Order, ...], now: float) -> tuple[Order, ...]:
    return tuple(replace(order, expires=None) if order.shuts else order for order in given_orders if order.in_time(now))


@given(st.data(), worlds())
def test_orders_put_into_a_program_make_the_one_that_has_them_from_the_start(data: st.DataObject, world: World) -> None:
    first, second = (data.draw(orders(world.fleet, NOW)) for _ in range(2))
    before = compile_fleet(world.policy, world.fleet, 1, NOW, first).points
    after = compile_fleet(world.policy, world.fleet, 1, NOW, second).points
    for name, point in after.items():
        held = render(before[name].ruleset, before[name].members, LOCAL)
        wanted = render(point.ruleset, point.members, LOCAL)
        assert with_orders(held, point.ruleset.orders) == wanted


@given(st.data(), worlds())
def test_a_point_that_has_no_part_in_an_order_would_never_be_asked_about_it(data: st.DataObject, world: World) -> None:
    given_orders = data.draw(orders(world.fleet, NOW))
    book = OrderBook(given_orders, world.fleet, NOW)
    without = {
        one.name: {order.id for order in given_orders} - {card.id for card in book.at(one)}
        for one in world.fleet.workloads
    }
    for _ in range(12):
        flow = data.draw(flows(world.fleet))
        for end, side in ((flow.source, Side.EGRESS), (flow.destination, Side.INGRESS)):
            if end.workload is not None and end.agent:
                verdict = decide_at(side, world.policy, world.fleet, flow, NOW, given_orders)
                if verdict.tier is Tier.ORDER:
                    assert not without[end.workload] & set(verdict.because)


@given(st.data(), worlds())
def test_what_an_order_shuts_is_shut_in_every_mode_and_but_for_an_opening_nothing_opens(
    data: st.DataObject, world: World
) -> None:
    given_orders = data.draw(orders(world.fleet, NOW))
    closing = [order for order in given_orders if order.kind is not OrderKind.OPEN]
    for _ in range(12):
        flow = data.draw(flows(world.fleet))
        for end, side in ((flow.source, Side.EGRESS), (flow.destination, Side.INGRESS)):
            if not end.agent:
                continue
            plain = decide_at(side, world.policy, world.fleet, flow, NOW)
            ordered = decide_at(side, world.policy, world.fleet, flow, NOW, closing)
            assert not (plain.outcome is Outcome.DENIED and ordered.outcome is Outcome.ALLOWED)
            if ordered.tier is Tier.ORDER:
                assert ordered.outcome is Outcome.DENIED
                assert ordered.mode in Mode
