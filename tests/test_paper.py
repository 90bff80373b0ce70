"""Tables for papers: ±, bold, booktabs; hostile names set and never run."""

from __future__ import annotations

import re

import pytest
from judged import NAN, judged
from test_tables import HOSTILE, saved

from tune_cache.probes.metrics import Score
from tune_cache.reports.paper import latex_escaped, latex_tables, markdown_tables, paper_table

RAN = re.compile(r"\\(?!textbf|pm|begin|end|centering|caption|label|toprule|midrule|bottomrule|par|"
                 r"smallskip|footnotesize|raggedright|text[a-z]+\{\}|equiv|times|cdot|ge\b|le\b|usepackage|"
                 r"[{}$&#_%]|\\)")  # fmt: skip


def hostile():
    return [
        judged(text, text, 0.5, encoder=text, note=text, probe=text, flags=[text], warnings=[text],
               aggregation_options={"o": text}, dataset=text, task=text)
        for text in HOSTILE
    ]  # fmt: skip


def body(text):
    """Rows of the one table, cells stripped."""
    inner = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    return [
        [cell.strip() for cell in line.removesuffix(r"\\").split("&")]
        for line in inner.strip().splitlines()
    ]


def cells():
    return [
        judged("mean", test=0.6, is_reference=True, as_good=True),
        judged("max", test=0.7, as_good=True),
        judged("min", test=0.65, as_good=False),
        judged("first", test=NAN, test_low=NAN, as_good=None),
    ]


def test_latex_has_half_intervals_and_bold_for_what_is_as_good():
    text = latex_tables([paper_table(cells())])
    assert [(row[1], row[2]) for row in body(text)] == [
        ("max", r"\textbf{0.700 $\pm$ 0.100}"),
        ("min", r"0.650 $\pm$ 0.100"),
        ("mean", r"\textbf{0.600 $\pm$ 0.100}"),
        ("first", "–".replace("–", "--")),
    ]
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", "booktabs"))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    assert "fewer than 20 groups never show that" in text
    assert "encoder mel; probe ridge; layer 6 (best)" in text


def test_markdown_has_the_same():
    title, table, notes = markdown_tables([paper_table(cells())]).split("\n\n")
    assert title.startswith("data · task: accuracy on test\nencoder mel")
    lines = table.splitlines()
    assert lines[0] == "| seg | agg | accuracy | val |"
    assert lines[1] == "| --- | --- | ---: | ---: |"
    assert lines[2] == "| 10 | max | **0.700 ± 0.100** | 0.700 |"
    assert lines[3] == "| 10 | min | 0.650 ± 0.100 | 0.650 |"
    assert notes.splitlines()[0].startswith("- ±: half the 95 % bootstrap interval")


def test_other_metrics_and_what_is_the_same_have_their_places():
    others = {"macro_f1": Score(value=0.25, low=0.0, high=1.0)}
    table = paper_table([judged(others=others, same_seg=["full"], same_aggregation=["max"])])
    row = dict(zip(table.header, table.cells[0], strict=True))
    assert (row["seg"], row["agg"], row["macro_f1"]) == ("10 = full", "mean = max", "0.250")


def test_few_shot_runs_have_rows_and_are_never_bold():
    table = paper_table([], [saved(1, shots=5, probe="knn 5-shot")], notes=("said",))
    assert table.bold == (False,)
    assert table.cells[0][table.header.index("r2")] == "0.500 ± 0.100"
    assert table.notes[-1] == "said"


def test_latex_runs_nothing_of_a_name_and_keeps_its_columns():
    table = paper_table(hostile())
    text = latex_tables([table])
    assert not RAN.search(text.replace(r"\\", ""))
    inside = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    widths = {len(re.findall(r"(?<!\\)&", line)) for line in inside.strip().splitlines()}
    assert widths == {len(table.header) - 1}
    for line in text.splitlines():
        plain = re.sub(r"\\[{}]", "", line)
        assert plain.count("{") == plain.count("}"), line
        assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0
        assert not re.search(r"(?<!\\)[%#]", line) or line.startswith("% ")
    assert not re.search(r"\\\\\s*[\[*]", text)  # would be an argument of the line's end
    assert all(character.isprintable() for line in text.splitlines() for character in line)


@pytest.mark.parametrize("text", [r"\input{/etc/passwd}", "a}b{", "50% & $x$ #_~^", "[x]*"])
def test_escaping_keeps_every_letter(text):
    escaped = latex_escaped(text)
    for mark in "{}%&$#_":
        assert len(re.findall(rf"(?<!\\)\{mark}", escaped)) == 0 or mark in "{}"
    letters = re.sub(r"\\text[a-z]+\{\}", "", escaped)
    assert re.sub(r"[^a-z0-9/]", "", letters) == re.sub(r"[^a-z0-9/]", "", text)


def test_markdown_escapes_every_mark():
    text = markdown_tables([paper_table(hostile())])
    plain = text.replace("**0.500 ± 0.100**", "")
    assert not re.search(r"(?<!\\)[<`*]", plain)
    assert not re.search(r"(?<!\\)\[", plain)
    assert all(character.isprintable() for line in text.splitlines() for character in line)
    for block in text.split("\n\n"):
        widths = {
            len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines() if line[0] == "|"
        }
        assert len(widths) <= 1
