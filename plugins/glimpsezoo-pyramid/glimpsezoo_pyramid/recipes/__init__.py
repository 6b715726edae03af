"""Recipe files MODEL.DATA[.VARIANT].toml; each opens with what it trains, the command and what to expect."""
