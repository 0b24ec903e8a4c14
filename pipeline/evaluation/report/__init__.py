"""The HTML report of an evaluation.

It is one self-contained file, so that it can be mailed, archived and opened anywhere.
"""
