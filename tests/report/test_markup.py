from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from featherweight.report.markup import Markup, cell, column, element, escaped, joined, row, table
from tests.report.documents import Document


@given(st.text())
def test_text_comes_back_as_it_went_in(words) -> None:
    page = Document(element("p", words, title=words))
    normal = words.replace("\r\n", "\n").replace("\r", "\n")
    assert [tag for tag, _ in page.tags] == ["p"]
    assert page.text.replace("\r\n", "\n").replace("\r", "\n") == normal
    assert page.named("p")[0]["title"] == words


def test_markup_is_not_escaped_twice() -> None:
    inner = element("b", "a < b & c")
    assert inner == "<b>a &lt; b &amp; c</b>"
    assert element("p", inner) == f"<p>{inner}</p>"
    assert escaped(inner) is inner


def test_a_plain_str_that_looks_like_markup_is_escaped() -> None:
    assert element("p", "<b>") == "<p>&lt;b&gt;</p>"
    assert element("p", str(Markup("<b>")) + "") == "<p>&lt;b&gt;</p>"


def test_lone_surrogates_are_spelled_out() -> None:
    made = element("p", "bad\udc80name")
    assert made == "<p>bad\\udc80name</p>"
    assert made.encode()


def test_attributes() -> None:
    made = element("td", class_="x", aria_label='a "b"', open=True, width=1 / 3, height=2, id=None)
    assert made == '<td class="x" aria-label="a &quot;b&quot;" open width="0.33" height="2"></td>'


def test_void_elements_are_not_closed() -> None:
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_none_is_left_out() -> None:
    assert joined(["a", None, 0]) == "a0"


def test_a_table_names_itself_its_columns_and_its_rows() -> None:
    made = table("what", [column("a"), column("b", number=True, sortable=True)], [row("r", cell("1", value=0.1))])
    page = Document(made)
    assert [one.get("scope") for one in page.named("th")] == ["col", "col", "row"]
    assert "data-sort" in page.named("th")[1]
    assert page.named("td") == [{"class": "number", "data-value": "0.1"}]
    assert ("caption", "what") in page.texts
