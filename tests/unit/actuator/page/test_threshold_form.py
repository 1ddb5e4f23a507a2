import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure_actuator.page.threshold_form import MAX_TYPED, fields_of, percentage, read

GOOD = dict(zip(THRESHOLD_NAMES, ("50", "70", "80", "97"), strict=True))


def errors(**typed):
    fields, ratios = read(GOOD | typed, hysteresis=0.05)
    assert bool(ratios) != any(field.error for field in fields)
    return {field.name: field.error for field in fields if field.error}


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.8, "80"), (1, "100"), (1.0, "100"), (0.825, "82.5"), (0.05, "5"), (0.5501, "55.01"), (0.1, "10"), (0, "0")],
)
def test_a_percentage_has_the_digits_that_matter(ratio, text):
    assert percentage(ratio) == text


@given(st.integers(501, 10_000))
def test_what_is_shown_is_read_as_it_was(ten_thousandths):
    ratio = ten_thousandths / 10_000
    assert read({"warning": percentage(ratio)}, hysteresis=0.05)[0][0].error == ""
    assert float(percentage(ratio)) == pytest.approx(100 * ratio, rel=1e-12)


def test_the_form_shows_what_holds_and_reads_it_back():
    thresholds = Thresholds(0.5, 0.725, 0.8, 1.0)
    fields = fields_of(thresholds)
    assert [(field.name, field.text, field.exit) for field in fields] == [
        ("warning", "50", "45"),
        ("unload_packages", "72.5", "67.5"),
        ("aggressive_unload", "80", "75"),
        ("emergency", "100", "95"),
    ]
    assert read({field.name: field.text for field in fields}, hysteresis=0.05)[1] == thresholds.as_dict()


@pytest.mark.parametrize("text", ["82.5", " 82.5 ", "82,5", "82.5%", "82.5 %", "8.25e1"])
def test_percentages_as_people_type_them(text):
    assert read(GOOD | {"aggressive_unload": text}, hysteresis=0.05)[1]["aggressive_unload"] == 0.825


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "is empty"),
        ("much", "is not a number"),
        ("8o", "is not a number"),
        ("0x50", "is not a number"),
        ("nan", "is out of range"),
        ("inf", "is out of range"),
        ("-80", "is out of range"),
        ("101", "is out of range"),
        ("5", "is out of range"),
        ("1e999999", "is out of range"),
        ("9" * 1000, "is out of range"),
    ],
)
def test_what_is_no_percentage_is_named_at_its_field(text, error):
    found = errors(warning=text)
    assert found == {"warning": f"{error}; send a percentage above 5 and up to 100"}
    assert read(GOOD | {"warning": text}, hysteresis=0.05)[0][0].text == text[:MAX_TYPED]


def test_what_is_out_of_order_is_named_with_what_it_must_be_above():
    assert errors(emergency="80") == {"emergency": "must be above Aggressive unload, 80 %"}
    assert errors(unload_packages="x", aggressive_unload="40") == {
        "unload_packages": "is not a number; send a percentage above 5 and up to 100",
        "aggressive_unload": "must be above Warning, 50 %",
    }


def test_a_field_that_was_not_sent_is_empty():
    fields, ratios = read({}, hysteresis=0.05)
    assert ratios == {}
    assert all(field.text == "" and field.error for field in fields)


@given(st.dictionaries(st.sampled_from(THRESHOLD_NAMES), st.text() | st.floats(0, 110).map(str)))
def test_what_the_form_takes_the_thresholds_take(typed):
    _, ratios = read(typed, hysteresis=0.05)
    if ratios and ratios["warning"] - 0.05 >= 0.0001:
        assert Thresholds.from_mapping(ratios).as_dict() == ratios
