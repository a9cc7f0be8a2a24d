"""PPO for encoder-decoders: prompts -> rollout -> advantages -> update.

Shapes, everywhere in this package:
    B  responses (one a prompt)      S  prompt tokens
    T  response tokens               V  vocabulary
    N  texts                         K  rewards

`response_mask` (B, T) is True on the tokens the policy chose, EOS included, and False after it.
`prompt_mask` (B, S) is True on real prompt tokens.
Leaves out: how rewards are computed. A reward is a plain callable here.
"""
