"""What people may see of personal data in logs and tools. Masks fail closed: what has no known form is hidden whole."""

HIDDEN = "****"


def mask_pan(pan: str) -> str:
    """First and last four digits: ``6217****5678``."""
    return f"{pan[:4]}****{pan[-4:]}" if 16 <= len(pan) <= 19 and pan.isascii() and pan.isdigit() else HIDDEN


def mask_identity_number(number: str) -> str:
    """First four and last four characters: ``3601**********0014``."""
    known = len(number) == 18 and number.isascii() and number[:17].isdigit() and number[17].isalnum()
    return f"{number[:4]}{'*' * 10}{number[-4:]}" if known else HIDDEN


def mask_name(name: str) -> str:
    """First character only: ``张*``."""
    return f"{name[0]}*" if name else HIDDEN


def mask_identification_code(code: str) -> str:
    """The issuing region and the last two digits."""
    return f"{code[:6]}****{code[-2:]}" if len(code) == 32 and code.isascii() and code.isalnum() else HIDDEN
