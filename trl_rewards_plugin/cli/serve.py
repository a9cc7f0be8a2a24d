"""`trl-rewards serve REWARD`: flags -> a reward server on uvicorn. Leaves out: the application (serving/)."""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trl_rewards_plugin import terminal
from trl_rewards_plugin.cli.flags import parse_settings
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.options import option
from trl_rewards_plugin.rewards.files.file_content import preset_content


@dataclass(frozen=True)
class ServeSettings:
    """What `trl-rewards serve` does; a field's help is its flag's help."""

    reward: str | None = option(None, "Reward: name of a preset, or a YAML file, trusted like a script. Required.")
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 is reachable from other machines: set a token.")
    port: int = option(8000, "Port to listen on; 0 picks a free one.")
    token_env: str = option(
        "TRL_REWARDS_TOKEN", "Environment variable with the bearer token that clients must send; unset: none needed."
    )
    max_body_mb: int = option(16, "Largest request in MiB; a larger one gets 413.")
    max_waiting_texts: int = option(65_536, "Most texts that may wait; further requests get 503 and Retry-After.")
    batch_texts: int = option(1024, "Most texts, from all clients together, that are scored in one call.")
    device: str | None = option(None, "Where the classifiers run, such as cpu or cuda:1. Unset: chosen automatically.")


def serve(argv: Sequence[str]) -> int:
    """Serves until SIGINT or SIGTERM, then answers what it has begun; returns the exit code."""
    settings = parse_settings(
        ServeSettings,
        argv,
        positional="reward",
        metavar="REWARD",
        usage="trl-rewards serve REWARD [--host ADDRESS] [--port N] [options]",
        description="Serves a reward over HTTP: POST /score, OpenRLHF's POST /get_reward, GET /health, GET /metrics.",
        hints={argument: f"say --port {argument}" for argument in argv if argument.isdecimal()},
    )
    if settings.reward is None:
        raise InputError("a reward", "none", "trl-rewards serve tiny, or a .yaml file of your own")
    preset_content(settings.reward)
    for name in ("max_body_mb", "max_waiting_texts", "batch_texts"):
        if getattr(settings, name) < 1:
            raise InputError(f"{name} of at least 1", str(getattr(settings, name)), f"leave --{name} out")
    if not 0 <= settings.port <= 65_535:
        raise InputError("a port from 0 to 65535", str(settings.port), "leave --port out for 8000")
    token = os.environ.get(settings.token_env) or None
    if token is None and settings.token_env != ServeSettings.token_env:
        step = "set that variable, or leave --token_env out"
        raise InputError(f"a token in the environment variable {settings.token_env}", "none", step)
    try:
        import uvicorn

        from trl_rewards_plugin.serving.reward_server import reward_server
    except ModuleNotFoundError as error:
        step = "in a clone: pip install -c constraints.txt '.[serve]'"
        raise InputError("starlette, uvicorn and prometheus_client", f"no {error.name}", step) from error
    address = _bind(settings)
    terminal.silence_libraries()
    reward = _loaded_reward(settings.reward, settings.device)
    if token is None and settings.host not in ("127.0.0.1", "localhost", "::1"):
        warning = f"anyone who reaches {settings.host} can use it without a token; set {settings.token_env}"
        print(f"trl-rewards: {warning}", file=sys.stderr)
    application = reward_server(
        reward,
        token=token,
        max_body_bytes=settings.max_body_mb * 2**20,
        max_waiting_texts=settings.max_waiting_texts,
        batch_texts=settings.batch_texts,
    )
    config = uvicorn.Config(application, settings.host, settings.port, log_level="info", access_log=False)
    server = uvicorn.Server(config)
    host, port = address.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    access = "no token" if token is None else "bearer token required"
    print(f"trl-rewards: running on http://{shown}:{port} (Ctrl-C stops it) ({access})", file=sys.stderr)
    server.run(sockets=[address])
    return 0 if server.started else 1


def _bind(settings: ServeSettings) -> socket.socket:
    # Taken before the models load, so that a port in use shows at once; clients that come early wait.
    address = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        address.bind((settings.host, settings.port))
        address.listen()
    except OSError as error:
        address.close()
        expected = f"an address to listen on: {settings.host}:{settings.port}"
        step = "stop whatever is listening there, or choose another --host or --port"
        raise InputError(expected, error.strerror or str(error), step) from error
    return address


def _loaded_reward(name: str, device: str | None) -> Any:
    from trl_rewards_plugin.rewards import MultiClassifierReward

    reward = MultiClassifierReward.from_preset(name)
    _check_fixed(reward)
    for part in reward.classifiers if device is not None else ():
        part.place(device)
    for part in reward.classifiers:
        part.score(["The first client shall not wait for the models."], ["Load."])
    return reward


def _check_fixed(reward: Any) -> None:
    """Refuses what moves with requests or training, in combinations within too."""
    from trl_rewards_plugin.rewards.base import rows_within

    for row in rows_within(reward):
        moving = [key for key in ("weight_schedule", "constraints") if row.get(key)]
        moving += ["normalization: zscore"] if row.get("normalization") == "zscore" else []
        if moving:
            expected, found = (
                "a reward whose scores depend on the texts alone",
                f"{', '.join(moving)} of {row['name']}",
            )
            raise InputError(expected, found, "leave it out here, and combine remote rewards in the trainer")
