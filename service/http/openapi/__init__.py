"""What /docs says of each API."""
