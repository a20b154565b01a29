"""What holds for every vector environment of Gymnasium's."""

from __future__ import annotations

from textgym.checks.law import Law

KIND = Law(
    "make_vector makes a gymnasium.vector.VectorEnv",
    "Derive the class from VectorEnv; a vector environment of another library needs a bridge.",
)
NUM_ENVS = Law(
    "it has as many rows as were asked for",
    "Set self.num_envs, a whole number, to the argument num_envs.",
)
SPACES = Law(
    "its spaces are batches of the spaces of a single row",
    "Make them with gymnasium.vector.utils.batch_space(single_space, num_envs).",
)
MODE = Law(
    "it says how rows are reset that are over",
    "Set self.metadata = {**self.metadata, 'autoreset_mode': mode} in __init__, an AutoresetMode. "
    "For an environment that knows one mode only, give check_vector_env(autoreset_modes=None).",
)
RESULT = Law(
    "reset gives (observation, infos), and step (observation, rewards, terminated, truncated, "
    "infos)",
    "Return a tuple of just these.",
)
TAKES = Law(
    "reset and step take every seed, mask and action that they may be given",
    "See what it raised, above. reset has the keywords seed and options, and step takes every "
    "element of action_space. Seeds are whole numbers, None or, for check_vector_env(make_single), "
    "also lists of these.",
)
PLAIN = Law(
    "infos can be copied, and are equal to their copy",
    "Give NumPy arrays, numbers and strings, and dicts, tuples and lists of them. Let a class of "
    "your own have an __eq__; leave locks, tensors, generators and the like out.",
)
OBSERVATION = Law(
    "an observation is an element of observation_space",
    "Return NumPy arrays of its structure, dtype and shape (num_envs, ...), and correct the "
    "bounds of the space, or what is outside of them.",
)
REWARDS = Law(
    "rewards are one finite number a row",
    "Return a NumPy array of floats, shape (num_envs,), of the same dtype each time.",
)
FLAGS = Law(
    "terminated and truncated are one bool a row",
    "Return NumPy arrays of dtype bool and shape (num_envs,).",
)
INFOS = Law(
    "infos are columns, each with a mask of the rows that it is about",
    "Fill infos with VectorEnv._add_info, or as it does: infos[key] has an entry for each row (or "
    "is a dict of such columns), and infos['_' + key], bool (num_envs,), says whose count.",
)
INFO_KEYS = Law(
    "the keys of infos are strings",
    "Name each column, and its mask '_' + name: infos[str(key)] and infos['_' + str(key)].",
)
NEXT_STEP = Law(
    "a row that is over begins anew in the next step, which pays nothing and ends nothing",
    "In that step set the row's reward to 0 and its flags to False, whatever its action was.",
)
ACTION_IGNORED = Law(
    "the step in which a row begins anew ignores its action",
    "Reset the rows that were over before, and act in the others only.",
)
SAME_STEP = Law(
    "a row that ends gives its last observation and info away, and begins anew at once",
    "Put them into infos['final_obs'], an object array with an observation for each row that "
    "ended, and infos['final_info'], columns; their masks infos['_final_obs'] and "
    "infos['_final_info'] are True in just these rows. Return the first observation of the new "
    "episode.",
)
RESET_MASK = Law(
    "reset(options={'reset_mask': mask}) leaves the rows outside of the mask as they are",
    "Begin anew in the rows of the mask only, and return the last observation of the others.",
)
MODES_AGREE = Law(
    "the first episode is the same in every autoreset mode",
    "A mode decides about what comes after an end. With SAME_STEP the last observation is in "
    "infos['final_obs'], copied before the row begins anew.",
)
KEPT = Law(
    "what was returned never changes",
    "Return copies of arrays that are written to again.",
)
ARGUMENTS = Law(
    "it changes nothing that it is given",
    "Copy the actions, the seeds and the mask before writing to them.",
)
REPEATABLE = Law(
    "the same seed and actions give the same again",
    "Draw all random numbers from generators that reset(seed=...) seeds: call "
    "super().reset(seed=seed) and use self.np_random. Leave clocks and the like out of infos.",
)
FORGETS = Law(
    "reset(seed=...) begins as if nothing had been before",
    "Set all state of all rows in reset, also which rows wait for their autoreset.",
)
INDEPENDENT = Law(
    "what a row gives depends on its own actions only",
    "Compute each row from its own state and action, without a mean or a sum over rows, also in "
    "the step in which rows end.",
)
CLOSE = Law(
    "close() may be called twice",
    "Override close_extras, which is called once, and not close; let it raise nothing.",
)
SINGLE = Law(
    "it gives what single environments give",
    "Compute what a single environment computes, in its dtypes. Where random numbers differ: seed "
    "row i with seed + i and let it draw from a generator of its own. If rows may draw others than "
    "single environments do, leave make_single out.",
)
