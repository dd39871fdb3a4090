"""Surgery: removing channels from a network, the masked reference for it, and the account of what was reached."""

from featherweight.network.surgery.account import Reduction, account, reached
from featherweight.network.surgery.confirmation import confirm
from featherweight.network.surgery.removal import remove
from featherweight.network.surgery.silence import Silenced, silence
from featherweight.network.surgery.slim import Slim, slim

__all__ = ["Reduction", "Silenced", "Slim", "account", "confirm", "reached", "remove", "silence", "slim"]
