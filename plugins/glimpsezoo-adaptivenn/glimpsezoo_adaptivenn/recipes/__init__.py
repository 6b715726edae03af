"""How the models of this plugin are trained: files named MODEL.DATA[.VARIANT].toml."""
