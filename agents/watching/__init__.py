"""What a person sees of a training run while it goes on, and what is kept of its texts."""

from agents.watching.episode_callback import EpisodeCallback, EpisodeCollector
from agents.watching.live_view import LiveView
from agents.watching.reward_log import RewardLog
from agents.watching.sample_log import SampleLog
from agents.watching.sample_pictures import SamplePictures

__all__ = [
    "EpisodeCallback",
    "EpisodeCollector",
    "LiveView",
    "RewardLog",
    "SampleLog",
    "SamplePictures",
]
