import sys; sys.path[:0]=["/tmp"]
from jaxtyping import install_import_hook
HOOK = install_import_hook(["glimpsezoo", "glimpsezoo_mgnet", "glimpsezoo_timm", "glimpsezoo_pyramid", "glimpsezoo_ranzato"], "shapes.checked")
