"""How timm's models are trained: files named timm_ARCHITECTURE.DATA[.VARIANT].toml, the colon of `timm:` written as an underscore."""
