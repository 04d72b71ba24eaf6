"""What only a card can show: `python -m pytest tests/gpu`."""
