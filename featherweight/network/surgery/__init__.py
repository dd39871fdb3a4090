"""Surgery: removing channels from a network, the masked reference for it, and the account of what was reached."""

from featherweight.network.surgery.account import Reduction, account
from featherweight.network.surgery.confirmation import confirm
from featherweight.network.surgery.removal import remove
from featherweight.network.surgery.silence import Silenced, silence

__all__ = ["Reduction", "Silenced", "account", "confirm", "remove", "silence"]
