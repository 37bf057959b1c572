"""The seven emotions, in the one order this project uses everywhere.

It is the order of every table in the papers, and DFEW's label ids minus one.
"""

EMOTIONS = ("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear")
"""Label names; the id of an emotion is its place in this tuple (0 to 6)."""
