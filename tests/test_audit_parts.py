"""The parts of the audit: what it imports, which metrics it knows, and its arithmetic on figures worked out by hand."""

import ast

import numpy as np
import pytest
from auditing import arithmetic
from auditing.pictures import ssim, ssim_by_hand
from auditing.records import METRICS, OF_THE_SET
from command import ROOT

from eval.metrics import columns


def test_the_audit_shares_no_code_with_what_it_checks():
    files = [ROOT / "scripts" / "audit.py", *(ROOT / "scripts" / "auditing").glob("*.py")]
    imported = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not (isinstance(node, ast.ImportFrom) and node.level), path
            imported |= {name.partition(".")[0] for name in names}
    assert len(files) > 6 and {"numpy", "scipy", "auditing"} <= imported
    assert not imported & {"spectrum", "eval", "baselines", "torch", "torchmetrics", "tiny"}


def test_it_knows_every_metric_and_its_column():
    assert set(METRICS) == set(columns.METRICS)
    for name, column in columns.METRICS.items():
        assert METRICS[name] == (column.title, column.digits, column.better == "higher")
        assert (name in OF_THE_SET) == (column.identical is None)


def test_arithmetic_by_hand():
    assert arithmetic.test_of_mean([1.0, 3.0], 1)[0] == pytest.approx(12.706, abs=1e-3), (
        "Student's quantile of one degree"
    )
    assert arithmetic.test_of_mean([1.0, 3.0, 1.0, 3.0], 2)[0] == 0.0, "both prompts have the same mean"
    assert arithmetic.worst_half([1.0, 2.0], 1, True) is None, "only one of the values is among the worst"
    assert arithmetic.holm([0.25, 0.01, None, 0.125]) == [0.25, 0.03, None, 0.25]
    assert arithmetic.psnr_of_mean_error([10.0, 20.0, None, None]) == pytest.approx(15.607, abs=1e-3)
    points = [((2.0, 2.0, 2.0), [30.0, 30.0]), ((3.0, 3.0, 3.0), [20.0, 20.0])]
    assert arithmetic.between((2.5, 2.4, 2.6), points, 1) == pytest.approx((25.0, 1.0))
    assert arithmetic.between((3.5, 3.4, 3.6), points, 1) is None
    points = [((2.0, 1.7, 2.3), [30.0, 30.0]), ((3.0, 2.6, 3.4), [20.0, 20.0])]  # half of each weighs: 1.5 and 2 dB
    assert arithmetic.between((2.5, 2.5, 2.5), points, 1) == pytest.approx((25.0, 2.5))
    assert arithmetic.order_share([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]], 1) == 1.0
    assert 0.2 < arithmetic.order_share([[1.0, 2.0, 9.0, 1.0], [2.0, 1.0, 1.0, 9.5]], 1) < 0.9


def test_ssim_by_hand_is_scikit_images():
    random = np.random.default_rng(0)
    picture = random.random((24, 31, 3))
    other = np.clip(picture + random.normal(0, 0.1, picture.shape), 0, 1)
    assert ssim(picture, other) == pytest.approx(ssim_by_hand(picture, other), abs=1e-12) and ssim(picture, other) < 1
