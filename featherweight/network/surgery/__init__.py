"""Surgery: removing channels from a network, the masked reference for it, and the account of what was reached."""

from featherweight.network.surgery.account import parameters_gone, reached
from featherweight.network.surgery.confirmation import confirm
from featherweight.network.surgery.removal import remove
from featherweight.network.surgery.silence import Silenced, silence
from featherweight.network.surgery.slim import Slim, slim

__all__ = ["Silenced", "Slim", "confirm", "parameters_gone", "reached", "remove", "silence", "slim"]
