"""Tables of the generated pages."""


def cell(text: str) -> str:
    """Text that can stand in a cell of a Markdown table."""
    return text.replace("\n", " ").replace("|", "\\|").replace("\\\\|", "\\|")
