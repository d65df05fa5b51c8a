"""How kernels cut their work: told without computing anything, and even."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv
from fastconv.bench.layers import find_layers
from fastconv.bench.split import main, shares, table

pytest.importorskip("fastconv.backends._cpp._core", reason="the compiled backend is not built")


def test_split_computes_nothing_and_starts_no_thread():
    before = fastconv.get_num_threads()
    weight = np.ones((64, 64, 3, 3), np.float32)
    plan = fastconv.plan_conv2d((1, 64, 40, 40), weight, padding=1, backend="cpp")
    x = np.random.default_rng(0).standard_normal((2, 64, 40, 40)).astype(np.float32)
    wanted = plan(x)
    jobs = plan.split(2)
    assert all(tasks >= 1 and threads <= before and parts >= 1 for tasks, threads, parts in jobs)
    np.testing.assert_array_equal(plan(x), wanted)
    assert fastconv.plan_conv2d((1, 64, 40, 40), weight, backend="numpy").split() == [(1, 1, 1)]


def test_large_layers_are_shared_out_evenly():
    before = fastconv.get_num_threads()
    layers = [layer for layer in find_layers(["resnet50", "vgg16"]) if layer.kernel != (7, 7)]
    found = list(shares(layers, threads=(1, 2, 4)))
    assert fastconv.get_num_threads() == before
    assert all(share.load == 1.0 for share in found if share.threads == 1)
    uneven = [share for share in found if share.load > 1.25]
    assert not uneven, "\n".join(table(uneven))
    assert np.mean([share.load for share in found if share.threads == 2]) < 1.05
    for one, two in zip(found[0::3], found[1::3], strict=True):
        assert two.megabytes <= one.megabytes


def test_table(capsys):
    main(["mobilenetv2/1x1 24", "--batch", "2", "--markdown"])
    out = capsys.readouterr().out
    assert out.startswith("| layer | layout | batch |")
    assert "2 threads: mean load 1." in out
    assert table([]) == []
