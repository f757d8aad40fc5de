"""Train an algorithm of stable-baselines3 on a neuron yourself, with its own `learn()`.

    pip install 'neurogym-v[agents]'
    python sb3_script.py --presentations 2000

Each of 40 sessions in lockstep shows an image a step and gets its firing rate as the reward. What was found is then shown
again: only responses that the training did not see say how good it is. The same algorithm as an agent, in a loop with
budget, journal and comparison, is `neurogym-v run --agent sb3:PPO`.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
from rich.progress import Progress
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

import neurogym_v  # noqa: F401  (registers the environments)
from neurogym_v.sb3 import SB3VecEnv


class Bar(BaseCallback):
    """A progress bar with the mean rate of the last step."""

    def __init__(self, progress: Progress, total: int) -> None:
        super().__init__()
        self.progress, self.task = progress, progress.add_task("training", total=total)

    def _on_step(self) -> bool:
        rates = [info["rate"] for info in self.locals["infos"]]
        rate = np.nanmean(rates) if np.isfinite(rates).any() else np.nan
        self.progress.update(self.task, completed=self.num_timesteps, description=f"{rate:5.1f} spikes/s")
        return True


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=["PPO", "A2C"], default="PPO", help="of stable-baselines3 (default: PPO)")
    parser.add_argument("--neuron", default="v4", help="name or weights file of the neuron (default: v4)")
    parser.add_argument("--site", type=int, default=12, help="the site of the neuron that is to be driven (default: 12)")
    parser.add_argument("--generator", default="natural64", help="what makes images of latents (default: natural64)")
    parser.add_argument("--noise", default="poisson", help="effects of a session around the neuron (default: poisson)")
    parser.add_argument("--presentations", type=int, default=2000, help="images shown in training (default: 2000)")
    parser.add_argument("--sessions", type=int, default=40, help="sessions in lockstep, so images a step (default: 40)")
    parser.add_argument("--repeats", type=int, default=20, help="fresh presentations of what was found (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the sessions and of the training (default: 0)")
    args = parser.parse_args(arguments)
    if args.sessions < 2 or args.presentations < args.sessions or args.repeats < 2:
        parser.error("expected at least 2 sessions, as many presentations as sessions, and 2 repeats")
    neuron = {"neuron": args.neuron, "site": args.site, "generator": args.generator, "noise": args.noise}

    steps = args.presentations // args.sessions
    sessions = gym.make_vec("neurogym_v/V4-v0", num_envs=args.sessions, batch_size=1, budget=steps, **neuron)
    # rewards over their s.d. A step pays for itself alone, hence gamma=0; what was seen before says little, hence a
    # linear policy, whose bias is the mean of the latents; an update each step
    environment = VecNormalize(SB3VecEnv(sessions, seed=args.seed), gamma=0.0)
    settings = {
        "gamma": 0.0,
        "n_steps": 1,
        "normalize_advantage": True,
        "policy_kwargs": {"net_arch": []},
        "seed": args.seed,
        "device": "cpu",
    }
    if args.algorithm == "PPO":
        settings |= {"batch_size": args.sessions, "learning_rate": 0.05, "target_kl": 2.0}  # or large steps end in NaN
        model = PPO("MlpPolicy", environment, **settings)
    else:
        model = A2C("MlpPolicy", environment, learning_rate=0.03, **settings)
    with Progress() as progress:
        model.learn(steps * args.sessions, callback=Bar(progress, steps * args.sessions))

    # the mean of the policy at the average of what it saw, 0 after normalising; beside it images of random latents
    best = model.predict(np.zeros((1, 3), np.float32), deterministic=True)[0]
    other = np.random.default_rng(args.seed).standard_normal((args.repeats, best.shape[1]), dtype=np.float32)
    validation = gym.make("neurogym_v/V4-v0", batch_size=args.repeats, budget=2 * args.repeats, **neuron)
    validation.reset(seed=args.seed + args.sessions)
    found, random = (validation.step(latents)[4]["rates"] for latents in (np.repeat(best, args.repeats, axis=0), other))
    for name, rates in (("found", found), ("random", random)):
        rates = rates[np.isfinite(rates)]
        print(f"{name:>8}: {rates.mean():6.1f} ± {rates.std(ddof=1) / np.sqrt(len(rates)):.1f} spikes/s", end="")
        print(f" (mean and standard error of {len(rates)} fresh presentations)")


if __name__ == "__main__":
    main()
