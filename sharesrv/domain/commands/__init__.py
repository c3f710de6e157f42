"""The commands as values, each saying which rows it needs: `names` from its own fields, `between` from the rows found.

Whoever asks, by whatever door, it is one of these that reaches the ledger. `session` is the connection that asked, for what
is told to an account's others but not to it.
"""

from sharesrv.domain.commands.base import Called
from sharesrv.domain.commands.codes import (
    Accept,
    ByCode,
    ByProduct,
    CodeCommand,
    CreateCode,
    FindDevice,
    Identify,
    Inspect,
    Invite,
    Leave,
    Rename,
    SetEnd,
    Unshare,
)
from sharesrv.domain.commands.devices import (
    AboutDevice,
    Control,
    Controlled,
    DeviceCommand,
    Hear,
    OnDevice,
    Query,
    Recall,
    Register,
    Report,
)
from sharesrv.domain.commands.operators import Amend, Close, OperatorCommand
from sharesrv.domain.commands.sharing import (
    HANDSHAKES,
    OFFERS,
    UNKNOWN_UIDS,
    Answer,
    Cancel,
    Connect,
    Expire,
    Received,
    Request,
    Retell,
    SharingCommand,
    ToSharee,
    Update,
)

Command = SharingCommand | DeviceCommand | CodeCommand | OperatorCommand

__all__ = [
    "HANDSHAKES",
    "OFFERS",
    "UNKNOWN_UIDS",
    "AboutDevice",
    "Accept",
    "Amend",
    "Answer",
    "ByCode",
    "ByProduct",
    "Called",
    "Cancel",
    "Close",
    "CodeCommand",
    "Command",
    "Connect",
    "Control",
    "Controlled",
    "CreateCode",
    "DeviceCommand",
    "Expire",
    "FindDevice",
    "Hear",
    "Identify",
    "Inspect",
    "Invite",
    "Leave",
    "OnDevice",
    "OperatorCommand",
    "Query",
    "Recall",
    "Received",
    "Register",
    "Rename",
    "Report",
    "Request",
    "Retell",
    "SetEnd",
    "SharingCommand",
    "ToSharee",
    "Unshare",
    "Update",
]
