"""The page `report/inside.html`: what the network sees in a few test images, drawn from its activations."""
