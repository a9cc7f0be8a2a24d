"""What stands in each place of the card's template, as Markdown; one file for each part of the card.

Each function takes the card's data and returns "" where there is nothing to say. Only numbers that were measured.
Leaves out: the quickstart (`quickstart.py`), the YAML in front (`metadata.py`).
"""
