"""Pictures of what a model looked at: a drawing as a list of shapes (scene), its writers (svg, raster), and traces laid out on it."""
