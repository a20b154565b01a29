"""A replay buffer of texts, each stored once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

_KEYS = ("attention_mask", "input_ids")
_COLUMNS = ("actions", "rewards", "dones", "timeouts", "_lengths")


class _Text:
    """A text that grows; every observation of it is one of its beginnings.

    Attributes:
        ids: Its token ids, int32, and behind them room to grow while it is open.
        length: How many they are.
    """

    __slots__ = ("ids", "length")

    def __init__(self, capacity: int) -> None:
        self.ids: NDArray[np.int32] = np.empty(capacity, np.int32)
        self.length = 0

    def grow(self, ids: NDArray[Any]) -> bool:
        """Become as long as `ids` (t,) if one of both begins the other; returns whether it does."""
        shared = min(len(ids), self.length)
        if not np.array_equal(ids[:shared], self.ids[:shared]):
            return False
        self.ids[self.length : len(ids)] = ids[self.length :]
        self.length = max(self.length, len(ids))
        return True

    @classmethod
    def of(cls, ids: NDArray[np.int32]) -> _Text:
        """A text that is closed."""
        text = cls(0)
        text.ids, text.length = ids.copy(), len(ids)
        return text

    def open(self, capacity: int) -> None:
        """Get room to grow."""
        ids = np.empty(capacity, np.int32)
        ids[: self.length] = self.ids
        self.ids = ids

    def close(self) -> None:
        """Give back the room to grow."""
        self.ids = self.ids[: self.length].copy()


class TextSamples(NamedTuple):
    """Steps, and the texts that they belong to: a model need not read a text for each of them.

    Attributes:
        input_ids: k texts, right-padded, int64 (k, T).
        before: For each of m steps its text and the place of the last token that there was, int64
            (2, m).
        after: Likewise of what there was after the step, int64 (2, m).
        actions: int64 (m, 1).
        rewards: float32 (m, 1).
        dones: 1 where nothing comes after the step, float32 (m, 1).
    """

    input_ids: Tensor
    before: Tensor
    after: Tensor
    actions: Tensor
    rewards: Tensor
    dones: Tensor


class TokenReplayBuffer(ReplayBuffer):
    """SB3's replay buffer for texts: `replay_buffer_class` of DQN.

    What it hands out is what SB3's `DictReplayBuffer` does, bit for bit. That one stores two whole
    windows a step, 18 bytes for each of their tokens. Here a text is stored once, an int32 a
    token, and a step says which text it belongs to and how long that was: 34 bytes and its token.

    It looks at observations only. While the next begins with the one before, both are the same
    text, whoever wrote what was added: the agent, or an environment that answers. Otherwise a new
    text begins.

    Args:
        buffer_size: Steps that are kept, of all environments together.
        observation_space: `Dict(input_ids, attention_mask)`, as `TextGen-v0` has it.
        action_space: `Discrete` of tokens.
        device: Where samples go.
        n_envs: Number of environments.
        optimize_memory_usage: Must be False; SB3 passes it.
        handle_timeout_termination: Whether an episode that was cut counts as one that goes on.

    Raises:
        ValueError: If the observations are others, or an argument cannot be supported.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        if not isinstance(observation_space, spaces.Dict) or sorted(observation_space) != [*_KEYS]:
            raise ValueError(
                "a buffer of texts expects an observation space Dict(input_ids, attention_mask) "
                f"and no more, as TextGen-v0 has it, got {observation_space}. For others take "
                "SB3's own."
            )
        if optimize_memory_usage:
            raise ValueError(
                "optimize_memory_usage is for SB3's own buffer; here each text is stored once "
                "already. Leave it off."
            )
        # Not ReplayBuffer's own: it makes the arrays of windows that this one does without.
        BaseBuffer.__init__(
            self, buffer_size, observation_space, action_space, device=device, n_envs=n_envs
        )
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = False
        self.handle_timeout_termination = handle_timeout_termination
        shape = (self.buffer_size, n_envs)
        self.actions = np.zeros(shape, np.int32)
        self.rewards = np.zeros(shape, np.float32)
        self.dones = np.zeros(shape, np.bool_)
        self.timeouts = np.zeros(shape, np.bool_)
        # For each step what there was before it and what there was after it.
        self._texts = np.empty((2, *shape), object)
        self._lengths = np.zeros((2, *shape), np.int32)
        self._open: list[_Text | None] = [None] * n_envs
        self._padding: int | None = None

    def state(self) -> dict[str, Any]:
        """What is stored: arrays, and each text once, int32 in one array behind each other."""
        open_texts = [text for text in self._open if text is not None]
        numbers: dict[_Text, int] = {}
        for text in [*self._texts[self._texts != None].tolist(), *open_texts]:  # noqa: E711
            numbers.setdefault(text, len(numbers))
        shape = self._texts.shape
        index = [-1 if text is None else numbers[text] for text in self._texts.ravel().tolist()]
        ids = [text.ids[: text.length] for text in numbers]
        return {
            **{name: getattr(self, name).copy() for name in _COLUMNS},
            "index": np.array(index, np.int64).reshape(shape),
            "open": [-1 if text is None else numbers[text] for text in self._open],
            "text_lengths": np.array([text.length for text in numbers], np.int64),
            "texts": np.concatenate([np.empty(0, np.int32), *ids]),
            "padding": self._padding,
            "pos": self.pos,
            "full": self.full,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Hold what another buffer held.

        Raises:
            ValueError: If that was of another size.
        """
        if state["actions"].shape != self.actions.shape:
            raise ValueError(
                f"the buffer that was saved holds {state['actions'].shape} steps a row and rows, "
                f"and this one {self.actions.shape}. Make it with the same buffer_size and n_envs."
            )
        for name in _COLUMNS:
            getattr(self, name)[:] = state[name]
        ends = np.cumsum(state["text_lengths"])
        texts = [_Text.of(ids) for ids in np.split(state["texts"], ends[:-1])] if len(ends) else []
        self._open = [texts[number] if number >= 0 else None for number in state["open"]]
        for text in self._open:
            if text is not None:
                text.open(self._context_length)
        self._texts[:] = np.array([*texts, None], object)[state["index"]]
        self._padding, self.pos, self.full = state["padding"], state["pos"], state["full"]

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        self._texts[:] = None
        self._open = [None] * self.n_envs

    def add(  # type: ignore[override]
        self,
        obs: Mapping[str, NDArray[Any]],
        next_obs: Mapping[str, NDArray[Any]],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Add a step of every environment; see SB3.

        Raises:
            ValueError: If texts are not padded on the right, always with the same token.
        """
        for when, seen in enumerate((obs, next_obs)):
            self._lengths[when, self.pos] = lengths = self._checked_lengths(seen)
            for row in range(self.n_envs):
                ids = seen["input_ids"][row, : lengths[row]]
                self._texts[when, self.pos, row] = self._text(row, ids)
        for row in np.asarray(done).nonzero()[0].tolist():
            self._close(row)
        self.actions[self.pos] = action.reshape(self.n_envs)
        self.rewards[self.pos] = reward
        self.dones[self.pos] = done
        if self.handle_timeout_termination:
            self.timeouts[self.pos] = [info.get("TimeLimit.truncated", False) for info in infos]
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full = True
            self.pos = 0

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        """Steps drawn by chance, with whole windows as observations; see SB3."""
        return self.observed(*self.draw(batch_size), env)

    def draw(
        self, batch_size: int, sequence_length: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw steps, each as likely as any other; with a length of 1 as SB3 draws them.

        Args:
            batch_size: How many, m.
            sequence_length: So many of them come one after another in the same row.

        Returns:
            Their places in the ring, and their rows, (m,) each. m is rounded to a multiple of
            `sequence_length`.
        """
        count, size = max(round(batch_size / sequence_length), 1), self.size()
        begins = np.random.randint(0, size, size=count)
        rows = np.random.randint(0, high=self.n_envs, size=count)
        steps = (begins[:, None] + np.arange(sequence_length)) % size
        return steps.reshape(-1), rows.repeat(sequence_length)

    def observed(
        self, steps: NDArray[np.int64], rows: NDArray[np.int64], env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        """Steps (m,) as SB3's algorithms expect them."""
        observations, next_observations = (
            {
                key: self.to_torch(column, copy=False)
                for key, column in self._observations(when, steps, rows, env).items()
            }
            for when in range(2)
        )
        actions, rewards, dones = self._paid(steps, rows, env)
        return DictReplayBufferSamples(observations, actions, next_observations, dones, rewards)

    def texts(
        self, steps: NDArray[np.int64], rows: NDArray[np.int64], env: VecNormalize | None = None
    ) -> TextSamples:
        """Steps (m,) with the texts that they belong to, each of them once."""
        numbers: dict[_Text, int] = {}
        texts = self._texts[:, steps, rows]
        lengths = self._lengths[:, steps, rows].astype(np.int64)
        index = np.array([[numbers.setdefault(text, len(numbers)) for text in w] for w in texts])
        longest = np.zeros(len(numbers), np.int64)
        np.maximum.at(longest, index, lengths)
        input_ids = np.zeros((len(numbers), longest.max()), np.int64)
        for text, number in numbers.items():
            input_ids[number, : longest[number]] = text.ids[: longest[number]]
        before, after = self.to_torch(np.stack([index, lengths - 1], axis=1))
        return TextSamples(self.to_torch(input_ids), before, after, *self._paid(steps, rows, env))

    def _paid(
        self, steps: NDArray[np.int64], rows: NDArray[np.int64], env: VecNormalize | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, rewards and dones of steps (m,), (m, 1) each, in SB3's number types."""
        actions = self.actions[steps, rows].astype(np.int64)[:, None]
        rewards = self._normalize_reward(self.rewards[steps, rows][:, None], env)
        dones = (self.dones[steps, rows] & ~self.timeouts[steps, rows]).astype(np.float32)[:, None]
        return self.to_torch(actions), self.to_torch(rewards), self.to_torch(dones)

    def _get_samples(  # type: ignore[override]
        self, batch_inds: NDArray[np.int64], env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        rows = np.random.randint(0, high=self.n_envs, size=len(batch_inds))
        return self.observed(batch_inds, rows, env)

    def _observations(
        self,
        when: int,
        steps: NDArray[np.int64],
        rows: NDArray[np.int64],
        env: VecNormalize | None,
    ) -> dict[str, NDArray[Any]]:
        """Whole windows of steps (k,), as the environment gave them."""
        assert isinstance(self.observation_space, spaces.Dict)
        observations = {}
        for key in self.observation_space:
            space = self.observation_space[key]
            assert space.shape is not None
            empty = 0 if key == "attention_mask" else self._padding or 0
            observations[key] = np.full((len(steps), *space.shape), empty, space.dtype)
        lengths = self._lengths[when, steps, rows].tolist()
        texts = self._texts[when, steps, rows].tolist()
        for i, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            observations["input_ids"][i, :length] = text.ids[:length]
            observations["attention_mask"][i, :length] = 1
        normalized = self._normalize_obs(observations, env)
        assert isinstance(normalized, dict)
        return normalized

    def _text(self, row: int, ids: NDArray[Any]) -> _Text:
        """The text that begins with what is observed in a row: the open one, or a new one."""
        text = self._open[row]
        if text is None or not text.grow(ids):
            self._close(row)
            text = self._open[row] = _Text(self._context_length)
            text.grow(ids)
        return text

    def _close(self, row: int) -> None:
        text, self._open[row] = self._open[row], None
        if text is not None:
            text.close()

    @property
    def _context_length(self) -> int:
        shapes: Any = self.obs_shape
        length: int = shapes["input_ids"][0]
        return length

    def _checked_lengths(self, observations: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Lengths of texts, int64 (n,); raises if windows hold more than texts and lengths say."""
        ids, mask = observations["input_ids"], observations["attention_mask"]
        lengths: NDArray[np.int64] = mask.sum(1, dtype=np.int64)
        beyond = np.arange(ids.shape[1]) >= lengths[:, None]
        padding = ids[beyond]
        if self._padding is None:
            self._padding = int(padding[0]) if len(padding) else None
        if (mask == beyond).any() or (padding != self._padding).any():
            raise ValueError(
                "a buffer of texts expects rows that are padded on the right, always with the "
                f"same token (here {self._padding}), as TextGen-v0 gives them."
            )
        return lengths
