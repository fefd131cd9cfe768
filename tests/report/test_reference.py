"""A study beside a reference: what differs is named, what varies as seeds do is not."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.commands import verify
from pipeline.errors import DataError
from pipeline.report import reference
from pipeline.report.gathering import gather
from pipeline.report.tables import against_reference
from tests.conftest import REPO, run_in
from tests.report.studies import study_of, write_study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root, study = tmp_path_factory.mktemp("study"), study_of(seeds=3, depths=(20, 32))
    write_study(root, study, images=500)
    return gather(study, root)


def changed(results: dict[str, Any], name: str, metric: str, by: float) -> dict[str, Any]:
    found = copy.deepcopy(results)
    for row in found["rows"]:
        if row["name"].startswith(name):
            row["scores"][metric] += by
            row["weights_sha256"] = "f" * 64
    return found


def test_a_study_is_as_its_reference(results: dict[str, Any]):
    found = reference.compare(results, reference.reference_of([results]))
    assert found["differ"] == 0
    assert found["same"] == found["again"] == len(results["rows"])
    assert "ended with the same bits" in found["said"]


def test_what_differs_is_named(results: dict[str, Any]):
    base = reference.reference_of([results])
    found = reference.compare(changed(results, "plain-32", "test_error_pct", 9.0), base)
    assert [(x["network"], x["metric"]) for x in found["lines"] if x["differs"]] == [
        ("plain-32", "test_error_pct")
    ]
    assert found["same"] == found["again"] - 3
    assert any(line.endswith("differs") for line in against_reference(found).plain())
    found = reference.compare(changed(results, "plain-32", "parameters", 1), base)
    assert [(x["network"], x["metric"]) for x in found["lines"] if x["differs"]] == [
        ("plain-32", "parameters")
    ]


def test_wrong_probabilities_of_right_classes_and_a_wrong_ensemble_are_found(
    results: dict[str, Any],
):
    base = reference.reference_of([results])
    found = reference.compare(changed(results, "plain-32", "test_nll", 9.0), base)
    assert [(x["network"], x["metric"]) for x in found["lines"] if x["differs"]] == [
        ("plain-32", "test_nll")
    ]
    other = copy.deepcopy(results)
    other["ensemble"]["declared"]["test_error_pct"] += 9.0
    found = reference.compare(other, base)
    assert [(x["network"], x["metric"]) for x in found["lines"] if x["differs"]] == [
        ("ensemble", "test_error_pct")
    ]
    (nll,) = (x for x in found["lines"] if (x["network"], x["metric"]) == ("ensemble", "test_nll"))
    assert nll["p"] is None  # nothing tells how much that of one varies


def test_networks_that_are_sure_of_every_image_are_compared_too(results: dict[str, Any]):
    sure = copy.deepcopy(results)
    for row in sure["rows"]:
        row["scores"]["train_nll"] = 0.0
    assert reference.compare(sure, reference.reference_of([sure]))["differ"] == 0
    differing = reference.compare(sure, reference.reference_of([results]))["lines"]
    assert any(x["differs"] for x in differing if x["metric"] == "train_nll")


def test_a_network_that_only_one_of_the_two_has_is_named(results: dict[str, Any]):
    """A row of another recipe is another network: the gate must not pass because the others agree."""
    other = copy.deepcopy(results)
    for row in other["rows"]:
        if row["name"].startswith("plain-32"):
            row["group"] = "another recipe"
    found = reference.compare(other, reference.reference_of([results]))
    assert found["unmatched"] == ["plain-32 (only here)", "plain-32 (only in the reference)"]
    assert found["differ"] == 0 and "Not compared" in found["said"]
    assert reference.compare(results, reference.reference_of([results]))["unmatched"] == []


def test_a_seed_counts_once_on_however_many_kinds_of_hardware(results: dict[str, Any]):
    other = changed(results, "plain-32", "test_error_pct", 3.0)
    for row in other["rows"]:
        row["hardware"] = "another"
    base = reference.reference_of([other, results])
    found = reference.compare(results, base)
    assert found["differ"] == 0
    seeds = {line["network"]: line["reference_seeds"] for line in found["lines"]}
    assert seeds.pop("ensemble") == 1 and {*seeds.values()} == {3}
    assert found["same"] == found["again"] == len(results["rows"])


def test_a_study_is_compared_with_those_on_its_kind_of_hardware(results: dict[str, Any]):
    reports = [results]
    for shift, (hardware, error) in enumerate((("mine", 0.0), ("another", 3.0)), start=1):
        other = changed(results, "plain-32", "test_error_pct", error)
        for row in other["rows"]:
            row["seed"] += 100 * shift
            row["hardware"] = row["hardware"] if hardware == "mine" else hardware
        reports.append(other)

    def plain(found: dict[str, Any]) -> dict[str, Any]:
        lines = ((x["network"], x["metric"], x) for x in found["lines"])
        return next(x for *names, x in lines if names == ["plain-32", "test_error_pct"])

    found = plain(reference.compare(results, reference.reference_of(reports)))
    assert found["reference_seeds"] == 3
    assert found["reference"] == pytest.approx(found["ours"])
    for row in (stranger := copy.deepcopy(results))["rows"]:
        row["hardware"] = "a third"
    found = plain(reference.compare(stranger, reference.reference_of(reports)))
    assert found["reference_seeds"] == 6  # of both kinds


def test_the_same_seeds_are_not_taken_for_a_sample_of_their_own(results: dict[str, Any]):
    other = changed(results, "plain-32", "test_error_pct", 3.0)
    for row in other["rows"]:
        row["seed"] += 100
    found = reference.compare(results, reference.reference_of([results, other]))
    plain = next(
        x for x in found["lines"] if (x["network"], x["metric"]) == ("plain-32", "test_error_pct")
    )
    assert plain["reference_seeds"] == 3 and plain["reference"] == pytest.approx(
        plain["ours"] + 3.0
    )
    assert found["same"] == found["again"] == len(results["rows"])


def test_seeds_of_one_distribution_are_rarely_told_apart():
    generator = np.random.default_rng(3)
    found = [
        reference.p_value(generator.normal(8, 0.3, n).tolist(), generator.normal(8, 0.3, m).tolist(), 10_000)
        for n, m in [(3, 5)] * 400 + [(1, 5)] * 400
    ]  # fmt: skip
    few = sum(p < 0.05 for p in found)
    assert stats.binom.sf(few - 1, len(found), 0.05) > 0.001
    assert stats.binom.cdf(few, len(found), 0.05) > 0.001


def test_single_runs_are_compared_on_the_images():
    assert reference.p_value([10.0], [10.1], 1000) > 0.5
    assert reference.p_value([10.0], [20.0], 1000) < 1e-6
    assert reference.p_value([0.0], [0.0], 1000) == 1


def test_other_data_and_other_networks_are_refused(results: dict[str, Any]):
    base = reference.reference_of([results])
    with pytest.raises(DataError, match="nothing to compare"):
        reference.compare(results, {**base, "data_digest": "0" * 64})
    with pytest.raises(DataError, match="none of this study's networks"):
        reference.compare(results, {**base, "networks": {}})
    with pytest.raises(DataError, match="of one study"):
        reference.reference_of([results, {**results, "study": "another"}])


def test_make_verify_fails_with_a_table(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.json").write_text(json.dumps(results))
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.json"
    against = f"against={other}"
    other.write_text(json.dumps(results))
    verify.main(against)
    assert "plain-32" in (said := capsys.readouterr().out)
    assert "comparisons with the reference, 0 differ" in said
    other.write_text(json.dumps(changed(results, "plain-32", "test_error_pct", 9.0)))
    done = run_in(
        tmp_path, "python", "-m", "pipeline.commands.verify", against, PYTHONPATH=str(REPO)
    )
    assert done.returncode == 1 and "comparisons with the reference" in done.stdout
    assert "plain-32" in done.stdout and "Traceback" not in done.stderr
    with pytest.raises(DataError, match=r"nowhere\.json: not found"):
        verify.main("against=nowhere.json")
    for row in (there := changed(results, "nothing", "test_error_pct", 0.0))["rows"]:
        row["group"] += row["name"] if row["name"].startswith("plain-32") else ""
    other.write_text(json.dumps(there))
    with pytest.raises(SystemExit, match="that the other lacks"):
        verify.main(against)
    other.write_text("[]")
    with pytest.raises(DataError, match=r"neither a reference nor a report\.json"):
        verify.main(against)
