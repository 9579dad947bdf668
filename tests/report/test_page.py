"""What stands in a report: complete by itself, everything escaped, and a word for everything that is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import numpy as np
import pytest

from vogcore.data import ArraySource, Preprocess
from vogcore.errors import DataError, OutputExistsError, SettingsError, StoreError, VogcoreError
from vogcore.report import write_report
from vogcore.report.data import open_data
from vogcore.report.images import Look
from vogcore.store import CheckpointInfo, Direction

from .runs import HOSTILE, pictures, run

SECTIONS = [
    "summary", "which-end", "deciles", "kept", "distribution", "early-late", "companions", "classes", "examples",
    "details",
]  # fmt: skip


def source_of(scores, x, **changes) -> ArraySource:
    return ArraySource(x, scores.labels, **changes)


def test_a_report_has_all_its_parts_and_needs_nothing_else(full_page):
    page = full_page
    assert [i for i in page.ids() if i in SECTIONS] == SECTIONS
    links = [a.get(name) for _, a in page.tags for name in ("src", "href") if a.get(name)]
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    # Addresses occur as names of the SVG's namespaces only.
    assert set(re.findall(r"https?://[^\"'\s<]+", page.html)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    }  # fmt: skip
    assert "Missing:" not in page.text


def test_ids_are_unique_and_links_lead_somewhere(full_page):
    page = full_page
    ids = page.ids()
    assert sorted(set(ids)) == sorted(ids)
    aimed = [a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")]
    aimed += re.findall(r"url\(#([^)]+)\)", page.html)
    aimed += [i for _, a in page.tags for n in ("aria-labelledby", "aria-describedby", "for") for i in [a.get(n)] if i]
    assert sorted(set(aimed) - set(ids)) == []


def test_every_chart_has_a_title_and_its_numbers(full_page):
    page = full_page
    charts = [a for tag, a in page.tags if tag == "svg"]
    assert len(charts) >= 10
    assert all(a["role"] == "img" for a in charts)
    figures = re.findall(r'<figure class="chart" id="([^"]+)">(.*?)</figure>', page.html, re.DOTALL)
    without = [ident for ident, content in figures if "<table" not in content]
    # Its numbers are the table above it.
    assert without == ["chart-directions"]


def test_names_with_html_and_scripts_stay_text(report):
    scores = run(classes=3, maps=(28, 28))
    scores.classes = [HOSTILE, '<b>bold</b> & "q" \'', "$x^2$ <!-- --> ]]> {{ 7 * 7 }}"]
    scores.ids = np.array([f"{HOSTILE}{i}" for i in range(len(scores))])
    scores.checkpoints = [CheckpointInfo(HOSTILE, epoch=c) for c in range(6)]
    scores.warnings = [HOSTILE]
    scores.settings = {HOSTILE: HOSTILE, "of": HOSTILE, "data": {"name": HOSTILE}}
    scores.stages = {(HOSTILE.replace("/", "|") if n == "middle" else n): s for n, s in scores.stages.items()}
    scores.stages[HOSTILE.replace("/", "|")].name = HOSTILE.replace("/", "|")
    scores.companions[HOSTILE] = scores.companions.pop("el2n")
    page = report(scores, source_of(scores, pictures(labels=scores.labels)), title=HOSTILE)
    assert len(page.scripts) == 2
    assert "taken" not in page.scripts[1]
    assert json.loads(page.scripts[0])["classes"][0] == HOSTILE
    assert page.count("b") == 0
    assert '<b>bold</b> & "q" \'' in page.text
    assert "{{ 7 * 7 }}" in page.text
    # Twice the marks that end a script: those of the page's own two scripts.
    assert page.html.count("</script>") == 2
    assert HOSTILE in page.text


def test_marks_that_turn_text_around_are_written_out(report):
    scores = run(classes=2)
    scores.classes = ["left\u202eright", "nul\x00 bell\x07"]
    page = report(scores)
    assert "\u202e" not in page.html
    assert "\x00" not in page.html
    assert "left\\u202eright" in page.text


def test_the_policy_names_the_script_of_the_page_by_its_hash(full_page):
    page = full_page
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_which_end_is_hard_is_said_as_measured(full_page):
    scores, page = run(), full_page
    assert scores.direction.measured == "higher is harder"
    assert "On this run higher VoG is harder" in page.text
    assert "high end is the hard one, as measured" in page.text
    # Everything in the file is measured, and the best is never one of the yardsticks.
    numbers = json.loads(page.scripts[0])["scores"]
    assert len(numbers) == 4 * 3 + len(scores.companions)
    assert all(entry["measured"] != "not measured" for entry in numbers)
    best = re.search(r"Of the companions, (\w+) separates errors best", page.text)[1]
    area = {e["name"]: e["auroc_errors"] for e in numbers if e["stage"] is None}
    others = {name: max(a, 1 - a) for name, a in area.items() if name not in ("loss", "correct")}
    assert others[best] == max(others.values())


def test_a_measured_end_against_the_claim_is_a_warning(report):
    scores = run()
    for stage in scores.stages.values():
        stage.vog, stage.vog_raw = -stage.vog, 1 / stage.vog_raw
        stage.directions = {
            "vog": Direction(
                measured="lower is harder", spearman_loss=-0.5, spearman_low=-0.6, spearman_high=-0.4,
                auroc_errors=0.2, n_errors=50, n_examples=400,
            )
        }  # fmt: skip
    page = report(scores)
    assert "On this run lower VoG is harder" in page.text
    assert "contradicts the paper" in page.text
    assert "opposite of the claim" in page.text
    assert "the low end is the hard one, as measured" in page.text
    assert "lowest vog (hard end)" in page.text


def test_without_labels(report):
    scores = run()
    n = len(scores)
    for stage in scores.stages.values():
        stage.directions = {}
    scores.labels = np.full(n, -1)
    scores.companions = {"entropy": scores.companions["entropy"]}
    scores.predictions_label_probability = None
    page = report(scores)
    assert page.text.count("the score file has no labels, or no predictions") == 3
    assert "no distribution by class" in page.text
    assert "All examples: lowest vog" in page.text
    assert [i for i in page.ids() if i in SECTIONS] == SECTIONS


def test_without_logits(report):
    scores = run()
    for stage in scores.stages.values():
        stage.directions = {}
    scores.companions, scores.predictions_class, scores.predictions_label_probability = {}, None, None
    page = report(scores)
    assert "no companion metrics" in page.text
    assert "no history over the checkpoints" in page.text
    assert "No direction was measured" in page.text
    assert [i for i in page.ids() if i in SECTIONS] == SECTIONS


def test_without_stages_data_maps_and_classes(report):
    scores = run(k=3)
    page = report(scores)
    assert "no two stages to compare" in page.text
    assert "no data were given" in page.text
    assert "score with --maps" in page.text
    scores.classes, scores.labels = [], np.full(len(scores), -1)
    for stage in scores.stages.values():
        stage.class_mean = stage.class_std = np.empty(0)
    assert "There are no classes" in report(scores).text


def test_scores_that_are_not_finite(report):
    scores = run()
    scores.stages["late"].vog[:] = np.nan
    scores.stages["all"].vog[::3] = np.nan
    scores.stages["early"].vog_relative = None
    page = report(scores)
    assert "400 examples without a value" in page.text
    assert "134 examples without a value" in page.text
    assert "nan" not in page.text.lower().split()
    for stage in scores.stages.values():
        stage.vog[:] = np.nan
    page = report(scores)
    assert "has no finite value" in page.text
    assert [i for i in page.ids() if i in SECTIONS] == SECTIONS


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_examples(report, n):
    scores = run(n=n, classes=2, k=2)
    page = report(scores, source_of(scores, pictures(n, labels=scores.labels)))
    assert [i for i in page.ids() if i in SECTIONS] == SECTIONS


def test_one_score_for_all_and_one_label_for_all(report):
    scores = run(classes=1)
    for stage in scores.stages.values():
        stage.vog[:] = 0.0
        stage.directions = {}
    page = report(scores)
    assert "is the same for all examples" in page.text


def test_data_of_another_size_or_content_are_refused():
    scores = run()
    x = pictures(labels=scores.labels)
    with pytest.raises(DataError, match="holds 399 examples and the scores are of 400"):
        open_data(x[:-1], scores)
    assert "records no fingerprint" in open_data(x, scores).note
    scores.settings["data"] = {"name": "train.npz", "sha256": source_of(scores, x).fingerprint()}
    assert open_data(x, scores, labels=scores.labels).note == ""
    changed = x.copy()
    changed[7, 3, 3] ^= 1
    with pytest.raises(DataError, match="holds other examples or labels than those that were scored"):
        open_data(changed, scores, labels=scores.labels)
    with pytest.raises(DataError, match="holds other examples or labels"):
        open_data(x, scores, labels=np.roll(scores.labels, 1))
    # Another mean, given to show the pictures, makes no other data.
    assert open_data(x, scores, labels=scores.labels, preprocess=Preprocess(mean=3.0)).note == ""


def test_large_data_are_compared_by_their_number_alone(monkeypatch):
    monkeypatch.setattr("vogcore.report.data.MOST_BYTES_COMPARED", 1000)
    scores = run()
    scores.settings["data"] = {"name": "train.npz", "sha256": "0" * 64}
    assert "not their content" in open_data(pictures(labels=scores.labels), scores).note


def test_data_that_are_refused_are_left_out_with_a_word(tmp_path):
    scores, path = run(), tmp_path / "r.html"
    told = write_report(scores, path, pictures(labels=scores.labels)[:5])
    text = path.read_text(encoding="utf-8")
    assert "holds 5 examples and the scores are of 400" in told[0]
    assert told[0] in text
    assert "<img" not in text


def test_preprocessing_is_taken_from_the_score_file():
    scores = run()
    x = pictures(labels=scores.labels, channels=3)
    preprocess = Preprocess(scale=1 / 255, mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.3], layout="nhwc->nchw")
    scored = source_of(scores, x, preprocess=preprocess)
    scores.settings |= {
        "preprocess": preprocess.to_dict(),
        "data": {"name": "x", "sha256": scored.fingerprint(), "shape": [400, 3, 28, 28]},
    }
    data = open_data(x, scores, labels=scores.labels)
    assert data.note == ""
    assert data.look == Look("chw", 0.0, 1.0)
    np.testing.assert_allclose(data.example(3), x[3].transpose(2, 0, 1) / 255, atol=1e-6)


def test_what_is_asked_for_and_cannot_be_had(tmp_path):
    scores, path = run(), tmp_path / "r.html"
    with pytest.raises(SettingsError, match=r"no stage 'last'; these scores have"):
        write_report(scores, path, stage="last")
    with pytest.raises(SettingsError, match=r"no score 'loss'; choose one of"):
        write_report(scores, path, score="loss")
    with pytest.raises(SettingsError, match="images=-1"):
        write_report(scores, path, images=-1)
    with pytest.raises(SettingsError, match="layout of images 'whc'"):
        write_report(scores, path, layout="whc")
    with pytest.raises(StoreError, match="does not exist; create it first"):
        write_report(scores, tmp_path / "none" / "r.html")
    scores.stages["all"].vog_relative = None
    with pytest.raises(SettingsError, match="has no vog_relative"):
        write_report(scores, path, score="vog_relative")
    assert list(tmp_path.iterdir()) == []
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(scores, path)
    assert path.read_text() == "mine"


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(VogcoreError, match=r"needs the package matplotlib.*vogcore\[report\]"):
        write_report(run(), tmp_path / "r.html")


def test_a_thousand_classes_are_in_the_table_and_few_are_shown(report):
    scores = run(n=4000, classes=1000, k=2)
    page = report(scores, classes=3)
    assert page.html.count('<th scope="row" data-value') == 0
    assert page.text.count("kind 999") >= 1
    grids = [a for tag, a in page.tags if tag == "div" and a.get("class") == "group"]
    assert len(grids) <= 6
    assert "Shown are the 3 classes with the highest error rate of 1,000" in page.text


def test_charts_do_not_depend_on_the_users_settings(report):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "path", "axes.facecolor": "red", "font.size": 40}):
        first = report(run())
        assert matplotlib.rcParams["font.size"] == 40
    assert first.html == report(run()).html
