from __future__ import annotations

from katsuo.evaluate.verdict import Claim, verdict

ZERO_SHOT = Claim("zero-shot", 12.34, 8.1, 16.4, 500)
RAW = Claim("self-supervision", 14.0, 9.0, 19.0, 500)


def test_the_verdict_is_a_sentence_with_gain_interval_and_number_of_items():
    general = Claim("general instruction following", -0.4, -1.2, 0.5, 300)
    assert verdict([ZERO_SHOT, RAW], forgetting=general) == (
        "+12.3 macro F1 over zero-shot (95 % 8.1 to 16.4, n = 500), +14.0 over self-supervision; "
        "general instruction following −0.4 (not significant)"
    )


def test_a_gain_whose_interval_holds_zero_is_called_not_significant():
    doubtful = Claim("zero-shot", 1.0, -0.5, 2.5, 1500, metric="f1")
    assert verdict([doubtful]) == "+1.0 F1 over zero-shot (95 % −0.5 to 2.5, n = 1,500, not significant)"
    assert verdict([ZERO_SHOT, doubtful]).endswith(", +1.0 F1 over zero-shot (not significant)")


def test_a_loss_is_said_as_one():
    assert verdict([Claim("zero-shot", -3.0, -5.0, -1.0, 100)]).startswith("−3.0 macro F1 over zero-shot (95 % −5.0 to")
    assert verdict([Claim("zero-shot", -0.01, -1.0, 1.0, 100)]).startswith("0.0 macro F1")


def test_warnings_stand_in_the_verdict():
    told = verdict([Claim("zero-shot", 12.0, 8.0, 16.0, 29)], warnings=["only 29 items", "3 test rows were left out"])
    assert told.endswith("over zero-shot (95 % 8.0 to 16.0, n = 29); only 29 items; 3 test rows were left out")
    assert verdict([]) == "nothing to compare with"
