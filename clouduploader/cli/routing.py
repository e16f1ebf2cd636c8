"""Which form of the command line this is, decided before Click parses anything.

OBS passes its arguments by exec: a user may be called `list` or `-king`, and Click must take
none of these for a command or an option.
"""

from collections.abc import Sequence

CONTRACT_COMMAND = "contract"
OPERAND_COUNTS = (5, 6)  # the forms of December 2017 and of OBS 2.9; see README, "The contract"
FLAGS = frozenset({"-v", "--verbose", "-q", "--quiet"})
VALUED = frozenset({"--home", "--spool"})


def route(arguments: Sequence[str]) -> list[str]:
    """Make OBS's call explicit, and leave every other command line as it is.

    Five or six operands whose third and fourth are absolute paths are the contract; options may
    stand before them. A target never begins with a dash.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The arguments for Click: those of the contract behind `contract --`, so that nothing in
        them is an option.
    """
    for start in _operand_starts(arguments):
        operands = arguments[start:]
        if len(operands) in OPERAND_COUNTS and _is_contract(operands):
            return [*arguments[:start], CONTRACT_COMMAND, "--", *operands]
    return list(arguments)


def _is_contract(operands: Sequence[str]) -> bool:
    return operands[2].startswith("/") and operands[3].startswith("/") and not operands[1].startswith("-")


def _operand_starts(arguments: Sequence[str]) -> list[int]:
    """Where the operands can begin: at the front, and behind each complete leading option."""
    starts = [0]
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word in FLAGS or (word.partition("=")[0] in VALUED and "=" in word):
            position += 1
        elif word in VALUED:
            position += 2
        else:
            break
        starts.append(position)
    return starts
