"""The metric modules of this package: folders for `evaluate.load`, each also a complete Space.

Importing this loads nothing heavy. What the modules share is in `classifier_metric.py`.
"""

import os

_HERE = os.path.dirname(os.path.abspath(__file__))

GRAMMATICALITY = os.path.join(_HERE, "grammaticality")
NEUTRALITY = os.path.join(_HERE, "neutrality")
REWARD_GAIN = os.path.join(_HERE, "reward_gain")

__all__ = ["GRAMMATICALITY", "NEUTRALITY", "REWARD_GAIN"]
