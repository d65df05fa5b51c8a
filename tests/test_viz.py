"""The pictures: what they show is what they were given, files are written, and errors say what to do."""

from __future__ import annotations

import builtins
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import fastconv
from fastconv import viz

pytest.importorskip("matplotlib", reason="matplotlib draws the pictures and is not installed")

IMAGE = np.arange(25.0).reshape(5, 5)
KERNEL = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
SVG = "{http://www.w3.org/2000/svg}"


def model(kind="sequential"):
    from fastconv import nn

    nn.set_random_seed(0)
    nn.clear_session()
    if kind == "sequential":
        return nn.Sequential(
            [nn.Input((8, 8, 1)), nn.Conv2D(4, 3, activation="relu", name="first"), nn.Flatten(), nn.Dense(2)]
        )
    image = nn.Input((8, 8, 3))
    x = nn.Conv2D(4, 3, padding="same")(image)
    y = nn.Conv2D(4, 3, padding="same")(nn.ReLU()(x))
    return nn.Model(image, nn.GlobalAveragePooling2D()(nn.Add()([x, y])))


def test_importing_does_not_import_matplotlib():
    code = "import sys, fastconv.viz; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    found = builtins.__import__

    def lacks(name, *given, **more):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return found(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", lacks)
    with pytest.raises(ImportError, match=r"show_filters draws with matplotlib.*pip install 'fastconv\[viz\]'"):
        viz.show_filters(np.ones((2, 1, 3, 3)))
    assert viz.plot_model(model()).startswith("<svg")  # it is written by hand


@pytest.mark.parametrize("channels", [1, 3, 5, 40])
def test_filters_of_any_number_of_channels(channels, tmp_path):
    weight = np.random.default_rng(0).normal(size=(20, channels, 3, 3))
    path = tmp_path / "new" / "filters.png"
    figure = viz.show_filters(weight, path=path)
    assert path.stat().st_size > 1000
    assert figure.texts[0].get_text().startswith("20 filters of 3x3")
    same = viz.show_filters(weight.transpose(2, 3, 1, 0), layout="NHWC")
    np.testing.assert_array_equal(same.axes[0].images[0].get_array(), figure.axes[0].images[0].get_array())


def test_filters_are_shown_where_they_belong():
    weight = np.zeros((2, 1, 2, 2))
    weight[0, 0, 0, 1], weight[1, 0, 1, 0] = 2, -3
    shown = np.ma.filled(viz.show_filters(weight, columns=2).axes[0].images[0].get_array(), 9)
    assert shown.tolist() == [[0, 1, 9, 0, 0], [0, 0, 9, -1, 0]]


def test_filters_and_maps_of_a_model():
    net = model()
    assert viz.show_filters(net).texts[0].get_text() == "first: 4 filters of 3x3"
    assert viz.show_filters(net.layers[0]).texts[0].get_text() == "first: 4 filters of 3x3"
    x = np.random.default_rng(1).random((8, 8, 1), dtype=np.float32)
    figure = viz.show_feature_maps(net, x)
    assert figure.texts[0].get_text() == "first: 4 feature maps of 6x6"
    with pytest.raises(ValueError, match=r"layer must be one of first, .* received 'third'"):
        viz.show_feature_maps(net, x, layer="third")
    with pytest.raises(ValueError, match="which is no maps"):
        viz.show_feature_maps(net, x, layer=net.layers[-1].name)
    with pytest.raises(ValueError, match="needs an image x"):
        viz.show_feature_maps(net)


def test_maps_of_arrays():
    maps = np.random.default_rng(0).random((6, 9, 7))
    first = viz.show_feature_maps(maps).axes[0].images[0].get_array()
    last = viz.show_feature_maps(maps.transpose(1, 2, 0), layout="NHWC").axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(first, 9), np.ma.filled(last, 9))
    with pytest.raises(ValueError, match=r"maps must be \(C, H, W\), received shape \(9, 7\)"):
        viz.show_feature_maps(maps[0])
    with pytest.raises(ValueError, match="weight must be"):
        viz.show_filters(maps)


@pytest.mark.parametrize("ending", ["gif", "html"])
def test_animation_has_a_frame_for_every_output(ending, tmp_path):
    path = tmp_path / f"sliding.{ending}"
    viz.animate_convolution(IMAGE[:4, :4], KERNEL, path=path)
    if ending == "gif":
        from PIL import Image

        with Image.open(path) as picture:
            assert picture.n_frames == 4
    else:
        assert path.read_text(encoding="utf-8").count("data:image/png;base64") == 4
    with pytest.raises(ValueError, match=r"must end in \.gif, \.png or \.html"):
        viz.animate_convolution(IMAGE, KERNEL, path=tmp_path / "sliding.mp4")


@pytest.mark.parametrize(
    ("given", "step"),
    [({}, 4), ({"padding": 1}, 0), ({"padding": "same", "stride": 2}, 5), ({"padding": "full"}, 48),
     ({"padding": "same_lower", "stride": 2, "dilation": 2, "padding_mode": "edge"}, 3)],
)  # fmt: skip
def test_the_sum_of_a_step_is_that_of_the_library(given, step):
    text = viz.convolution_step(IMAGE, KERNEL, step, **given).texts[0].get_text()
    terms, _, result = text.partition(" = ")
    assert eval(terms.replace("·", "*").replace("...", "0")) == pytest.approx(float(result))
    exact = fastconv.conv2d(IMAGE[None], np.array(KERNEL, float)[None, None], **given).ravel()[step]
    assert float(result) == pytest.approx(exact, rel=5e-3)


def test_errors_of_the_animation():
    with pytest.raises(ValueError, match=r"must have two axes, received \(1, 5, 5\) and \(3, 3\)"):
        viz.convolution_step(IMAGE[None], KERNEL, 0)
    with pytest.raises(ValueError, match="padding must be an int, valid, same, same_lower or full"):
        viz.convolution_step(IMAGE, KERNEL, 0, padding=(1, 1))


def test_graph_of_a_sequential_model(tmp_path):
    path = tmp_path / "model.svg"
    svg = viz.plot_model(model(), path)
    assert path.read_text(encoding="utf-8") == svg
    words = [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]
    assert {"Conv2D 4 3×3", "first · 40", "Dense 2", "8 × 8 × 1", "6 × 6 × 4", "144"} <= set(words)
    assert "6 × 6 × 4" not in viz.plot_model(model(), show_shapes=False)


def test_graph_of_a_skip_connection_crosses_no_box():
    root = ET.fromstring(viz.plot_model(model("functional")))
    boxes = [
        tuple(float(r.get(k)) for k in ("x", "y", "width", "height")) for r in root.iter(f"{SVG}rect") if r.get("rx")
    ]
    edges = [e.get("d") for e in root.iter(f"{SVG}path") if e.get("marker-end")]
    assert len(boxes) == 6
    assert len(edges) == 6
    for i, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[:i]:
            apart = (
                x + width < other_x or other_x + other_width < x or y + height < other_y or other_y + other_height < y
            )
            assert apart
    straight = [part for d in edges for part in d.split(" L")[1:]]  # where an edge passes a row
    for part in straight:
        x, y = (float(v) for v in part.split(" ")[0].split(","))
        assert not any(bx < x < bx + w and by < y <= by + h for bx, by, w, h in boxes)


def test_graph_needs_a_graph():
    from fastconv import nn

    with pytest.raises(ValueError, match=r"Input|build|built"):
        viz.plot_model(nn.Sequential([nn.Dense(2)]))


def test_history_and_its_names():
    figure = viz.plot_history({"loss": [3.0, 2.0], "val_loss": [3.0, 2.01], "accuracy": [0.1, 0.5], "lr": [1, 1]})
    assert len(figure.axes) == 2
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels == [" loss 2", " validation 2.01"]
    low, high = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    assert high - low > 0.05  # apart, though the curves end at one place
    with pytest.raises(ValueError, match="the history is empty"):
        viz.plot_history({})


def test_confusion_matrix_counts():
    figure = viz.confusion_matrix([0, 0, 1, 2, 2], [0, 1, 1, 2, 2], ["a", "b", "c"], title="letters")
    shown = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert shown == {(0, 0): "1", (1, 0): "1", (1, 1): "1", (2, 2): "2"}
    assert figure.texts[0].get_text() == "letters: 80.0% right, 1 of 5 wrong"
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]
    for predicted in (np.eye(3)[[0, 1, 1, 2, 2]], np.array([0, 1, 1, 2, 2])):
        again = viz.confusion_matrix(np.eye(3)[[0, 0, 1, 2, 2]], predicted)
        assert again.texts[0].get_text() == "80.0% right, 1 of 5 wrong"
    assert viz.confusion_matrix([[1], [0]], [[0.9], [0.2]]).texts[0].get_text().startswith("100.0%")
    with pytest.raises(ValueError, match="truth has 2 labels and predicted 1"):
        viz.confusion_matrix([0, 1], [0])
    with pytest.raises(ValueError, match=r"labels must be 0 \.\. 1, received up to 2"):
        viz.confusion_matrix([0, 2], [0, 1], ["a", "b"])
