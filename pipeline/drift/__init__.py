"""Whether the images of a scoring run, and the predictions for them, differ from those of the test split.

`counts` holds the predictions, `image_measures` and `sample` what is measured on the images; `baseline` is
what a bundle keeps of its test images, and `comparison` compares a run with it.
"""
