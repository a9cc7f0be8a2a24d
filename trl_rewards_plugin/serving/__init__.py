"""`trl-rewards serve`: a reward behind HTTP. Leaves out: its client (`rewards/remote_reward.py`)."""
