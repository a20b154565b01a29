"""The picture of a run's course shows the figures of its page."""

import pytest

from agents.reporting.picture import plot_curves


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn; closing one takes nothing from it."""
    from matplotlib import pyplot

    made = []
    monkeypatch.setattr(pyplot, "close", made.append)
    return made


def test_one_point_for_each_moment(tmp_path, figures):
    (tmp_path / "progress.csv").write_text(
        "time/total_timesteps,rollout/ep_rew_mean,train/approx_kl,train/entropy_loss,"
        "validation/mean_score,validation/timesteps\n"
        "100,0.1,,,,\n"
        "200,0.3,0.01,-3.5,0.25,100\n"
        "200,,0.02,-3.25,0.45,200\n"
    )
    path = tmp_path / "curves.png"
    plot_curves(tmp_path / "progress.csv", path, 0.0, 0.5, "test prompts", None)
    [figure] = figures
    drawn = [[line.get_xydata().tolist() for line in axis.lines] for axis in figure.axes]
    assert drawn == [
        [[[100, 0.1], [200, 0.3]], [[100, 0.25], [200, 0.45]]],
        [[[200, 0.02]]],
        [[[200, 3.25]]],
    ]
    assert path.read_bytes().startswith(b"\x89PNG")
