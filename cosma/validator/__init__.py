"""The validator: replays any plan and counts its traffic. It imports nothing that makes plans."""

from cosma.validator.replay import counted, examine, invalid, replay, replay_instructions
from cosma.validator.verdicts import ReplayReport, Verdict, Violation

__all__ = ["ReplayReport", "Verdict", "Violation", "counted", "examine", "invalid", "replay", "replay_instructions"]
