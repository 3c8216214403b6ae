"""What may not cost more than so much is not rented at a price that nobody knows."""

from __future__ import annotations

from runctl.platforms.rented import estimated, too_dear, within
from runctl.spec import Offer, Plan


def offer(market: str, price: float | None, machine: str = "big") -> Offer:
    return Offer("aws", machine, market, "us-east-1", "us-east-1a", price)


CHEAP, DEAR, UNKNOWN = offer("on_demand", 1.0), offer("on_demand", 3.0), offer("on_demand", None)
BID = offer("spot", None)


def test_without_a_limit_all_of_them_are_tried() -> None:
    assert within([CHEAP, DEAR, UNKNOWN], None) == ((CHEAP, DEAR, UNKNOWN), ())


def test_an_unknown_price_is_left_out_and_said_once_but_on_spot_where_the_bid_bounds_it() -> None:
    kept, left_out = within([BID, CHEAP, DEAR, UNKNOWN, UNKNOWN], 2.0)
    assert kept == (BID, CHEAP)
    [said] = left_out
    assert said == (
        "big on demand in us-east-1: its price is not known, so it is left out (platform.max_price_usd_per_hour=2)"
    )


def test_where_nothing_is_left_the_reason_is_the_one_that_holds() -> None:
    assert "its price is not known" in str(too_dear([UNKNOWN], within([UNKNOWN], 2.0)[1], 2.0))
    said = str(too_dear([UNKNOWN, DEAR], (), 2.0))
    assert said == "platform.max_price_usd_per_hour=2.0: the cheapest is big on demand in us-east-1a at 3.0 USD an hour"


def test_spot_of_an_unknown_price_costs_at_most_what_the_same_does_on_demand() -> None:
    def estimate(*offers: Offer) -> float | None:
        return estimated(Plan("one", 1, "aws", (), {}, 1, 1, ".", "runs/one", offers=offers), 7200.0, 0.5).estimate_usd

    assert estimate(offer("spot", 0.3), BID, CHEAP) == 3.0
    assert estimate(offer("spot", 0.3), BID) is None
    assert estimate(BID, offer("on_demand", 1.0, "other")) is None
    assert estimate() is None
