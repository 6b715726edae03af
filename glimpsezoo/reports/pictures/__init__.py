"""Pictures of traces and plots: drawings as lists of shapes (scene), their writers (svg, raster), and the layout of traces."""
