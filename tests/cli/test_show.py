"""``vogcore show``: what is printed of a score file, whatever it holds."""

from __future__ import annotations

import numpy as np
import pytest

from vogcore.cli._text import direction_sentence, printable, table
from vogcore.store import CheckpointInfo, Companion, Direction, Scores, StageScores

HIGHER = Direction(
    measured="higher is harder", spearman_loss=0.42, spearman_low=0.3, spearman_high=0.5, auroc_errors=0.7,
    n_errors=12, n_examples=30,
)  # fmt: skip
LOWER = Direction(
    measured="lower is harder", spearman_loss=-0.6, spearman_low=-0.7, spearman_high=-0.5, auroc_errors=0.2,
    n_errors=12, n_examples=30,
)  # fmt: skip
UNDETERMINED = Direction(
    measured="undetermined", spearman_loss=0.01, spearman_low=-0.2, spearman_high=0.2, auroc_errors=0.5, n_errors=12,
    n_examples=30,
)  # fmt: skip


def stage(name: str, vog: np.ndarray, classes: int, direction: Direction | None) -> StageScores:
    directions = {} if direction is None else {"vog": direction}
    spread = np.full(classes, 0.25)
    return StageScores(name, np.arange(3), vog + 10, vog, None, None, spread + 9, spread, "class", directions)


def scores(direction: Direction | None = HIGHER, n: int = 30, n_classes: int = 3, **changes) -> Scores:
    """Example i has the label i mod n_classes and the VoG i / 10: the last ones are the high ones."""
    vog = np.arange(n) / 10.0
    labels = np.arange(n) % n_classes
    predicted = labels.copy()
    predicted[-1] = 0
    values = {
        "stages": {
            "all": stage("all", vog, n_classes, direction),
            "late": stage("late", -vog, n_classes, UNDETERMINED),
        },
        "labels": labels,
        "ids": np.arange(n) + 1000,
        "classes": [f"kind {i}" for i in range(n_classes)],
        "class_count": np.bincount(labels, minlength=n_classes),
        "checkpoints": [CheckpointInfo(f"c{i}.onnx") for i in range(3)],
        "settings": {"of": "logit", "target": "label"},
        "companions": {
            "loss": Companion(np.linspace(0, 1, n), "higher is harder", "[0, inf)", "cross-entropy"),
            "correct": Companion(predicted == labels, "lower is harder", "0 or 1", "argmax"),
        },
        "predictions_class": np.stack([predicted] * 3).astype(np.int32),
    }
    return Scores(**(values | changes))


@pytest.fixture
def show(cli, tmp_path):
    """Save scores and show them: (status, what was printed)."""

    def call(what: Scores, *words: object):
        path = tmp_path / "scores.h5"
        what.save(path, overwrite=True)
        result = cli("show", path, *words)
        assert result.err == ""
        assert result.status == 0
        return result.out

    return call


def flat(text: str) -> str:
    """Text without its line ends."""
    return " ".join(text.split())


def ids_after(text: str, title: str) -> list[str]:
    """First column of the table below a line that starts with that title."""
    lines = text.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.strip().startswith(title)) + 2
    rows = []
    for line in lines[begin:]:
        if not line.startswith("  "):
            break
        rows.append(line.split()[0])
    return rows


def test_higher_is_harder(show):
    text = show(scores(HIGHER), "-n", "2")
    assert "On this run higher VoG is harder, moderately so" in text
    assert "+0.42 [+0.30, +0.50]" in flat(text)
    assert "WARNING" not in text
    block = text[text.index("Class kind 1\n") :]
    assert "hardest (highest VoG, as measured)" in block
    assert ids_after(block, "hardest") == ["1028", "1025"]
    assert ids_after(block, "easiest") == ["1001", "1004"]


def test_lower_is_harder_contradicts_the_paper_and_turns_the_lists(show):
    text = show(scores(LOWER), "-n", "2")
    text_of_lines = flat(text)
    assert "On this run lower VoG is harder, strongly so" in text_of_lines
    assert "WARNING: this contradicts the paper (Agarwal et al. 2022), by which higher is harder." in text_of_lines
    assert "The lists below follow the measurement." in text_of_lines
    assert "opposite of the claim" in text
    block = text[text.index("Class kind 1\n") :]
    assert "hardest (lowest VoG, as measured)" in block
    assert ids_after(block, "hardest") == ["1001", "1004"]
    assert ids_after(block, "easiest") == ["1028", "1025"]


def test_undetermined(show):
    text = show(scores(UNDETERMINED), "-n", "1", "--overall")
    assert "undecided on this run" in text
    assert "do not rank examples by this score" in flat(text)
    assert "WARNING" not in text
    assert "Hardest examples (highest VoG, as claimed; this run does not tell)" in text
    assert ids_after(text, "Hardest") == ["1029"]


def test_not_measured(show):
    what = scores(None, companions={}, predictions_class=None)
    what.stages.pop("late")
    text = show(what, "-n", "1")
    assert "was not measured" in text
    assert "No direction was measured." in text
    assert "nan" not in text
    assert "VoG, as measured" not in text


def test_a_constant_score_tells_nothing():
    sentence = direction_sentence(Direction(measured="undetermined", n_examples=30))
    assert "cannot be told" in sentence


def test_overall_is_one_list_over_all_classes(show):
    text = show(scores(), "--overall", "-n", "3")
    assert ids_after(text, "Hardest examples") == ["1029", "1028", "1027"]
    assert ids_after(text, "Easiest examples") == ["1000", "1001", "1002"]
    assert "Class kind" not in text
    assert "kind 0 (wrong)" in text


def test_another_stage_has_its_own_numbers_and_direction(show):
    text = show(scores(), "--stage", "late", "-n", "1", "--overall")
    assert "stage: late" in text
    assert "undecided" in text
    assert ids_after(text, "Hardest examples") == ["1000"]


def test_no_lists(show):
    text = show(scores(LOWER), "-n", "0")
    assert "hardest" not in text
    assert "Hardest" not in text
    assert "WARNING" in text
    assert "lists below" not in text
    assert "Classes (raw VoG, stage all)" in text


def test_class_statistics(show):
    text = show(scores(n=31), "-n", "0")
    lines = [line.split() for line in text[text.index("Classes (") :].splitlines()[1:]]
    assert lines[0] == ["class", "examples", "mean", "std", "accuracy"]
    assert lines[1] == ["kind", "0", "11", "9.25", "0.25", "100.0%"]


def test_many_classes_are_cut_with_a_note_unless_asked_for(show):
    what = scores(n=75, n_classes=25)
    text = show(what, "-n", "1")
    assert "... and 5 more classes (--all-classes lists them)" in text
    assert "Class kind 19\n" in text
    assert "Class kind 20\n" not in text
    text = show(what, "-n", "1", "--all-classes")
    assert "Class kind 24\n" in text
    assert "more classes" not in text


def test_classes_without_examples_have_no_list(show):
    what = scores(n_classes=3)
    what.classes.append("never seen")
    what.class_count = np.append(what.class_count, 0)
    for part in what.stages.values():
        part.class_mean, part.class_std = np.append(part.class_mean, np.nan), np.append(part.class_std, np.nan)
    text = show(what, "-n", "1")
    assert [line.split() for line in text.splitlines() if "never seen" in line] == [
        ["never", "seen", "0", "-", "-", "-"]
    ]


def test_two_classes_of_one_name_are_both_listed(show):
    text = show(_twins(), "-n", "1")
    assert text.count("Class twin\n") == 2
    first, second = text.split("Class twin\n")[1:]
    assert (ids_after(first, "hardest"), ids_after(second, "hardest")) == (["1006"], ["1007"])


def _twins() -> Scores:
    what = scores(n_classes=2, n=8)
    what.classes = ["twin", "twin"]
    return what


def test_scores_without_labels_are_one_list(show):
    n = 30
    text = show(
        scores(
            None, labels=np.full(n, -1), class_count=np.array([10, 10, 10]), companions={}, predictions_class=None
        ),
        "-n", "2",
    )  # fmt: skip
    assert ids_after(text, "Hardest examples") == ["1029", "1028"]
    assert "Class kind" not in text


def test_the_warnings_of_the_run_are_shown(show):
    text = show(scores(warnings=["Class 'cat' has one example only, so its score is 0."]), "-n", "0")
    assert "Warnings of the run\n- Class 'cat' has one example only" in text


EVIL = "\x1b[2J\x1b[31mred\x07\r\nnext\u202eline\x9b\x7f"


def test_names_cannot_take_over_the_terminal(show):
    n = 30
    ids = np.array([f"{i}{EVIL}" for i in range(n)])
    what = scores(
        ids=ids,
        classes=[f"{EVIL}{i}" for i in range(3)],
        checkpoints=[CheckpointInfo(f"{EVIL}{i}") for i in range(3)],
        settings={"of": EVIL, "target": EVIL + "!", "channels": EVIL, "data": {"name": EVIL}, "scale": EVIL},
        warnings=[EVIL],
        vogcore_version=EVIL,
    )
    what.stages[EVIL] = stage(EVIL, np.arange(n) / 10.0, 3, LOWER)
    for words in ((), ("--overall",), ("--stage", EVIL)):
        text = show(what, *words)
        harmful = {c for c in text if not c.isprintable()} - {"\n"}
        assert not harmful
        assert "\\x1b[2J\\x1b[31mred\\x07\\r\\nnext\\u202eline" in text
        assert "\nnext" not in text


def test_printable_leaves_ordinary_names_alone():
    for name in ("cat", "Löwe", "猫", "кошка", "chat noir", "🐈", "C:\\data", "O'Neil"):
        assert printable(name) == name
    assert printable("a\ud800b") == "a\\ud800b"


def test_wide_characters_keep_the_columns_straight():
    lines = table(["name", "n"], [["猫", "1"], ["cafe\u0301", "22"], ["dog", "333"]]).splitlines()
    assert lines == ["  name    n", "  猫      1", "  cafe\u0301   22", "  dog   333"]


def test_wide_names_are_shown(show):
    what = scores()
    what.classes = ["猫", "犬", "鳥"]
    assert "Class 猫\n" in show(what, "-n", "1")


def test_large_and_strange_numbers(show):
    what = scores()
    what.stages["all"].vog[3] = np.nan
    what.companions["loss"].values[3] = np.nan
    text = show(what, "-n", "100", "--overall")
    assert "nan" not in text
    assert len(ids_after(text, "Hardest examples")) == 30


def test_raw_scores_that_are_small_keep_their_digits(show):
    what = scores()
    what.stages["all"].normalise = "none"
    what.stages["all"].vog = what.stages["all"].vog * 1e-7
    assert "2.9e-07" in show(what, "-n", "1", "--overall")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"of": "logit", "target": "label"}, "gradient of the logit at the label;"),
        ({"of": "loss", "target": "predicted"}, "gradient of the loss at the predicted class;"),
        ({"of": "margin", "target": 3}, "gradient of the margin at class 3;"),
        ({"of": "as the gradients were made", "target": "as the gradients were made"}, "gradients made elsewhere;"),
    ],
)
def test_how_the_score_was_made(settings, words, show):
    assert words in show(scores(settings=settings), "-n", "0")


def test_relative_scores_are_called_that(show):
    text = show(scores(settings={"scale": "relative"}), "-n", "1", "--overall")
    assert "Classes (relative VoG, stage all)" in text
    assert "relative  " in text[text.index("Hardest") :]


def test_another_score_is_listed_at_its_own_hard_end_and_recommended_where_it_is_clearer(show):
    made = scores(UNDETERMINED)
    chosen = made.stages["all"]
    chosen.vog_relative = np.linspace(0.9, 0.1, len(made))
    chosen.directions["vog_relative"] = LOWER
    text = flat(show(made, "--overall", "-n", "2"))
    assert "vog_relative at stage all goes with the loss most clearly on this run (-0.60, lower is harder)" in text
    assert "--score vog_relative" in text
    text = show(made, "--overall", "-n", "2", "--score", "vog_relative")
    assert "score: vog_relative, stage: all" in text
    assert "most clearly" not in text
    assert ids_after(text, "Hardest examples (lowest relative VoG, as measured)") == ["1029", "1028"]
    # The paper says nothing of a relative score, so nothing can contradict it there.
    assert "opposite of what is claimed of the relative score" in flat(text)
    assert "contradicts the paper" not in text
    by_class = show(made, "-n", "1", "--score", "vog_relative")
    assert ids_after(by_class, "hardest (lowest relative VoG, as measured)") == ["1027"]


@pytest.mark.parametrize(("score", "words"), [("loss", "no score 'loss'"), ("vog_relative", "has no vog_relative")])
def test_a_score_that_is_not_there_is_an_error(cli, tmp_path, score, words):
    scores().save(tmp_path / "scores.h5")
    result = cli("show", tmp_path / "scores.h5", "--score", score)
    assert result.status == 2
    assert words in result.err
    assert len(result.err.splitlines()) == 1
    assert result.out == ""
